"""What crosses every door: the request, the events of a generation, and its result.

Everything here is a small frozen pydantic model, so that the same JSON travels over HTTP, MCP,
Modal and Gradio (bytes as base64). Every limit on a request is checked here, once, before any GPU
wakes.
"""

from __future__ import annotations

import base64
import difflib
import math
import secrets
import typing
import unicodedata
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from shared.checkpoints import Checkpoint, SchedulerName, get_checkpoint
from shared.errors import InternalError, InvalidRequest
from shared.field_names import OURS, FieldNames, readable
from shared.formats import OutputFormat
from shared.numbers import EXACT, READ_NUMBER, number_from_text, read_number
from shared.settings import settings


@dataclass(frozen=True)
class Limit:
    """The numbers a field may hold: from `low` to `high`, on a grid where `multiple` is given."""

    low: int
    high: int
    multiple: int = 1
    whole: bool = True

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        kind = "a whole number" if self.whole else "a number"
        if self.multiple > 1:
            kind = f"a multiple of {self.multiple}"
        return f"{kind} from {self.low} to {self.high}"

    def allows(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.whole and value % self.multiple)

    def nearest(self, value: object) -> float | None:
        """The valid number closest to `value`, or None if `value` is no finite number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        clamped = min(max(value, self.low), self.high)
        return round(clamped / self.multiple) * self.multiple if self.whole else clamped


MAX_PROMPT = 2000
STEPS = Limit(1, 100)
GUIDANCE = Limit(0, 20, whole=False)
SEED = Limit(0, EXACT)
NUM_IMAGES = Limit(1, 16)

DRAW_A_SEED = -1
"""As a seed, what other programs write for none: one is drawn, and stands in the request."""


class _Wire(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, val_json_bytes="base64"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# pydantic writes the URL-safe alphabet; MCP and data: addresses ask for the standard one.
FileBytes = Annotated[bytes, PlainSerializer(_base64, when_used="json")]


def random_seed() -> int:
    """For whoever chooses none: below 2**31, which every program takes, and a person can copy."""
    return secrets.randbelow(2**31)


def _filled_before() -> NoReturn:
    raise AssertionError("the checkpoint's defaults are filled in before pydantic asks for them")


class GenerationRequest(_Wire):
    """A complete request: what the caller leaves out is filled from the checkpoint's defaults.

    Outside input goes through `parse_request`, which turns every refusal into one clear error.
    """

    prompt: Annotated[
        str,
        Field(
            strict=True,
            description=f"what to draw, in at most {MAX_PROMPT} characters",
            json_schema_extra={"minLength": 1, "pattern": r"\S"},
        ),
    ]
    negative_prompt: Annotated[
        str, Field(strict=True, description="what to avoid; acts when guidance_scale is above 1")
    ] = ""
    checkpoint: Annotated[
        str, Field(default_factory=_filled_before, strict=True, description="the weights to use")
    ]
    width: Annotated[
        int, Field(default_factory=_filled_before, strict=True, description="pixels"), READ_NUMBER
    ]
    height: Annotated[
        int, Field(default_factory=_filled_before, strict=True, description="pixels"), READ_NUMBER
    ]
    steps: Annotated[
        int,
        Field(
            default_factory=_filled_before,
            strict=True,
            ge=STEPS.low,
            le=STEPS.high,
            description="denoising steps: more take longer",
        ),
        READ_NUMBER,
    ]
    guidance_scale: Annotated[
        float,
        Field(
            default_factory=_filled_before,
            strict=True,
            ge=GUIDANCE.low,
            le=GUIDANCE.high,
            description="how closely to follow the prompt",
        ),
        READ_NUMBER,
    ]
    scheduler: Annotated[
        SchedulerName, Field(default_factory=_filled_before, description="how a step is taken")
    ]
    seed: Annotated[
        int,
        Field(
            default_factory=random_seed,
            strict=True,
            ge=SEED.low,
            le=SEED.high,
            description="of the first image; the others count up from it; -1 draws one",
            json_schema_extra={"minimum": DRAW_A_SEED},
        ),
        READ_NUMBER,
    ]
    num_images: Annotated[
        int,
        Field(strict=True, ge=NUM_IMAGES.low, le=NUM_IMAGES.high, description="pictures to draw"),
        READ_NUMBER,
    ] = 1
    output_format: Annotated[OutputFormat, Field(description="of the files")] = "png"

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        given = {field: value for field, value in data.items() if value is not None}
        if draws_a_seed(given.get("seed")):
            del given["seed"]
        name = given["checkpoint"] = _checkpoint_name(given)
        if not isinstance(name, str):
            raise InvalidRequest(
                f"checkpoint={short(name)} is not text.",
                "Give a checkpoint's name.",
                ("checkpoint",),
            )
        checkpoint = get_checkpoint(name)
        for field in ("width", "height", "steps", "guidance_scale", "scheduler"):
            given.setdefault(field, getattr(checkpoint, field))
        return given

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _clean(cls, text: str) -> str:
        text = clean_text(text)
        if len(text) > MAX_PROMPT:
            raise PydanticCustomError("too_long", "too long")
        return text

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, text: str) -> str:
        if not text:
            raise PydanticCustomError("empty", "empty")
        return text

    @field_validator("width", "height")
    @classmethod
    def _size_fits_checkpoint(cls, side: int, info: ValidationInfo) -> int:
        name = info.data.get("checkpoint")  # missing if it was refused itself
        if name and not size_limit(get_checkpoint(name)).allows(side):
            raise PydanticCustomError("size", "size")
        return side

    def image_seed(self, index: int) -> int:
        """The seed of image `index`: counted up from `seed`, wrapping past the largest."""
        return (self.seed + index) % (SEED.high + 1)

    @property
    def one_picture(self) -> str:
        """In words, for a sentence about what was being done."""
        return f"drawing one picture of {self.width}x{self.height}"

    def for_image(self, index: int) -> GenerationRequest:
        """The request that makes image `index` again, alone: what is written into its file."""
        return self.model_copy(update={"seed": self.image_seed(index), "num_images": 1})


def clean_text(text: str) -> str:
    """`text` without control characters and lone surrogates, line breaks and tabs as spaces."""
    if text.isprintable():  # most are: a batch reads a hundred thousand of them
        return text.strip()
    spaced = (" " if character in "\t\n\r" else character for character in text)
    kept = (char for char in spaced if unicodedata.category(char) not in ("Cc", "Cs"))
    return "".join(kept).strip()


def draws_a_seed(seed: object) -> bool:
    """Whether a seed says that one is to be drawn."""
    return read_number(seed) == DRAW_A_SEED


def size_limit(checkpoint: Checkpoint) -> Limit:
    """What a side of a picture may measure, in pixels."""
    return Limit(checkpoint.min_size, checkpoint.max_size, checkpoint.size_multiple)


def nearest_size(width: int, height: int, checkpoint: Checkpoint) -> tuple[int, int]:
    """The size that the checkpoint can do which is the most like this one: in its shape as far as may
    be, and then in its sides."""
    limit = size_limit(checkpoint)
    scale = 1.0
    if max(width, height) > limit.high:
        scale = limit.high / max(width, height)
    elif min(width, height) < limit.low:
        scale = limit.low / min(width, height)
    sides = (limit.nearest(side * scale) for side in (width, height))
    return int(next(sides) or 0), int(next(sides) or 0)


def is_left_out(checkpoint: object) -> bool:
    """Whether no checkpoint is named: many clients send an empty name for the usual one."""
    return checkpoint is None or (isinstance(checkpoint, str) and not checkpoint.strip())


def _checkpoint_name(data: Mapping[str, Any]) -> Any:
    name = data.get("checkpoint")
    return settings().checkpoint if is_left_out(name) else name


def parse_request(data: Mapping[str, Any], names: FieldNames = OURS) -> GenerationRequest:
    """A request from outside input, under our names; `names` are what its caller calls them.

    Raises `InvalidRequest`, naming each offending field as the caller does, with its value, its limit
    and the nearest valid value; `UnknownCheckpoint` if there is no such checkpoint.
    """
    known = {name: value for name, value in data.items() if name in GenerationRequest.model_fields}
    refusals = [_unknown(name, names) for name in data if name not in known]
    checkpoint = known.get("checkpoint")
    if not isinstance(
        checkpoint, str | None
    ):  # the defaults and the sizes' limits are the usual one's
        refusals.append(_no_text(names.called("checkpoint"), known.pop("checkpoint")))
    try:
        request = GenerationRequest.model_validate(known)
    except ValidationError as error:
        refusals += [_refusal(details, known, names) for details in error.errors()]
    else:
        if not refusals:
            return request
    raise _joined(refusals)


def check_names(given: Mapping[str, Any], known: Collection[str], names: FieldNames = OURS) -> None:
    """For a door with names of its own. Raises `InvalidRequest`, naming every field it does not have."""
    if unknown := [name for name in given if name not in known]:
        raise _joined([_unknown(name, names) for name in unknown])


_Refusal = tuple[str, str, str]
"""The field as its caller calls it, what was wrong with it, and what to do."""


def _joined(refusals: list[_Refusal]) -> InvalidRequest:
    told = list(dict.fromkeys(refusals))
    return InvalidRequest(
        " ".join(message for _, message, _ in told),
        " ".join(dict.fromkeys(next_step for _, _, next_step in told)),
        tuple(field for field, _, _ in told),
    )


def _unknown(name: object, names: FieldNames) -> _Refusal:
    shown = repr(str(name)[:60])
    meant = names.meant(str(name), GenerationRequest.model_fields)
    advice = f"Did you mean {' and '.join(meant)}?" if meant else f"Remove {shown}."
    return readable(name), f"{shown} is not a field of a request.", advice


def _refusal(details: ErrorDetails, data: Mapping[str, Any], names: FieldNames) -> _Refusal:
    ours = ".".join(str(part) for part in details["loc"])
    field, value = names.called(ours), data.get(ours)
    shown = f"{field}={short(value)}"
    match details["type"]:
        case "missing":
            return field, f"{field} is missing.", f"Give a {field} of 1 to {MAX_PROMPT} characters."
        case "empty":
            return (
                field,
                f"{field} is empty.",
                f"Give a {field} of 1 to {MAX_PROMPT} visible characters.",
            )
        case "too_long":
            length = len(clean_text(str(value)))
            message = f"{field} has {length} characters and may have {MAX_PROMPT}."
            return field, message, f"Keep the first {MAX_PROMPT} characters of {field}."
        case "literal_error":
            near = difflib.get_close_matches(str(value).lower(), _choices(ours), n=1, cutoff=0)
            message = f"{shown} is not one of {', '.join(_choices(ours))}."
            return field, message, f"Use {field}={near[0]}."
        case "size" if names.called("width") == names.called("height"):
            return field, *_size_refusal(field, data)
        case _ if limit := _numeric_limit(ours, data):
            return field, *_number_refusal(field, read_number(value), limit)
        case _:
            return _no_text(field, value)


def _no_text(field: str, value: object) -> _Refusal:
    return field, f"{field}={short(value)} is not text.", f"Give text for {field}."


def _size_refusal(field: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """What was wrong with both sides, where they are one field, and what to do."""
    checkpoint = get_checkpoint(_checkpoint_name(data))
    width, height = (data.get(side, getattr(checkpoint, side)) for side in ("width", "height"))
    limit = size_limit(checkpoint)
    message = f"{field}={width}x{height} is no size of {checkpoint.name}: each side is {limit}."
    width, height = nearest_size(width, height, checkpoint)
    return message, f"Use {field}={width}x{height}."


def _number_refusal(field: str, value: object, limit: Limit) -> tuple[str, str]:
    """What was wrong with a number, and what to do."""
    message = f"{field}={short(value)} is not {limit}."
    if (nearest := limit.nearest(value)) is not None:
        return message, f"Use {field}={nearest}."
    if isinstance(value, str) and isinstance(number_from_text(value.replace(",", "")), int | float):
        return message, f"Write {field} with a point and no comma, as 7 or 2.5."
    return message, f"Use {limit} for {field}."


def _numeric_limit(field: str, data: Mapping[str, Any]) -> Limit | None:
    if field in ("width", "height"):
        return size_limit(get_checkpoint(_checkpoint_name(data)))
    limits = {"steps": STEPS, "guidance_scale": GUIDANCE, "seed": SEED, "num_images": NUM_IMAGES}
    return limits.get(field)


def _choices(field: str) -> tuple[str, ...]:
    return typing.get_args(GenerationRequest.model_fields[field].annotation)


def short(value: object) -> str:
    if isinstance(value, float) and EXACT < abs(value) < math.inf:
        return f"{'more' if value > 0 else 'less'} than {math.copysign(EXACT, value):.0f}"
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        text = "a very large number"
    return text if len(text) <= 60 else f"{text[:57]}..."


class Queued(_Wire):
    """The request waits; `position` 0 is the next to start."""

    type: Literal["queued"] = "queued"
    position: int


class Starting(_Wire):
    """No machine was there to do the work, and one is being started: minutes rather than seconds."""

    type: Literal["starting"] = "starting"


class Step(_Wire):
    """One denoising step of one image is done; `step` counts from 1 to `steps`."""

    type: Literal["step"] = "step"
    index: int
    step: int
    steps: int
    preview: FileBytes | None = None
    """A small JPEG of the picture so far."""
    batch: int | None = Field(default=None, description="images that this step advanced at once")
    seconds: float | None = Field(default=None, description="what this step took")


class ImageReady(_Wire):
    """An image is finished: `image` is the whole encoded file, its request inside."""

    type: Literal["image"] = "image"
    index: int
    seed: int
    image: FileBytes


class Timings(_Wire):
    """Seconds spent in each phase, and in all. Phases of several images overlap in a batch."""

    queued: float = 0.0
    loading: float = 0.0
    encoding: float = 0.0
    denoising: float = 0.0
    decoding: float = 0.0
    total: float = 0.0


class GenerationResult(_Wire):
    """What a finished generation says about itself; the images came as `ImageReady` events."""

    request: GenerationRequest
    seeds: tuple[int, ...]
    timings: Timings
    device: str
    revision: str | None = Field(
        default=None, description="of the checkpoint's weights, where known"
    )
    backend: str
    backend_reason: str = Field(
        default="", description="why that backend served, and what was tried before it"
    )
    cost_usd: float | None = Field(default=None, description="where a price is known")
    remarks: tuple[str, ...] = Field(
        default=(),
        # Where there is nothing to say, versions of Cygnet that do not know the field read it too.
        exclude_if=lambda remarks: not remarks,
        description="what of the request was not done as asked, in sentences; left out if nothing",
    )


class Done(_Wire):
    """The last event."""

    type: Literal["done"] = "done"
    result: GenerationResult


Event = Annotated[Queued | Starting | Step | ImageReady | Done, Field(discriminator="type")]


class BackendStatus(_Wire):
    """What a backend says of itself without waking a GPU."""

    name: str
    healthy: bool
    warm: bool = Field(description="whether a request would start at once")
    checkpoints: tuple[str, ...] = ()
    memory_bytes: int | None = Field(default=None, description="on its device, where known")
    detail: str = ""


async def collect(events: AsyncIterator[Event]) -> tuple[GenerationResult, list[bytes]]:
    """The result and the encoded images, in order, of a stream that nobody needs to watch."""
    images: dict[int, bytes] = {}
    async for event in events:
        if isinstance(event, ImageReady):
            images[event.index] = event.image
        elif isinstance(event, Done):
            return event.result, [images[index] for index in sorted(images)]
    raise InternalError("The stream of events ended before the work was done.", "Try again.")
