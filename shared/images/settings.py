"""Recipes that are settings by name: the JSON of most programs, and their like.

SwarmUI, Fooocus and its kin, InvokeAI, NovelAI, Draw Things, Civitai, Easy Diffusion and others call the same
things by names that differ little. An object is a recipe if it bears the marks of a program, or has a prompt
and two more settings that every such program knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from shared.images.recipe import Recipe, Writer, foreign

_OURS = {
    "prompt": "prompt",
    "positiveprompt": "prompt",
    "c": "prompt",
    "negativeprompt": "negative_prompt",
    "negative": "negative_prompt",
    "uc": "negative_prompt",
    "steps": "steps",
    "numinferencesteps": "steps",
    "guidancescale": "guidance_scale",
    "cfgscale": "guidance_scale",
    "cfg": "guidance_scale",
    "scale": "guidance_scale",
    "guidance": "guidance_scale",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "size": "size",
    "resolution": "size",
    "sampler": "scheduler",
    "samplername": "scheduler",
    "ksamplername": "scheduler",
    "model": "checkpoint",
    "modelname": "checkpoint",
    "modelweights": "checkpoint",
    "basemodel": "checkpoint",
    "basemodelname": "checkpoint",
    "usestablediffusionmodel": "checkpoint",
    "stablediffusionmodel": "checkpoint",
}
"""Our name for theirs, without case and punctuation."""

_MARKS: tuple[tuple[Writer, frozenset[str]], ...] = (
    ("draw-things", frozenset({"c", "sampler"})),
    ("novelai", frozenset({"uc", "scale"})),
    ("novelai", frozenset({"uc", "sampler"})),
    ("invokeai", frozenset({"positiveprompt"})),
    ("invokeai", frozenset({"appversion"})),
    ("invokeai", frozenset({"appid"})),
    ("fooocus", frozenset({"admguidance"})),
    ("fooocus", frozenset({"basemodel", "performance"})),
    ("easy-diffusion", frozenset({"usestablediffusionmodel"})),
    ("easy-diffusion", frozenset({"stablediffusionmodel"})),
)
_TELLING = {"steps", "guidance_scale", "seed", "scheduler", "width", "height", "size"}

_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")
_OPTION = re.compile(r"(?<!\S)-([A-Za-z]+?)(?:\s?((?:\d|\.|k_)\S*)|\s+([a-z]\w*))?(?!\S)")
_OPTIONS = {
    "s": "steps",
    "S": "seed",
    "W": "width",
    "H": "height",
    "C": "guidance_scale",
    "A": "scheduler",
}


def parse_settings(
    found: Mapping[str, Any], named: Mapping[str, str] | None = None
) -> Recipe | None:
    """The recipe in a JSON object, or None if it is none. `named` are the file's other texts."""
    writer, settings = _unwrapped(found, named or {})
    plain = {_plain(name) for name in settings}
    writer = writer or _writer(settings, plain)
    ours = _OURS
    if "scheduler" not in {_OURS.get(name) for name in plain}:
        ours = _OURS | {
            "scheduler": "scheduler"
        }  # as InvokeAI says; elsewhere it spaces the levels
    recipe = foreign(
        writer or "other",
        ((name, ours.get(_plain(name)), value) for name, value in settings.items()),
    )
    telling = len(_TELLING & recipe.fields.keys())
    if "prompt" in recipe.fields and telling >= 2:
        return recipe
    return recipe if writer and ("prompt" in recipe.fields or telling >= 2) else None


def parse_dream(text: str) -> Recipe | None:
    """The recipe in a command line of InvokeAI's first versions."""
    text = text.strip()
    if text.startswith('"'):
        prompt, _, options = text[1:].rpartition('"')
    else:
        first = _OPTION.search(text)
        prompt, options = (text[: first.start()], text[first.start() :]) if first else (text, "")
    given = _OPTION.findall(options)
    if not {"s", "S"} <= {letter for letter, *_ in given}:
        return None
    prompt, negative = _without_brackets(prompt)
    return foreign(
        "invokeai",
        [
            ("prompt", "prompt", prompt),
            ("negative prompt", "negative_prompt", negative),
            *((f"-{letter}", _OPTIONS.get(letter), one or other) for letter, one, other in given),
        ],
    )


def _writer(settings: Mapping[str, Any], plain: set[str]) -> Writer | None:
    """Whose marks they bear."""
    if "fooocus" in str(settings.get("software", settings.get("version"))).casefold():
        return "fooocus"
    return next((writer for writer, marks in _MARKS if marks <= plain), None)


def _unwrapped(
    found: Mapping[str, Any], named: Mapping[str, str]
) -> tuple[Writer | None, dict[str, Any]]:
    """The settings themselves, and who wrote them where the wrapping tells."""
    rest = dict(found)
    if isinstance(inner := rest.pop("sui_image_params", None), dict):
        return "swarmui", inner | rest
    if inner := as_object(rest.pop("extraMetadata", None)):
        return "civitai", inner | {
            name: value for name, value in rest.items() if not _is_node(value)
        }
    if isinstance(inner := found.get("image"), dict) and "prompt" in inner:
        return "invokeai", _of_brackets(inner) | {**found, "image": None}
    if inner := as_object(
        found.get("Comment")
    ):  # NovelAI, where a format has but one place for a text
        named = {name: value for name, value in found.items() if isinstance(value, str)}
        rest = inner
    if "uc" in rest and "prompt" not in rest and "c" not in rest and named.get("Description"):
        rest["prompt"] = named["Description"]
    if "uc" in rest and named.get("Source"):
        rest["Source"] = named["Source"]
    return None, rest


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, or the one that a text holds; empty if it is neither."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _of_brackets(image: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of InvokeAI 2, whose prompt has in brackets what to avoid."""
    parts = image["prompt"] if isinstance(image["prompt"], list) else [image["prompt"]]
    texts = [part.get("prompt") if isinstance(part, dict) else part for part in parts]
    prompt, negative = _without_brackets(" ".join(text for text in texts if isinstance(text, str)))
    return {"prompt": prompt, "negative_prompt": negative} | {
        name: value for name, value in image.items() if name != "prompt"
    }


def _without_brackets(text: str) -> tuple[str, str]:
    prompt = re.sub(r"\s+", " ", _NEGATIVE.sub("", text)).strip()
    return prompt, ", ".join(filter(None, map(str.strip, _NEGATIVE.findall(text))))


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "class_type" in value


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())
