"""What OpenAI's route answers, as JSON and as events, with a type for each."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from shared.api.openai_wire import Wanted
from shared.contract import GenerationRequest, GenerationResult
from shared.images import recompress
from shared.store import Job

_REFERENCE = "#/components/schemas/{model}"


class OpenAIImage(BaseModel):
    """One picture: its file in base64, or an address that opens it."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class Drawn(BaseModel):
    """What the answer says beside OpenAI's fields."""

    job: str
    request: GenerationRequest
    result: GenerationResult | None = Field(
        default=None, description="with the last picture of a stream; remarks are in here"
    )


class OpenAIAnswer(BaseModel):
    """The pictures of a call that is not streamed."""

    created: int = Field(description="seconds since 1970")
    data: list[OpenAIImage]
    background: Literal["opaque"] = "opaque"
    output_format: str
    size: str = Field(examples=["256x256"])
    cygnet: Drawn


class _Event(BaseModel):
    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int = Field(description="seconds since 1970")
    output_format: str
    quality: Literal["auto"] = "auto"
    size: str = Field(examples=["256x256"])
    index: int = Field(description="of the picture, from 0")


class PartialImage(_Event):
    """The picture so far: small, and a JPEG whatever the picture will be."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    partial_image_index: int


class TokenDetails(BaseModel):
    image_tokens: int = 0
    text_tokens: int = 0


class Usage(BaseModel):
    """OpenAI's clients ask for it; no tokens are counted here."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()


class CompletedImage(_Event):
    """A picture that is done."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    usage: Usage = Usage()
    seed: int
    cygnet: Drawn


def schemas() -> dict[str, Any]:
    """The schemas of the events, which no route returns as its value."""
    _, schema = models_json_schema(
        [(PartialImage, "serialization"), (CompletedImage, "serialization")],
        ref_template=_REFERENCE,
    )
    return schema["$defs"]


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the pictures, or with `stream` their events",
        "model": OpenAIAnswer,
        "content": {
            "application/json": {},  # its schema is the model's; generated clients take the first
            "text/event-stream": {
                "schema": {
                    "oneOf": [
                        {"$ref": _REFERENCE.format(model=event.__name__)}
                        for event in (PartialImage, CompletedImage)
                    ],
                    "description": "the data of each event",
                }
            },
        },
    }
}


def answer(job: Job, wanted: Wanted, images: Sequence[dict[str, str]]) -> dict[str, Any]:
    """The whole answer to a call that is not streamed, with each image as it is to be sent."""
    data = [
        OpenAIImage(seed=image.seed, **sent) for sent, image in zip(images, job.images, strict=True)
    ]
    whole = OpenAIAnswer(
        created=int(job.created),
        data=data,
        output_format=wanted.request.output_format,
        size=wanted.size,
        cygnet=Drawn(job=job.id, request=wanted.request, result=_result(wanted, job.result or {})),
    )
    return _json(whole)


def partial(job: Job, wanted: Wanted, step: Mapping[str, Any], number: int) -> dict[str, Any]:
    told = PartialImage(
        b64_json=step["preview"],
        created_at=int(job.created),
        output_format="jpeg",
        size=wanted.size,
        index=step["index"],
        partial_image_index=number,
    )
    return _json(told)


def completed(job: Job, wanted: Wanted, image: Mapping[str, Any]) -> dict[str, Any]:
    data = image["image"]
    if wanted.quality is not None:
        data = encoded_file(base64.b64decode(data), wanted)
    told = CompletedImage(
        b64_json=data,
        created_at=int(job.created),
        output_format=wanted.request.output_format,
        size=wanted.size,
        index=image["index"],
        seed=image["seed"],
        cygnet=Drawn(job=job.id, request=wanted.request),
    )
    return _json(told)


def with_result(last: dict[str, Any], wanted: Wanted, result: Mapping[str, Any]) -> dict[str, Any]:
    """The last completed image, once the work is done."""
    return last | {"cygnet": last["cygnet"] | {"result": _json(_result(wanted, result))}}


def _result(wanted: Wanted, result: Mapping[str, Any]) -> GenerationResult:
    told = GenerationResult.model_validate(result)
    return told.model_copy(update={"remarks": (*wanted.remarks, *told.remarks)})


def _json(answer: BaseModel) -> dict[str, Any]:
    """Without what has no value, as OpenAI sends it."""
    return answer.model_dump(mode="json", exclude_none=True)


def encoded_file(data: bytes, wanted: Wanted) -> str:
    """A file in base64, at the quality that was asked for."""
    if wanted.quality is not None:
        data = recompress(data, wanted.quality)
    return base64.b64encode(data).decode("ascii")
