"""ComfyUI's graph of nodes: what its sampler was given, followed back to where it comes from.

A node is `{"class_type": ..., "inputs": {...}}`; an input is a value, or the output of another node as
`["its id", which]`. There are thousands of kinds of nodes. So none is known by its kind: inputs are, by the
names that the common nodes share, and what leads to a text is followed whatever lies between.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shared.images.recipe import Recipe, foreign

_STEPS, _SEED, _CFG = ("steps",), ("seed", "noise_seed"), ("cfg", "cfg_conds")
_SAMPLER = ("sampler_name", "scheduler")  # WanVideo's sampler calls it so; others have both
_CANVAS = ("latent_image", "latent", "latents", "samples", "image_embeds", "optional_latent")
_POLARITIES = ("positive", "negative")
_POSITIVE = ("positive", "conditioning", "cond1", "text_embeds")
_NEGATIVE = ("negative", "text_embeds")
_ENCODED = {
    "text",
    "text_g",
    "text_l",
    "clip_g",
    "clip_l",
    "t5xxl",
    "llama",
    "prompt",
    "positive",
    "negative",
    "positive_prompt",
    "negative_prompt",
}
_WRITTEN = (
    "populated_text",
    "result",
    "text_positive",
    "text_negative",
    "positive_prompt",
    "negative_prompt",
    "positive",
    "negative",
    "value",
    "string",
    "text",
    "prompt",
)
_NUMBER = ("value", "seed", "noise_seed", "int", "float", "number", "a")
_JOINED = re.compile(r"(?:string|text|input|prompt)_?(?:[a-z]|\d{1,2})", re.I)
_SELECTORS = ("select", "input", "index", "switch", "boolean", "condition")
_NOT_TEXT = re.compile(
    r"clip(?:_vision.*)?|.*model.*|vae|.*image.*|.*mask.*|.*latent.*|samples|pixels|control_net|lora.*|t5",
    re.I,
)
_DEEPEST = 200  # nodes between a sampler and a text


def parse_graph(graph: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a graph, or None if it is none, or has no sampler."""
    nodes = {
        str(key): node
        for key, node in graph.items()
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict) and "class_type" in node
    }
    walk = _Graph(nodes)
    recipe = walk.recipe(sampler) if (sampler := walk.sampler()) else None
    return recipe if recipe and any(recipe.fields.values()) else None


