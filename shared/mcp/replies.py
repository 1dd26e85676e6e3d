"""What the tools answer: a sentence for the model, the same as data, and the pictures that fit beside.

The whole answer is measured as it travels, and stays within `budget` bytes whatever the size and
format of the pictures: some clients refuse more. What was scaled down is said, and where the original
is. A prompt is only ever a value in JSON here, never part of a sentence.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import BaseModel, ConfigDict, Field

from shared.backends.router import PLAIN
from shared.contract import GenerationRequest
from shared.errors import CygnetError
from shared.gallery import Gallery, Picture
from shared.mcp.jobs import Job, Status
from shared.mcp.previews import Preview, fit
from shared.prices import dollars

Place = Callable[[Picture], str]
"""Where the original of a picture is: a path, or an address."""

_REMARK = 400
ENVELOPE = 200
"""Characters that a remark, and the JSON around an image's data, have at most."""

PARTLY = "Not all of the request was done as asked: `remarks` in the data say what."
"""They may quote the prompt, and so stay out of the sentences."""

_LEAST = 4_000
"""Characters below which a picture is better left out than shown."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Made(_Answer):
    """A picture in the gallery."""

    id: str
    seed: int
    original: str = Field(description="path or address of the file as it was made")
    uri: str = Field(description="the same file as a resource of this server")
    format: str


class Kept(Made):
    """A picture in the gallery, with what made it."""

    request: dict[str, Any] = Field(description="the settings that make it again")
    backend: str
    created: float = Field(description="seconds since 1970")


class Page(_Answer):
    pictures: tuple[Kept, ...]
    next: str | None = Field(default=None, description="given as `after`, asks for the next page")


class Progress(_Answer):
    ahead: int = Field(description="requests before it in the queue")
    step: int
    steps: int = Field(description="of all its pictures together")


class Report(_Answer):
    """A generation, as far as it has come."""

    job_id: str
    status: Status
    message: str
    request: GenerationRequest = Field(description="complete: what was left out is filled in")
    pictures: tuple[Made, ...] = ()
    progress: Progress | None = None
    backend: str = Field(default="", description="which served")
    backend_reason: str = Field(default="", description="why that one did")
    device: str = ""
    seconds: float | None = None
    cost_usd: float | None = Field(default=None, description="where a price is known")
    shown: str = Field(default="", description="how the pictures in this answer differ")
    remarks: tuple[str, ...] = Field(
        default=(), description="what of the request was not done as asked"
    )


async def job_answer(job: Job, gallery: Gallery, place: Place, budget: int) -> CallToolResult:
    """How far the job has come, with its pictures if it is done."""
    pictures = [job.pictures[index] for index in sorted(job.pictures)]
    report = _report(job, [_made(picture, place) for picture in pictures])
    if not job.result:
        return _report_answer(report)
    answer = _report_answer(report)
    left = budget - _size(answer) - _REMARK
    shown = await asyncio.to_thread(_fit_all, gallery, pictures, left)
    if remark := _remark(report, shown, budget):
        answer = _report_answer(report.model_copy(update={"shown": remark}))
    answer.content += map(_image, shown)
    return answer


def page_answer(
    pictures: Sequence[Picture], place: Place, limit: int, budget: int
) -> CallToolResult:
    """The first `limit` of the pictures, or as many as fit; `next` where there are more."""
    while True:
        rows = tuple(_kept(picture, place) for picture in pictures[:limit])
        last = rows[-1].id if len(rows) < len(pictures) else None
        answer = data_answer(Page(pictures=rows, next=last))
        if limit <= 1 or _size(answer) <= budget:
            return answer
        limit = len(rows) // 2


def data_answer(data: BaseModel) -> CallToolResult:
    """Data, for clients that read it and for those that read text only."""
    told = data.model_dump(mode="json")
    return CallToolResult(content=[_json(told)], structured_content=told)


def picture_answer(preview: Preview) -> CallToolResult:
    """The picture and nothing else: some clients drop it where there is data beside it."""
    return CallToolResult(content=[_image(preview)])


def error_answer(error: CygnetError) -> CallToolResult:
    """The error as a sentence with a next step, for the model to act on."""
    said = f"{error.message} Next: {error.next_step} (error code: {error.code})"
    return CallToolResult(content=[_text(said)], is_error=True)


def _fit_all(gallery: Gallery, pictures: Sequence[Picture], budget: int) -> list[Preview]:
    """The first of the pictures, as many as fit, each with an equal share of `budget` characters."""
    pictures = pictures[: max(budget // _LEAST, 1)]
    share = budget // max(len(pictures), 1) - ENVELOPE
    fitted = (fit(gallery.read(picture), share) for picture in pictures)
    return [preview for preview in itertools.takewhile(bool, fitted) if preview]


def _made(picture: Picture, place: Place) -> Made:
    return Made(**_facts(picture, place))


def _kept(picture: Picture, place: Place) -> Kept:
    return Kept(
        **_facts(picture, place),
        request=picture.request,
        backend=picture.backend,
        created=picture.created,
    )


def _facts(picture: Picture, place: Place) -> dict[str, Any]:
    return {
        "id": picture.id,
        "seed": picture.seed,
        "original": place(picture),
        "uri": f"image://{picture.id}",
        "format": picture.format,
    }


def _report(job: Job, pictures: list[Made]) -> Report:
    known: dict[str, Any] = {}
    if result := job.result:
        known = {
            "backend": result.backend,
            "backend_reason": result.backend_reason,
            "device": result.device,
            "seconds": round(result.timings.total, 3),
            "cost_usd": result.cost_usd,
            "remarks": result.remarks,
        }
    elif not job.ended:
        known["progress"] = Progress(ahead=job.ahead, step=job.steps_done, steps=job.steps)
    return Report(
        job_id=job.id,
        status=job.status,
        message=_message(job, pictures),
        request=job.request,
        pictures=tuple(pictures),
        **known,
    )


def _message(job: Job, pictures: list[Made]) -> str:
    seeds = ", ".join(str(picture.seed) for picture in pictures)
    if result := job.result:
        count = "1 picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
        drawn = f"Drew {count} on {result.backend} in {result.timings.total:.1f} s."
        cost = f" Cost: about {dollars(result.cost_usd)}." if result.cost_usd else ""
        why = "" if result.backend_reason in PLAIN else f" Why there: {result.backend_reason}"
        return f"{drawn} Seed{'s' * (len(pictures) > 1)}: {seeds}.{cost}{why}"
    if job.error:
        return f"{job.error}{f' Kept, with seed {seeds}.' if pictures else ''}"
    state = f"step {job.steps_done} of {job.steps}" if job.steps_done else "not started yet"
    if job.ahead:
        state = f"waiting behind {job.ahead}"
    return f"Still at work: {state}. Call get_job with this job_id; cancel_job stops it."


def _remark(report: Report, shown: Sequence[Preview], budget: int) -> str:
    """How what is shown differs from the originals."""
    limit = f"the whole answer may have {budget // 1000} kB"
    remarks = []
    if smaller := [preview.size for preview in shown if not preview.is_original]:
        size = f"{report.request.width}x{report.request.height}"
        remarks.append(f"Shown at {smaller[0]} as JPEG instead of {size}: {limit}.")
    if missing := len(report.pictures) - len(shown):
        remarks.append(f"{missing} not shown: {limit}. show_image shows one at a time.")
    return " ".join(remarks)


def _report_answer(report: Report) -> CallToolResult:
    data = report.model_dump(mode="json")
    places = [f"Original: {picture.original}" for picture in report.pictures]
    partly = PARTLY if report.remarks else ""
    said = "\n".join(filter(None, [report.message, partly, *places, report.shown]))
    # No resource_link: the data have each picture's uri, and LangChain's adapter makes of a link an
    # image whose address a model's provider is then asked to fetch.
    content: list[ContentBlock] = [_text(said), _json(data)]
    return CallToolResult(content=content, structured_content=data)


def _text(said: str) -> TextContent:
    return TextContent(type="text", text=said)


def _json(data: dict[str, Any]) -> TextContent:
    return _text(json.dumps(data, ensure_ascii=False))


def _image(preview: Preview) -> ImageContent:
    data = base64.b64encode(preview.data).decode("ascii")
    return ImageContent(type="image", data=data, mime_type=preview.mime_type)


def _size(answer: CallToolResult) -> int:
    """Bytes of the answer on the wire, with every letter beyond ASCII escaped: the most it can be."""
    return len(json.dumps(answer.model_dump(mode="json", by_alias=True, exclude_none=True)))
