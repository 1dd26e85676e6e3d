"""What the routes ask of whatever keeps and runs the jobs.

`Runner` keeps them in a `Store` and runs them on a backend in this process; a platform with jobs of
its own may do both elsewhere. Neither the routes nor this module know which.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

from shared.contract import BackendStatus, GenerationRequest
from shared.store import Job, Status, StoredEvent, StoredImage, Terms


class Load(NamedTuple):
    """How many jobs wait, and how many run."""

    queued: int
    running: int


class JobService(Protocol):
    """Every method may raise `CygnetError`. An `owner` of None may see everyone's jobs."""

    async def start(self) -> None:
        """Called once, when the server has started."""
        ...

    async def stop(self) -> None:
        """Let running jobs end within a limit, hand the others back, and end every stream.

        May be called again.
        """
        ...

    async def aclose(self) -> None:
        """Stop, and let go of everything."""
        ...

    async def submit(self, request: GenerationRequest, owner: str, terms: Terms) -> Job:
        """Accept a job, or find the one that the idempotency key made.

        Raises `QueueFull`, `BackendUnavailable` when stopping, `InvalidCall` if the key was used
        for another request, `InvalidRequest` for a webhook that may not be called.
        """
        ...

    async def cancel(self, job: str, owner: str | None = None) -> Job:
        """Stop a job before its next step; one that has ended stays as it is. Raises `NotFound`."""
        ...

    async def ended(self, job: str) -> Job:
        """The job, once it has ended well. Raises its error, or that the server stops."""
        ...

    def events(self, job: str, after: int = 0) -> AsyncGenerator[StoredEvent | None, None]:
        """The events with an id above `after`, as they come, to the last; None now and then when
        there is nothing to say. Ends at once for a job that has ended and told everything."""
        ...

    async def job(self, job: str, owner: str | None = None) -> Job:
        """Raises `NotFound`, also if it is not `owner`'s."""
        ...

    async def jobs(
        self, owner: str, status: Status | None, limit: int, after: str | None
    ) -> list[Job]:
        """An owner's jobs, newest first, those older than the job `after`."""
        ...

    async def image(self, image: str, owner: str | None = None) -> StoredImage:
        """Raises `NotFound`, also if its job is not `owner`'s."""
        ...

    async def read_image(self, image: StoredImage) -> bytes:
        """The whole file. Raises `NotFound`."""
        ...

    async def status(self) -> BackendStatus:
        """What can be said of the backend without waking a GPU; unhealthy when stopping."""
        ...

    async def load(self) -> Load:
        """How much there is to do."""
        ...