class _Graph:
    def __init__(self, nodes: Mapping[str, dict[str, Any]]) -> None:
        self._nodes = nodes
        self._used: set[tuple[str, str]] = set()

    def sampler(self) -> str | None:
        """The one that began the picture: before any that refines what another one drew."""
        samplers = {key: None for key in self._nodes if self._is_sampler(key)}
        sources = self._sources()
        ends = sorted(
            (key for key in self._nodes if key not in sources),
            key=lambda key: "save" not in str(self._nodes[key]["class_type"]).lower(),
        )
        last = next((key for key in (*self._upstream(*ends), *samplers) if key in samplers), None)
        return [key for key in self._upstream(last) if key in samplers][-1] if last else None

    def recipe(self, sampler: str) -> Recipe:
        positive = self._text(sampler, _POSITIVE, "positive")
        negative = self._text(sampler, _NEGATIVE, "negative")
        noise, sigmas = ("noise",), ("sigmas", "scheduler", "sampler_settings")
        found = [
            ("prompt", "prompt", positive),
            ("negative prompt", "negative_prompt", negative),
            ("steps", "steps", self._find(sampler, _STEPS, sigmas)),
            ("cfg", "guidance_scale", self._find(sampler, _CFG, ("guider",))),
            ("seed", "seed", self._find(sampler, _SEED, noise)),
            ("sampler", "scheduler", self._find(sampler, _SAMPLER, ("sampler",))),
            ("width", "width", self._find(sampler, ("width",), _CANVAS)),
            ("height", "height", self._find(sampler, ("height",), _CANVAS)),
        ]
        return foreign("comfyui", [*found, *self._unused(sampler)])

    # Where things come from

    def _inputs(self, key: str) -> dict[str, Any]:
        return self._nodes[key]["inputs"]

    def _source(self, value: Any) -> str | None:
        """The node whose output the value is."""
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
            return str(value[0]) if str(value[0]) in self._nodes else None
        return None

    def _sources(self) -> set[str]:
        values = (value for node in self._nodes.values() for value in node["inputs"].values())
        return {source for source in map(self._source, values) if source}

    def _upstream(self, *keys: str) -> list[str]:
        """The nodes, and all that their inputs come from, the nearest first."""
        seen, ahead = dict.fromkeys(keys), deque(keys)
        while ahead:
            for value in self._inputs(ahead.popleft()).values():
                source = self._source(value)
                if source and source not in seen:
                    seen[source] = None
                    ahead.append(source)
        return list(seen)

    def _is_sampler(self, key: str) -> bool:
        inputs = self._inputs(key)
        prompted = any(name in inputs for name in ("positive", "guider", "text_embeds"))
        seeded = any(name in inputs for name in (*_SEED, "noise", "steps", "sigmas"))
        return seeded and (prompted or {"sampler_name", "steps"} <= inputs.keys())

    # Numbers and names

    def _find(self, key: str, names: Sequence[str], via: Sequence[str]) -> Any:
        """The value of the nearest of these inputs, through the inputs `via`."""
        seen, ahead = {key}, deque([key])
        while ahead:
            node = ahead.popleft()
            inputs = self._inputs(node)
            for name in names:
                value = self._value(node, name)
                if value is not None:
                    return value
            for name in via:
                source = self._source(inputs.get(name))
                if source and source not in seen:
                    seen.add(source)
                    ahead.append(source)
        return None

    def _value(self, key: str, name: str) -> Any:
        """The plain value of an input, also one that another node holds."""
        seen: set[str] = set()
        names: Sequence[str] = (name,)
        while key not in seen:
            seen.add(key)
            inputs = {one.lower(): (one, value) for one, value in self._inputs(key).items()}
            for name in names:
                written, value = inputs.get(name, (name, None))
                if source := self._source(value):
                    key, names = source, (*names[:1], *_NUMBER)
                    break
                if isinstance(value, str | int | float):
                    self._used.add((key, written))
                    return value
        return None

    # Texts

    def _text(self, sampler: str, names: Sequence[str], polarity: str) -> str:
        """What was to be seen, or avoided: the texts that reach the first of these inputs, joined."""
        guider = self._source(self._inputs(sampler).get("guider"))
        for key in (sampler, guider) if guider else (sampler,):
            for name in names:
                inputs = self._inputs(key)
                if source := self._source(inputs.get(name)):
                    # WanVideo's embeddings are of both at once.
                    slot = None if name == "text_embeds" else inputs[name][1]
                    texts = self._encoded(source, slot, polarity, set())
                    return ", ".join(dict.fromkeys(filter(None, map(str.strip, texts))))
        return ""

    def _encoded(self, key: str, slot: Any, polarity: str, seen: set[str]) -> list[str]:
        """The texts behind a conditioning."""
        if key in seen or len(seen) >= _DEEPEST:
            return []
        seen.add(key)
        inputs = self._inputs(key)
        if "zeroout" in str(self._nodes[key]["class_type"]).lower():
            return []
        if any(self._source(inputs.get(one)) for one in _POLARITIES):
            # It changes both, and gives them out in this order.
            ways = [_POLARITIES[slot] if slot in (0, 1) else polarity]
        else:
            written = [name for name in _of(inputs, polarity) if name in _ENCODED]
            if written:
                texts = (self._string(key, name, polarity, set()) for name in written)
                return [text for text in texts if text]
            ways = _selected(inputs, [name for name in inputs if not _NOT_TEXT.fullmatch(name)])
        found: list[str] = []
        for name in ways:
            if source := self._source(inputs.get(name)):
                found += self._encoded(source, inputs[name][1], polarity, seen)
        return found

    def _string(self, key: str, name: str, polarity: str, seen: set[str]) -> str:
        """The text of an input, also one that another node holds or joins."""
        value = self._inputs(key)[name]
        if isinstance(value, str):
            self._used.add((key, name))
            return value
        source = self._source(value)
        if source is None or source in seen or len(seen) >= _DEEPEST:
            return ""
        seen.add(source)
        inputs = self._inputs(source)
        mine = _of(inputs, polarity)
        for one in _WRITTEN:
            if one in mine and (text := self._string(source, one, polarity, seen)):
                return text
        joined = _selected(inputs, [one for one in mine if _JOINED.fullmatch(one)])
        passed = _selected(inputs, [one for one in mine if self._source(inputs[one])])
        parts = (self._string(source, one, polarity, seen) for one in joined or passed)
        if not joined:  # a switch gives out the first that it gets
            return next(filter(None, parts), "")
        delimiter = inputs.get("delimiter", inputs.get("separator"))
        return (delimiter if isinstance(delimiter, str) else "").join(filter(None, parts))

    def _unused(self, sampler: str) -> Iterator[tuple[str, None, Any]]:
        """What else the picture was made with: the plain inputs that have no counterpart here."""
        for key in self._upstream(sampler):
            for name, value in self._inputs(key).items():
                if (key, name) not in self._used and isinstance(value, str | int | float):
                    yield f"{self._nodes[key]['class_type']} {name}", None, value


def _selected(inputs: Mapping[str, Any], ways: list[str]) -> list[str]:
    """Of the ways through a node that selects one of them by number, or by true and false, that one."""
    for name, value in inputs.items():
        if name.lower() in _SELECTORS and isinstance(value, int):
            end = re.compile(f"(?i:.*{value})" if isinstance(value, bool) else rf".*\D0*{value}")
            if picked := [way for way in ways if end.fullmatch(way)]:
                return picked
    return ways


def _of(inputs: Mapping[str, Any], polarity: str) -> list[str]:
    """The inputs without those that speak of the other polarity, where both are there."""
    other = next(one for one in _POLARITIES if one != polarity)
    both = all(any(one in name for name in inputs) for one in _POLARITIES)
    return [name for name in inputs if not (both and other in name)]
