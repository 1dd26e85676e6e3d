"""OpenAI's Images API as JSON: what a call asks for, what it is answered.

What OpenAI's fields have no counterpart for here is accepted and left alone, such as `quality`;
what would change the picture is refused, such as a transparent background.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, ValidationError

from shared.api.schemas import json_body
from shared.contract import GenerationRequest, parse_request
from shared.errors import InvalidRequest
from shared.images import recompress
from shared.numbers import READ_NUMBER
from shared.store import Job

_RENAMED = {"model": "checkpoint", "n": "num_images"}
_THEIRS = {ours: theirs for theirs, ours in _RENAMED.items()} | {"width": "size", "height": "size"}
"""What a call says in place of a field of ours."""

_OURS = ("prompt", "negative_prompt", "steps", "guidance_scale", "seed", "scheduler")


class _Options(BaseModel):
    """What a call says beside the request itself."""

    size: str = Field(default="auto", pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$")
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_compression: Annotated[int | None, Field(strict=True, ge=0, le=100), READ_NUMBER] = None
    stream: StrictBool = False
    partial_images: Annotated[int, Field(strict=True, ge=0, le=3), READ_NUMBER] = 0
    background: Literal["auto", "opaque"] = "auto"
    quality: Any = Field(default=None, description="accepted, without effect")
    moderation: Any = Field(default=None, description="accepted, without effect")
    style: Any = Field(default=None, description="accepted, without effect")
    user: Any = Field(default=None, description="accepted, and not kept")
    safety_identifier: Any = Field(default=None, description="accepted, and not kept")


def _properties() -> dict[str, Any]:
    ours = GenerationRequest.model_json_schema()["properties"]
    theirs = {name: ours[field] for name, field in _RENAMED.items()}
    kept = {name: ours[name] for name in (*_OURS, "output_format")}
    return kept | theirs | _Options.model_json_schema()["properties"]


REQUEST_BODY = json_body(_properties())


@dataclass(frozen=True)
class Wanted:
    """What a call asks for."""

    request: GenerationRequest
    by_url: bool
    quality: int | None
    stream: bool
    partial_images: int

    def shows_preview(self, shown: int, step: int) -> bool:
        """Whether the preview after `step` is due; previews are spread evenly over the steps."""
        due = (shown + 1) * self.request.steps / (self.partial_images + 1)
        return shown < self.partial_images and step >= due

    @property
    def size(self) -> str:
        return f"{self.request.width}x{self.request.height}"


def read_call(data: Mapping[str, Any]) -> Wanted:
    """What the body of a call asks for. Raises `InvalidRequest`, naming the call's own fields."""
    given = {name: value for name, value in data.items() if value is not None}
    for name in filter(given.__contains__, _THEIRS):
        raise InvalidRequest(f"There is no {name} here.", f"Give {_THEIRS[name]}.", (name,))
    options = _read_options(given)
    fields = {
        _RENAMED.get(name, name): value
        for name, value in given.items()
        if name not in _Options.model_fields
    }
    if options.size != "auto":
        fields["width"], fields["height"] = map(int, options.size.split("x"))
    try:
        request = parse_request(fields)
    except InvalidRequest as refusal:
        refusal.fields = tuple(_THEIRS.get(name, name) for name in refusal.fields)
        raise
    if options.output_compression is not None:
        _check_compression(request, options)
    return Wanted(
        request=request,
        by_url=options.response_format == "url",
        quality=options.output_compression,
        stream=options.stream,
        partial_images=options.partial_images,
    )


def _read_options(given: Mapping[str, Any]) -> _Options:
    try:
        return _Options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidRequest(f"{name}: {first['msg']}.", f"Correct {name}.", (name,)) from None


def _check_compression(request: GenerationRequest, options: _Options) -> None:
    if request.output_format == "png" or options.response_format == "url":
        raise InvalidRequest(
            "output_compression is for webp and jpeg that are sent as b64_json.",
            "Leave it out, or ask for these.",
            ("output_compression",),
        )


def answer(job: Job, wanted: Wanted, images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole answer to a call that is not streamed, with each image as it is to be sent."""
    return {
        "created": int(job.created),
        "data": [
            sent | {"seed": image.seed} for sent, image in zip(images, job.images, strict=True)
        ],
        "background": "opaque",
        "output_format": wanted.request.output_format,
        "size": wanted.size,
        "cygnet": {"job": job.id, "request": job.request, "result": job.result},
    }


def partial(job: Job, wanted: Wanted, step: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The picture so far: small, and a JPEG whatever the image will be."""
    told = _common(job, wanted, "image_generation.partial_image", step["preview"])
    return told | {"output_format": "jpeg", "partial_image_index": number, "index": step["index"]}


def completed(job: Job, wanted: Wanted, image: Mapping[str, Any]) -> dict[str, Any]:
    data = image["image"]
    if wanted.quality is not None:
        data = encoded_file(base64.b64decode(data), wanted)
    nothing = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    usage = nothing | {"input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}
    told = _common(job, wanted, "image_generation.completed", data)
    return told | {
        "usage": usage,
        "index": image["index"],
        "seed": image["seed"],
        "cygnet": {"job": job.id, "request": job.request},
    }


def _common(job: Job, wanted: Wanted, kind: str, data: str) -> dict[str, Any]:
    return {
        "type": kind,
        "b64_json": data,
        "background": "opaque",
        "created_at": int(job.created),
        "output_format": wanted.request.output_format,
        "quality": "auto",
        "size": wanted.size,
    }


def encoded_file(data: bytes, wanted: Wanted) -> str:
    """A file in base64, at the quality that was asked for."""
    if wanted.quality is not None:
        data = recompress(data, wanted.quality)
    return base64.b64encode(data).decode("ascii")
