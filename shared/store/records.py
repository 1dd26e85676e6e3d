"""What is kept: jobs, their events, their images, as they are read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class StoredImage:
    id: str
    job: str
    number: int
    seed: int
    format: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Terms:
    """How a job was asked for, beside its request."""

    idempotency_key: str | None = None
    fingerprint: str = ""
    """Tells two bodies apart that were sent with one idempotency key."""
    batch: bool = False
    """Gives way to the others."""
    webhook: str | None = None
    """The address to tell when the job has ended."""
    attended: bool = False
    """Its caller waits on a connection: when that is gone, nobody wants it."""


PLAIN = Terms()


@dataclass(frozen=True)
class Job:
    """A job as it is now. `request` and `result` are JSON: the weights may be gone since."""

    id: str
    owner: str
    status: Status
    request: dict[str, Any]
    attempts: int
    """How often it was taken to be worked on."""
    batch: bool
    webhook: str | None
    created: float
    started: float | None
    finished: float | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    images: tuple[StoredImage, ...]

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class StoredEvent:
    """An event, or how the job failed (`type` "error"), as JSON; `id` counts up within its job."""

    id: int
    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Delivery:
    """A webhook to call about a job that has ended, after so many calls that failed."""

    job: str
    owner: str
    url: str
    attempts: int
