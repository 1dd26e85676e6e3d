"""What a call of OpenAI's Images API asks for.

What OpenAI's fields have no counterpart for here is accepted and left alone, such as `quality`;
what would change the picture is refused, such as a transparent background.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, ValidationError

from shared.api.openai_models import OpenAIModels, fitted, gives_url, unknown_model
from shared.api.schemas import json_body
from shared.checkpoints import Checkpoint, get_checkpoint
from shared.contract import GenerationRequest, check_names, is_left_out, nearest_size, parse_request
from shared.errors import InvalidRequest, UnknownCheckpoint
from shared.field_names import FieldNames
from shared.numbers import READ_NUMBER
from shared.refusals import refusal
from shared.settings import settings

_OURS = ("prompt", "negative_prompt", "steps", "guidance_scale", "seed", "scheduler")
_UNUSED = "accepted, without effect"


class _Options(BaseModel):
    """What a call says beside the request itself."""

    response_format: Literal["b64_json", "url"] | None = None
    output_compression: Annotated[int | None, Field(strict=True, ge=0, le=100), READ_NUMBER] = None
    stream: StrictBool = False
    partial_images: Annotated[int, Field(strict=True, ge=0, le=3), READ_NUMBER] = 0
    background: Literal["auto", "opaque"] = "auto"
    quality: Any = Field(default=None, description=_UNUSED)
    moderation: Any = Field(default=None, description=_UNUSED)
    style: Any = Field(default=None, description=_UNUSED)
    input_fidelity: Any = Field(default=None, description=f"{_UNUSED}: there is no input image")
    user: Any = Field(default=None, description="accepted, and not kept")
    safety_identifier: Any = Field(default=None, description="accepted, and not kept")


_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_SIZE_SCHEMA = {
    "type": "string",
    "default": "auto",
    "pattern": f"^(auto|{_SIZE.pattern})$",
    "description": "WIDTHxHEIGHT in pixels, or auto for the model's own",
    "examples": ["256x256"],
}
_OPTION_SCHEMAS: dict[str, Any] = _Options.model_json_schema()["properties"]

_NAMES = FieldNames(
    {"checkpoint": "model", "num_images": "n", "width": "size", "height": "size"}, _OPTION_SCHEMAS
)
_FIELDS = {"model": "checkpoint", "n": "num_images"} | {
    name: name for name in (*_OURS, "output_format")
}
"""Our name for each field that goes into the request as it is, by the call's name."""


def _properties() -> dict[str, Any]:
    ours = GenerationRequest.model_json_schema()["properties"]
    fields = {name: ours[field] for name, field in _FIELDS.items()}
    return fields | {"size": _SIZE_SCHEMA} | _OPTION_SCHEMAS


REQUEST_BODY = json_body(_properties())


@dataclass(frozen=True)
class Wanted:
    """What a call asks for."""

    request: GenerationRequest
    by_url: bool
    quality: int | None
    stream: bool
    partial_images: int
    remarks: tuple[str, ...] = ()
    """What is drawn otherwise than the call says, in sentences."""

    def shows_preview(self, shown: int, step: int) -> bool:
        """Whether the preview after `step` is due; previews are spread evenly over the steps."""
        due = (shown + 1) * self.request.steps / (self.partial_images + 1)
        return shown < self.partial_images and step >= due

    @property
    def size(self) -> str:
        return f"{self.request.width}x{self.request.height}"


def read_call(data: Mapping[str, Any], models: OpenAIModels | None = None) -> Wanted:
    """What the body of a call asks for. Raises `InvalidRequest` or `UnknownCheckpoint`, naming the
    call's own fields.
    """
    given = {name: value for name, value in data.items() if value is not None}
    check_names(given, (*_FIELDS, "size", *_OPTION_SCHEMAS), _NAMES)
    options = _read_options(given)
    fields = {ours: given[name] for name, ours in _FIELDS.items() if name in given}
    mapped, remarks = None, []
    model = fields.get("checkpoint")
    if isinstance(model, str) and not is_left_out(model):
        mapped = (models or OpenAIModels()).mapped(model)
        checkpoint = mapped or _checkpoint(model)
        fields["checkpoint"] = checkpoint.name
    else:
        checkpoint = get_checkpoint(settings().checkpoint)
    if (sides := _sides(given.get("size", "auto"), checkpoint)) is not None:
        width, height = sides
        if mapped:
            width, height, remark = fitted(width, height, mapped)
            remarks = [remark] if remark else []
        fields |= {"width": width, "height": height}
    request = parse_request(fields, _NAMES)
    by_url = options.response_format == "url"
    if options.response_format is None:
        by_url = mapped is not None and gives_url(str(model))
    return Wanted(
        request=request,
        by_url=by_url,
        quality=_quality(request, options.output_compression, by_url),
        stream=options.stream,
        partial_images=options.partial_images,
        remarks=tuple(remarks),
    )


def _checkpoint(model: str) -> Checkpoint:
    try:
        return get_checkpoint(model)
    except UnknownCheckpoint:
        raise unknown_model(model) from None


def _sides(size: object, checkpoint: Checkpoint) -> tuple[int, int] | None:
    """Width and height; None for the checkpoint's own. Raises `InvalidRequest`."""
    if size == "auto":
        return None
    if isinstance(size, str) and (found := _SIZE.fullmatch(size)):
        return int(found[1]), int(found[2])
    numbers = [int(one) for one in re.findall(r"[1-9][0-9]{0,4}", str(size)[:60])]
    # Of a ratio, or nothing, the checkpoint's own; of anything like a size, the nearest.
    near = (checkpoint.width, checkpoint.height)
    if len(numbers) == 2 and min(numbers) >= 64:
        near = nearest_size(numbers[0], numbers[1], checkpoint)
    schema = _SIZE_SCHEMA | {"examples": ["x".join(map(str, near))]}
    raise refusal("size", size, schema)


def _read_options(given: Mapping[str, Any]) -> _Options:
    try:
        return _Options.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise refusal(name, given[name], _OPTION_SCHEMAS[name]) from None


def _quality(request: GenerationRequest, compression: int | None, by_url: bool) -> int | None:
    """What to recompress the files to. A PNG has all of its quality, 100, whatever is asked."""
    if compression is None or (request.output_format == "png" and compression == 100):
        return None
    if request.output_format == "png" or by_url:
        raise InvalidRequest(
            "output_compression is for webp and jpeg that are sent as b64_json.",
            "Leave it out, or ask for these.",
            ("output_compression",),
        )
    return compression
