"""What the API shows of jobs, images and models, as JSON."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field

from shared.api.security import options_of
from shared.api.signed_urls import sign
from shared.checkpoints import Checkpoint
from shared.store import Job, Status, StoredImage


class ImageView(BaseModel):
    id: str
    url: str
    index: int
    seed: int
    format: str
    bytes: int


class Failure(BaseModel):
    code: str
    message: str
    next_step: str


class JobView(BaseModel):
    id: str
    object: Literal["job"] = "job"
    status: Status
    created_at: float = Field(description="seconds since 1970")
    started_at: float | None
    finished_at: float | None
    request: dict[str, Any] = Field(description="with the checkpoint's defaults filled in")
    images: list[ImageView]
    result: dict[str, Any] | None
    error: Failure | None
    events_url: str


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool


class Architecture(BaseModel):
    """What goes in and what comes out, in the words of OpenRouter's API: this is no model to chat with."""

    modality: Literal["text->image"] = "text->image"
    input_modalities: list[Literal["text"]] = ["text"]
    output_modalities: list[Literal["image"]] = ["image"]


class ModelView(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    architecture: Architecture = Architecture()
    description: str
    licence: str
    width: int
    height: int
    steps: int


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelView]


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    ready: bool
    detail: str
    queued: int
    running: int


def image_view(request: Request, image: StoredImage) -> ImageView:
    return ImageView(
        id=image.id,
        url=_image_url(request, image.id),
        index=image.number,
        seed=image.seed,
        format=image.format,
        bytes=image.size,
    )


def _image_url(request: Request, image: str) -> str:
    options = options_of(request)
    url = request.url_for("get_image", image=image)
    return str(url.replace(query=sign(options.keys, image, options.url_seconds)))


def job_view(request: Request, job: Job) -> JobView:
    return JobView(
        id=job.id,
        status=job.status,
        created_at=job.created,
        started_at=job.started,
        finished_at=job.finished,
        request=job.request,
        images=[image_view(request, image) for image in job.images],
        result=job.result,
        error=Failure.model_validate(job.error) if job.error else None,
        events_url=str(request.url_for("get_events", job=job.id)),
    )


def model_view(checkpoint: Checkpoint, name: str = "") -> ModelView:
    """`name`: another that it answers to."""
    return ModelView(
        id=name or checkpoint.name,
        owned_by=checkpoint.repository or "cygnet",
        description=checkpoint.description,
        licence=checkpoint.licence.name,
        width=checkpoint.width,
        height=checkpoint.height,
        steps=checkpoint.steps,
    )
