"""Between the store and a backend: accepts jobs, runs them, tells their events, stops them.

A reader of events reads what the store has, and waits for the next change: however slow it is, it
never holds a job back. This module does not know HTTP. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from shared.api.chores import check_room, prune, warm_up
from shared.api.deliverer import Deliverer
from shared.api.fair_queue import FairQueue
from shared.api.job_service import Load
from shared.api.metrics import Metrics
from shared.api.options import ApiOptions
from shared.api.security import key_digest
from shared.backends import Backend
from shared.contract import (
    BackendStatus,
    Done,
    Event,
    GenerationRequest,
    ImageReady,
    Queued,
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
from shared.store import PLAIN, Job, Status, Store, StoredEvent, StoredImage, Terms

log = logging.getLogger(__name__)

_FIRST_GUESS = 5.0  # seconds a job takes, until one has ended
_LONGEST_RETRY = 300


class Runner:
    """Runs the jobs of a store on a backend, up to `concurrency` at once."""

    def __init__(
        self, backend: Backend, store: Store, options: ApiOptions, metrics: Metrics
    ) -> None:
        self.backend = backend
        self.store = store
        self.options = options
        self.stopping = False
        self._metrics = metrics
        self._deliverer = Deliverer(
            store, {key_digest(key): key for key in options.keys}, private=options.private_webhooks
        )
        self._stopped = False
        self._loaded = not options.warm_up
        self._queue = FairQueue(store, options.concurrency, options.max_queued)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._changes: dict[str, asyncio.Event] = {}
        self._unrecorded: dict[str, CygnetError] = {}
        self._chores: list[asyncio.Task[None]] = []
        self._seconds = _FIRST_GUESS

    async def start(self) -> None:
        """Take up what the last process left."""
        self.store.recover()
        self._fill()
        self._chores += [
            asyncio.create_task(self._deliverer.run()),
            asyncio.create_task(prune(self.store, self.options, self._next)),
        ]
        if self.options.warm_up:
            self._chores.append(asyncio.create_task(self._load()))

    async def stop(self) -> None:
        """Let running jobs end for `grace` seconds, hand the others back, and end every stream."""
        self.stopping = True
        with contextlib.suppress(CygnetError):  # the disk; what is killed is then a suspect
            self.store.suspects.excuse()
        running = set(self._running.values())
        if running:
            await asyncio.wait(running, timeout=self.options.grace)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._stopped = True
        for job in list(self._changes):
            self._changed(job)

    async def aclose(self) -> None:
        """Stop, and let go of the backend and the store."""
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self.stop()
        await self._deliverer.aclose()
        await self.backend.aclose()
        self.store.close()

    async def submit(
        self, request: GenerationRequest, owner: str = "", terms: Terms = PLAIN
    ) -> Job:
        """Accept a job, or find the one that its idempotency key made.

        Raises `QueueFull` with the time after which to try again, `BackendUnavailable` when the
        server is stopping.
        """
        if terms.webhook is not None:
            await self._deliverer.check(terms.webhook, owner)
        if self.stopping:
            raise _stopping()
        try:
            job = self.store.add(request, owner, terms, self._queue.room(batch=terms.batch))
        except QueueFull as full:
            rounds = math.ceil((full.waiting + 1) / self.options.concurrency)
            full.retry_after = min(math.ceil(self._seconds * rounds), _LONGEST_RETRY)
            raise
        self._fill()
        now = self.store.job(job.id)
        if now.status == "queued" and not self.store.events(job.id, limit=1):
            self.store.record(job.id, Queued(position=self.store.ahead(now)))
        return now

    async def cancel(self, job: str, owner: str | None = None) -> Job:
        """Stop a job before its next step; one that has ended stays as it is. Raises `NotFound`."""
        self.store.job(job, owner)
        if task := self._running.get(job):
            self._cancelled.add(job)
            await asyncio.sleep(0)  # a task that is cancelled before it began never cleans up
            task.cancel()
            await asyncio.wait({task})
        elif self._end(job, _cancelled()):
            self._ended(job)
        return self.store.job(job)

    async def ended(self, job: str) -> Job:
        """The job, once it has ended. Raises its error; `BackendUnavailable` if the server stops."""
        while True:
            change = self._changes.setdefault(job, asyncio.Event())
            if job not in self._running:  # each step is a change; while it runs it has not ended
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
                batch = self.store.events(job, after, files=False)
                if any(event.type == "image" for event in batch):  # large, and to be read
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
        status = await self.backend.status()
        if why_not := await check_room(self.store):
            return status.model_copy(update={"healthy": False, "detail": why_not})
        return status

    async def load(self) -> Load:
        return Load(self.store.queued(), len(self._running))

    async def _load(self) -> None:
        """Load the server's own checkpoint. No job is at work meanwhile, so that none is blamed for
        a process that dies before there is any work."""
        await warm_up(self.backend)
        self._loaded = True
        self._next()

    def _changed(self, job: str) -> None:
        if change := self._changes.pop(job, None):
            change.set()

    def _fill(self) -> None:
        self._settle()
        while not self.stopping and len(self._running) < self._places():
            job = self._queue.take()
            if job is None:
                return
            self._running[job.id] = asyncio.create_task(self._run(job))

    def _places(self) -> int:
        """How many jobs may be at work: one if it may have killed the process before this one."""
        if not self._loaded:
            return 0
        return 1 if self.store.suspects.any() else self.options.concurrency

    def _settle(self) -> None:
        """Record the ends for which there was no room, if there is now."""
        unrecorded, self._unrecorded = self._unrecorded, {}
        for job, error in unrecorded.items():
            if self._end(job, error):
                self._ended(job)

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
            self._queue.ended(job.id)
            self._cancelled.discard(job.id)
            self._ended(job.id)
            self._next()

    async def _follow(self, job: Job) -> None:
        request = parse_request(job.request)
        async with aclosing(self.backend.generate(request)) as events:
            async for event in events:
                await self._record(job.id, event)
                self._changed(job.id)
                self._metrics.event(event)
                if isinstance(event, Done):
                    return
        raise InternalError("The backend stopped before the work was done.", "Try again.")

    async def _record(self, job: str, event: Event) -> None:
        if isinstance(event, ImageReady):  # its file has to reach the disk
            await asyncio.to_thread(self.store.record, job, event)
        else:
            self.store.record(job, event)

    def _end(self, job: str, error: CygnetError) -> bool:
        """Record how a job failed, unless it had ended; whether it ends now. If even that fails,
        its readers are told, and it is recorded later; after a restart before that it runs again."""
        try:
            return self.store.fail(job, error)
        except CygnetError as fault:
            log.error("job %s could not be ended: %s", job, fault)
            self._unrecorded[job] = error
            self._changed(job)
            return False

    def _ended(self, job: str) -> None:
        """A job runs no more: tell those who follow it, the log and the webhook."""
        self._changed(job)
        with contextlib.suppress(CygnetError):  # the disk; whoever reads the job is told
            now = self.store.job(job)
            if not now.ended:
                return
            self._metrics.ended(now)
            if now.webhook:
                self._deliverer.wake()
            code = now.error["code"] if now.error else None
            log.info(
                "job ended", extra={"fields": {"job": job, "status": now.status, "code": code}}
            )

    def _next(self) -> None:
        try:
            self._fill()
        except CygnetError as error:  # the next job that comes or ends tries again, or a minute
            log.error("no job could be started: %s", error)


def _cancelled() -> Cancelled:
    return Cancelled("The job was cancelled.", "Send it again if you still want it.")


def _stopping() -> BackendUnavailable:
    return BackendUnavailable("The server is stopping.", "Try again in a moment.")
