"""What a picture's file says about how the picture was made, and what another program's settings are here.

No value is checked: a request does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from shared.checkpoints import SAMPLER_NAMES, get_checkpoint
from shared.errors import UnknownCheckpoint
from shared.numbers import number_from_text

Writer = Literal[
    "cygnet",
    "a1111",
    "civitai",
    "comfyui",
    "draw-things",
    "easy-diffusion",
    "fooocus",
    "invokeai",
    "novelai",
    "swarmui",
    "other",
]
"""`a1111` is whoever writes A1111's text, `other` a program that does not give its name."""


@dataclass(frozen=True)
class Recipe:
    """What a picture's file says about how the picture was made."""

    writer: Writer
    fields: dict[str, Any]
    """For `parse_request`, which checks them; from another program only what has a counterpart here."""
    revision: str | None = None
    """Of the checkpoint; None if unpinned or unknown."""
    ignored: dict[str, str] = field(default_factory=dict)
    """The settings without a counterpart, as written."""


class Stored(BaseModel):
    """Our JSON. Another shape gets another version number."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    request: dict[str, Any]
    revision: str | None


_VARIANTS = {"unipcbh2": "unipc"}
"""Other programs' names for what ours does by default."""

_SIZE = re.compile(r"\W*(\d{1,9})\W*[x×,*]\W*(\d{1,9})\W*")


def foreign(writer: Writer, settings: Iterable[tuple[str, str | None, Any]]) -> Recipe:
    """A recipe of settings: their name, ours if there is one, and the value. The first of a name counts."""
    fields: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for theirs, ours, value in settings:
        found = our_fields(ours, value) if ours and ours not in fields else None
        if found is not None:
            fields |= found
        elif value not in (None, "", [], {}):
            ignored[theirs] = shown(value)
    return Recipe(writer, fields, ignored=ignored)


def our_fields(name: str, value: Any) -> dict[str, Any] | None:
    """A setting under our name for it, or `size` for both sides; None if its value has no counterpart.

    A seed of -1 is none: other programs mean by it that one is drawn.
    """
    match name:
        case "prompt" | "negative_prompt":
            return {name: value.strip()} if isinstance(value, str) else None
        case "size":
            sides = _SIZE.fullmatch(value) if isinstance(value, str) else None
            return {"width": int(sides[1]), "height": int(sides[2])} if sides else None
        case "scheduler":
            ours = _scheduler(value) if isinstance(value, str) else None
            return {name: ours} if ours else None
        case "checkpoint":
            try:
                return {name: get_checkpoint(value).name} if isinstance(value, str) else None
            except UnknownCheckpoint:
                return None
    number = number_from_text(value.strip()) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return {} if name == "seed" and number == -1 else {name: number}


def shown(value: Any) -> str:
    """A value as it was written, to be listed among what is not used."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _scheduler(name: str) -> str | None:
    plain = _plain(name)
    plain = _VARIANTS.get(plain, plain)
    return next(
        (ours for ours, theirs in SAMPLER_NAMES.items() if plain in (_plain(ours), _plain(theirs))),
        None,
    )


def _plain(name: str) -> str:
    """`UniPC`, `uni_pc` and `k_euler` as `unipc` and `euler`."""
    return re.sub(r"[\W_]", "", name.strip().casefold().removeprefix("k_"))
