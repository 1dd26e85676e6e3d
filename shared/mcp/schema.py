"""What the tools take: the fields of a request, under their own names, with their limits.

A client reads the limits here; `parse_request` holds them. So a field is written down once, in the
contract, and whoever breaks a limit hears it in our words.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from shared.checkpoints import CHECKPOINTS
from shared.contract import MAX_PROMPT, GenerationRequest
from shared.errors import InvalidRequest
from shared.field_names import OURS, readable
from shared.numbers import READ_NUMBER

WAIT = 30.0
"""Seconds that a call waits unless it says otherwise."""

Seconds = Annotated[
    float,
    Field(
        strict=True,
        ge=0,
        le=50,
        description="how long this call may wait; many clients give up on a call after 45 to 60 s",
    ),
    READ_NUMBER,
]
JobId = Annotated[str, Field(max_length=40, description="as generate_image gave it")]
ImageId = Annotated[
    str, Field(pattern="^[0-9a-f]{32}$", description="as generate_image or list_images gave it")
]
Words = Annotated[
    str,
    Field(max_length=MAX_PROMPT, description="words of the prompt, the checkpoint or the seed"),
]
PageSize = Annotated[
    int, Field(strict=True, ge=1, le=50, description="how many, the newest first"), READ_NUMBER
]

_SIDE = {
    "minimum": min(checkpoint.min_size for checkpoint in CHECKPOINTS),
    "maximum": max(checkpoint.max_size for checkpoint in CHECKPOINTS),
    "multipleOf": math.gcd(*(checkpoint.size_multiple for checkpoint in CHECKPOINTS)),
    "description": "pixels; list_checkpoints has the limits of each",
}
_MORE: dict[str, dict[str, Any]] = {
    "prompt": {"minLength": 1},
    "negative_prompt": {
        "description": f"what to avoid, in at most {MAX_PROMPT} characters; acts when "
        "guidance_scale is above 1"
    },
    "checkpoint": {"enum": [checkpoint.name for checkpoint in CHECKPOINTS]},
    "width": _SIDE,
    "height": _SIDE,
    "steps": {"description": "more take longer; left out, the checkpoint's own"},
    "num_images": {"description": "their seeds count up"},
}
"""What the contract's schema leaves to its validators, and what a model has to know beside it."""

_SCHEMA = GenerationRequest.model_json_schema()

REQUEST: dict[str, dict[str, Any]] = {
    name: facts | _MORE.get(name, {}) for name, facts in _SCHEMA["properties"].items()
}
"""Each field of a request with its JSON schema."""


def generate_parameters(backends: Sequence[str], backend: str) -> Iterator[inspect.Parameter]:
    """The parameters of generate_image: a request's fields, where to draw, how long to wait.

    Any value of a field passes here, and is checked as a part of its request.
    """
    facts = {"type": "string", "enum": [*backends], "description": "where; see list_backends"}
    fields = REQUEST | {"backend": facts | {"default": backend}}
    for name, facts in fields.items():
        required = name in _SCHEMA["required"]
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else facts.get("default"),
            annotation=Annotated[Any, WithJsonSchema(facts)],
        )
    yield inspect.Parameter(
        "wait_seconds", inspect.Parameter.KEYWORD_ONLY, default=WAIT, annotation=Seconds
    )


def published(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool's input schema as clients get it: without what says nothing, and what they cannot take.

    Whatever is left out here is checked all the same. google-genai reads `additionalProperties` as
    a schema and fails on a `false`. llama.cpp makes a grammar of the schemas of all tools before each
    message: it wants a pattern to be anchored and without classes, and spells a `maxLength` out.
    """
    properties = {
        name: {key: value for key, value in facts.items() if _is_published(key, value)}
        for name, facts in schema["properties"].items()
    }
    kept = {key: value for key, value in schema.items() if key != "additionalProperties"}
    return kept | {"properties": properties}


def _is_published(key: str, value: object) -> bool:
    if key == "pattern":
        return str(value).startswith("^") and str(value).endswith("$") and "\\" not in str(value)
    return key not in ("title", "maxLength") and (key, value) != ("default", None)


def check_names(arguments: dict[str, Any], schema: dict[str, Any]) -> None:
    """Raises `InvalidRequest` for an argument that a tool does not have, or that is missing."""
    if missing := [name for name in schema.get("required", ()) if name not in arguments]:
        raise InvalidRequest(f"{missing[0]} is missing.", f"Give {missing[0]}.", tuple(missing))
    known = schema["properties"]
    if unknown := [name for name in arguments if name not in known]:
        meant = [one for one in OURS.meant(unknown[0], known) if one in known]
        hint = f"Did you mean {' and '.join(meant)}? " if meant else ""
        raise InvalidRequest(
            f"{unknown[0][:60]!r} is no argument of this tool.",
            f"{hint}It has {', '.join(known)}." if known else "It has none.",
            tuple(map(readable, unknown)),
        )
