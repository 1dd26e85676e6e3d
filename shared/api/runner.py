"""Between the store and a backend: accepts jobs, runs them, tells their events, stops them.

A reader of events reads what the store has, and waits for the next change: however slow it is, it
never holds a job back. This module does not know HTTP. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from shared.api.job_service import Load
from shared.api.options import ApiOptions
from shared.backends import Backend
from shared.checkpoints import get_checkpoint
from shared.contract import (
    BackendStatus,
    Done,
    Event,
    GenerationRequest,
    ImageReady,
    Queued,
    collect,
    parse_request,
)
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CygnetError,
    InternalError,
    QueueFull,
    error_of,
)
from shared.settings import settings
from shared.store import PLAIN, Job, Status, Store, StoredEvent, StoredImage, Terms

log = logging.getLogger(__name__)

_FIRST_GUESS = 5.0  # seconds a job takes, until one has ended
_LONGEST_RETRY = 300


class Runner:
    """Runs the jobs of a store on a backend, up to `concurrency` at once, first come first served."""

    def __init__(self, backend: Backend, store: Store, options: ApiOptions) -> None:
        self.backend = backend
        self.store = store
        self.options = options
        self.stopping = False
        self._stopped = False
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._changes: dict[str, asyncio.Event] = {}
        self._unrecorded: dict[str, CygnetError] = {}
        self._pruning: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._seconds = _FIRST_GUESS

    async def start(self) -> None:
        """Take up what the last process left."""
        self.store.recover()
        self._fill()
        self._prune()
        if self.options.warm_up:
            self._warming = asyncio.create_task(self._warm_up())

    async def stop(self) -> None:
        """Let running jobs end for `grace` seconds, hand the others back, and end every stream."""
        self.stopping = True
        running = set(self._running.values())
        if running:
            await asyncio.wait(running, timeout=self.options.grace)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._pruning:
            await self._pruning
        self._stopped = True
        for job in list(self._changes):
            self._changed(job)

    async def aclose(self) -> None:
        """Stop, and let go of the backend and the store."""
        if self._warming:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self.stop()
        await self.backend.aclose()
        self.store.close()

    async def submit(
        self, request: GenerationRequest, owner: str = "", terms: Terms = PLAIN
    ) -> Job:
        """Accept a job, or find the one that its idempotency key made.

        Raises `QueueFull` with the time after which to try again, `BackendUnavailable` when the
        server is stopping.
        """
        if self.stopping:
            raise _stopping()
        try:
            job = self.store.add(request, owner, terms, self.options.max_queued)
        except QueueFull as full:
            rounds = math.ceil((full.waiting + 1) / self.options.concurrency)
            full.retry_after = min(math.ceil(self._seconds * rounds), _LONGEST_RETRY)
            raise
        self._fill()
        now = self.store.job(job.id)
        if now.status == "queued" and not self.store.events(job.id, limit=1):
            self.store.record(job.id, Queued(position=self.store.queued() - 1))
        return now

    async def cancel(self, job: str, owner: str | None = None) -> Job:
        """Stop a job before its next step; one that has ended stays as it is. Raises `NotFound`."""
        self.store.job(job, owner)
        if task := self._running.get(job):
            self._cancelled.add(job)
            task.cancel()
            await asyncio.wait({task})
        else:
            self._end(job, _cancelled())
        return self.store.job(job)

    async def ended(self, job: str) -> Job:
        """The job, once it has ended. Raises its error; `BackendUnavailable` if the server stops."""
        while True:
            change = self._changes.setdefault(job, asyncio.Event())
            now = self.store.job(job)
            if now.ended or job in self._unrecorded or self._stopped:
                break
            await change.wait()
        self._changed(job)
        if now.error:
            raise error_of(**now.error)
        if not now.ended:
            raise self._unrecorded.get(job) or _stopping()
        return now

    async def events(self, job: str, after: int = 0) -> AsyncGenerator[StoredEvent | None, None]:
        """The events of a job with an id above `after`, as they come, to its last.

        None after every `heartbeat` seconds of silence. Ends early when the server stops: the job
        goes on after a restart, and so do its events.
        """
        try:
            while True:
                change = self._changes.setdefault(job, asyncio.Event())
                over = self._stopped or self.store.job(job).ended  # before its last events are read
                batch = await asyncio.to_thread(self.store.events, job, after)
                for event in batch:
                    after = event.id
                    yield event
                if error := self._unrecorded.get(job):
                    raise error
                if not batch:
                    if over:
                        return
                    try:
                        await asyncio.wait_for(change.wait(), self.options.heartbeat)
                    except TimeoutError:
                        yield None
        finally:
            if job not in self._running:
                self._changed(job)  # lets go of the event; who else waits looks again

    async def job(self, job: str, owner: str | None = None) -> Job:
        return self.store.job(job, owner)

    async def jobs(
        self, owner: str, status: Status | None, limit: int, after: str | None
    ) -> list[Job]:
        return self.store.jobs(owner, status, limit, after)

    async def image(self, image: str, owner: str | None = None) -> StoredImage:
        return self.store.image(image, owner)

    async def read_image(self, image: StoredImage) -> bytes:
        return await asyncio.to_thread(self.store.read_image, image)

    async def status(self) -> BackendStatus:
        if self.stopping:
            return BackendStatus(
                name=self.backend.name, healthy=False, warm=False, detail=_stopping().message
            )
        return await self.backend.status()

    async def load(self) -> Load:
        return Load(self.store.queued(), len(self._running))

    async def _warm_up(self) -> None:
        side = get_checkpoint(settings().checkpoint).min_size
        smallest = {"prompt": "a swan", "steps": 1, "width": side, "height": side}
        try:
            await collect(self.backend.generate(parse_request(smallest)))
        except CygnetError as error:  # each request will get it too
            log.error("the checkpoint could not be loaded: %s", error)

    def _changed(self, job: str) -> None:
        if change := self._changes.pop(job, None):
            change.set()

    def _fill(self) -> None:
        while not self.stopping and len(self._running) < self.options.concurrency:
            job = self.store.take()
            if job is None:
                return
            self._running[job.id] = asyncio.create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        try:
            await self._follow(job)
            self._seconds += 0.2 * (time.monotonic() - started - self._seconds)
        except asyncio.CancelledError:
            if self.stopping and job.id not in self._cancelled:
                self.store.hand_back(job.id)
            else:
                self._end(job.id, _cancelled())
        except CygnetError as error:
            self._end(job.id, error)
        except Exception as fault:
            log.exception("job %s failed", job.id)
            message = f"Something in the server failed ({type(fault).__name__})."
            self._end(job.id, InternalError(message, "Try again; its log has the cause."))
        finally:
            del self._running[job.id]
            self._cancelled.discard(job.id)
            self._changed(job.id)
            self._next()

    async def _follow(self, job: Job) -> None:
        request = parse_request(job.request)
        async with aclosing(self.backend.generate(request)) as events:
            async for event in events:
                await self._record(job.id, event)
                self._changed(job.id)
                if isinstance(event, Done):
                    return
        raise InternalError("The backend stopped before the work was done.", "Try again.")

    async def _record(self, job: str, event: Event) -> None:
        if isinstance(event, ImageReady):  # its file has to reach the disk
            await asyncio.to_thread(self.store.record, job, event)
        else:
            self.store.record(job, event)

    def _end(self, job: str, error: CygnetError) -> None:
        """Record how a job failed. If even that fails, its readers are told, and it runs again."""
        try:
            self.store.fail(job, error)
        except CygnetError as fault:
            log.error("job %s could not be ended: %s", job, fault)
            self._unrecorded[job] = error
        self._changed(job)

    def _next(self) -> None:
        """Make room, in the queue and on the disk."""
        try:
            self._fill()
        except CygnetError as error:  # the next job that comes or ends tries again
            log.error("no job could be started: %s", error)
        self._prune()

    def _prune(self) -> None:
        if self.stopping or (self._pruning and not self._pruning.done()):
            return
        self._pruning = asyncio.create_task(self._prune_once())

    async def _prune_once(self) -> None:
        keep = (self.options.keep_seconds, self.options.keep_bytes)
        try:
            await asyncio.to_thread(self.store.prune, *keep)
        except (CygnetError, OSError) as error:
            log.error("what is old could not be removed: %s", error)


def _cancelled() -> Cancelled:
    return Cancelled("The job was cancelled.", "Send it again if you still want it.")


def _stopping() -> BackendUnavailable:
    return BackendUnavailable("The server is stopping.", "Try again in a moment.")
