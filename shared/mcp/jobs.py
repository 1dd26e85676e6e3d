"""Generations that outlive the call which started them, so that a client may ask about them by id.

A job lives in this process and ends with it: its pictures are in the gallery as soon as they are
drawn, and nothing else of it is worth more than to be asked for again. This module does not know how
a job is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.backends.router import Router
from shared.contract import Done, GenerationRequest, GenerationResult, ImageReady, Queued, Step
from shared.errors import Cancelled, CygnetError, InternalError, NotFound, QueueFull
from shared.gallery import Gallery, Picture

log = logging.getLogger(__name__)

MAX_RUNNING = 256
MAX_KEPT = 1000
"""How many jobs may run at once, and how many are remembered after their end."""

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(eq=False)
class Job:
    """One generation, as far as it has come."""

    request: GenerationRequest
    backend: str
    """The one that was asked for."""
    owner: str
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    status: Status = "queued"
    ahead: int = 0
    """How many requests are before it in the queue."""
    steps_done: int = 0
    pictures: dict[int, Picture] = field(default_factory=dict)
    """By their index, as they come."""
    result: GenerationResult | None = None
    error: CygnetError | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")

    @property
    def steps(self) -> int:
        """Of all its images together."""
        return self.request.steps * self.request.num_images

    async def change(self, seconds: float) -> None:
        """Wait until something is new, for at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def cancel(self) -> None:
        """Stop before the next step; what is drawn by then stays in the gallery."""
        if self._task:
            self._task.cancel()

    def _stopped(self) -> None:
        """At the end of its task, which may have been cancelled before it ran at all."""
        if not self.ended:
            self._note("cancelled", Cancelled("The job was cancelled.", "Start it again."))

    def _note(self, status: Status, error: CygnetError | None = None) -> None:
        self.status, self.error = status, error
        self._changed.set()
        self._changed = asyncio.Event()


class Jobs:
    """Runs jobs on `router`, and puts their pictures into `gallery`."""

    def __init__(self, router: Router, gallery: Gallery) -> None:
        self._router = router
        self._gallery = gallery
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def start(self, request: GenerationRequest, backend: str, owner: str) -> Job:
        """Raises `QueueFull` if too many jobs run."""
        running = sum(not job.ended for job in self._jobs.values())
        if running >= MAX_RUNNING:
            raise QueueFull(
                f"{running} jobs are running, as many as may.",
                "Wait for one to end, or cancel one with cancel_job.",
                running,
            )
        job = Job(request, backend, owner)
        job._task = asyncio.create_task(self._run(job))
        job._task.add_done_callback(lambda _: job._stopped())
        self._jobs[job.id] = job
        self._forget_the_oldest()
        return job

    def find(self, key: str, owner: str) -> Job:
        """Raises `NotFound`, also if it is another owner's."""
        job = self._jobs.get(key)
        if job is None or job.owner != owner:
            raise NotFound(
                f"There is no job {key[:40]!r}; jobs end with the server that ran them.",
                "Look for its pictures with list_images, or call generate_image again.",
            )
        return job

    def cancel(self) -> None:
        """Cancel what runs."""
        for job in self._jobs.values():
            job.cancel()

    async def stop(self) -> None:
        """Cancel what runs, and wait until every backend knows."""
        self.cancel()
        tasks = [job._task for job in self._jobs.values() if job._task]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_the_oldest(self) -> None:
        ended = [key for key, job in self._jobs.items() if job.ended]
        for key in ended[: max(len(ended) - MAX_KEPT, 0)]:
            del self._jobs[key]

    async def _run(self, job: Job) -> None:
        try:
            await self._draw(job)
        except CygnetError as error:
            job._note("failed", error)
        except Exception as fault:
            log.exception("job %s failed", job.id)
            kind = type(fault).__name__
            error = InternalError(f"Something in Cygnet failed ({kind}).", "Try again.")
            job._note("failed", error)

    async def _draw(self, job: Job) -> None:
        images: dict[int, bytes] = {}
        try:
            result = await self._follow(job, images)
        except BaseException:
            # What is drawn stays, whatever happened after it.
            await self._keep(job, {n: images[n] for n in images.keys() - job.pictures.keys()})
            raise
        await self._keep(job, images, result)
        job.result = result
        job._note("succeeded")

    async def _follow(self, job: Job, images: dict[int, bytes]) -> GenerationResult:
        """The result, with the images as they came."""
        events = self._router.generate(job.request, job.backend)
        async with contextlib.aclosing(events):
            async for event in events:
                match event:
                    case Queued():
                        job.ahead = event.position
                        job._note("queued")
                    case Step():
                        job.steps_done += 1
                        job._note("running")
                    case ImageReady():
                        images[event.index] = event.image
                        if job.request.num_images > 1:  # the others may take long
                            await self._keep(job, {event.index: event.image})
                        job._note("running")
                    case Done():
                        return event.result
        raise InternalError("The backend stopped before the work was done.", "Try again.")

    async def _keep(
        self, job: Job, images: Mapping[int, bytes], result: GenerationResult | None = None
    ) -> None:
        def add() -> dict[int, Picture]:
            return {
                index: self._gallery.add(image, result, job.owner)
                for index, image in images.items()
            }

        if images:
            job.pictures |= await asyncio.to_thread(add)
