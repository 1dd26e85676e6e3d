"""Jobs that are calls of a platform, which queues them, runs them elsewhere and keeps how they ended.

Nothing is kept in this process: any of several servers may answer for any job, and one that goes away
takes nothing with it. A call that died without a word, because its machine did, is found dead by
whoever looks at its job next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from shared.api.job_service import Load
from shared.api.options import ApiOptions
from shared.backends.modal.protocols import Calls
from shared.backends.modal.records import Records
from shared.backends.modal.wire import check_served
from shared.contract import BackendStatus, Event, GenerationRequest, Queued, Starting
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CygnetError,
    InternalError,
    InvalidRequest,
    QueueFull,
    error_of,
)
from shared.store import Job, Status, StoredEvent, StoredImage, Terms

POLL, LONGEST_POLL = 0.25, 1.0
"""Seconds between two looks at a job that is followed: nobody is told when a table changes. The wait
grows while nothing happens, as it does for as long as a machine starts."""

LOST = 60.0
"""Seconds after which a job without a call has lost the server that was to make one."""


class CallJobs:
    """A `JobService` over `calls`. `checkpoint` is the one that the machines have loaded."""

    def __init__(
        self, name: str, calls: Calls, records: Records, checkpoint: str, options: ApiOptions
    ) -> None:
        self._name = name
        self._calls = calls
        self._records = records
        self._checkpoint = checkpoint
        self._options = options
        self._stopping = False

    async def start(self) -> None:
        """There is nothing to take up: the calls went on."""

    async def stop(self) -> None:
        """End the streams; their readers go on at another server."""
        self._stopping = True

    async def aclose(self) -> None:
        await self.stop()

    async def submit(self, request: GenerationRequest, owner: str, terms: Terms) -> Job:
        check_served(request, self._checkpoint)
        if terms.webhook is not None:
            raise InvalidRequest(
                "This deployment calls no webhooks.", "Follow the job's events.", ("webhook",)
            )
        if known := await self._records.known(owner, terms):
            return await self._records.job(known)
        stats = await self._calls.stats()
        if stats.waiting >= self._options.max_queued:
            message = f"{stats.waiting} jobs wait already, as many as may."
            raise QueueFull(message, "Try again later.", stats.waiting, retry_after=15)
        job, is_new = await self._records.add(request, owner, terms)
        if is_new:
            told: list[Event] = [Queued(position=stats.waiting)]
            if not stats.machines:
                told.append(Starting())
            await self._records.write(job, 0, told)
            try:
                call = await self._calls.spawn(job, request)
            except BackendUnavailable:
                await self._records.forget(job, owner, terms)
                raise
            await self._records.add_call(job, call)
        return await self._records.job(job)

    async def cancel(self, job: str, owner: str | None = None) -> Job:
        """The call is stopped; one that is only being made finds that its job has ended.

        Asked again, it stops the call again, should the platform not have answered the first time.
        """
        await self.job(job, owner)  # if its call has died, that is how it ended
        cancelled = Cancelled("The job was cancelled.", "Send it again if you still want it.")
        await self._records.fail(job, cancelled)
        now = await self._records.job(job)
        if now.status == "cancelled" and (call := await self._records.call(job)):
            await self._calls.cancel(call)
        return now

    async def ended(self, job: str) -> Job:
        while not (await self._is_over(job, self._options.heartbeat)):
            if self._stopping:
                raise BackendUnavailable("The server is stopping.", "Try again in a moment.")
        now = await self._records.job(job)
        if now.error:
            raise error_of(**now.error)
        return now

    async def events(self, job: str, after: int = 0) -> AsyncGenerator[StoredEvent | None, None]:
        batch, last, over = 0, 0, False
        wait, spoke = POLL, time.monotonic()
        while not self._stopping:
            told = await self._records.batch(job, batch)
            if told is None and over:
                break
            if told is None:
                over = await self._is_over(job, wait)
                wait = min(2 * wait, LONGEST_POLL)
                if not over and time.monotonic() - spoke > self._options.heartbeat:
                    spoke = time.monotonic()
                    yield None
                continue
            batch, wait, spoke = batch + 1, POLL, time.monotonic()
            for data in told:
                last += 1
                if last > after:
                    yield StoredEvent(last, data["type"], data)
        end = await self._records.last_event(job, last + 1)
        if over and end and end.id > after:
            yield end

    async def job(self, job: str, owner: str | None = None) -> Job:
        now = await self._records.job(job, owner)
        if not now.ended and await self._is_over(job, 0):
            return await self._records.job(job)
        return now

    async def jobs(
        self, owner: str, status: Status | None, limit: int, after: str | None
    ) -> list[Job]:
        found = await self._records.jobs(owner)
        if after is not None:
            last = await self._records.job(after, owner)
            found = [job for job in found if (job.created, job.id) < (last.created, last.id)]
        if status is None:  # else any that has not ended may have, meanwhile
            found = found[:limit]
        now = await asyncio.gather(*(self.job(job.id) for job in found if not job.ended))
        fresh = {job.id: job for job in now}
        found = [fresh.get(job.id, job) for job in found]
        return [job for job in found if status in (None, job.status)][:limit]

    async def image(self, image: str, owner: str | None = None) -> StoredImage:
        return await self._records.image(image, owner)

    async def read_image(self, image: StoredImage) -> bytes:
        return await self._records.read_image(image.id)

    async def status(self) -> BackendStatus:
        machines = (await self._calls.stats()).machines
        return BackendStatus(
            name=self._name,
            healthy=not self._stopping,
            warm=machines > 0,
            checkpoints=(self._checkpoint,),
            detail="" if machines else "No machine is running: the next picture starts one.",
        )

    async def load(self) -> Load:
        stats = await self._calls.stats()
        return Load(stats.waiting, stats.running)

    async def _is_over(self, job: str, wait: float) -> bool:
        """Whether the job has ended, after at most `wait` seconds; if its call died, it has."""
        if await self._records.has_ended(job):
            return True
        call = await self._records.call(job)
        if call is None:
            return await self._is_lost(job, wait)
        try:
            if not await self._calls.is_over(call, wait):
                return False
            error: CygnetError = InternalError(
                "The machine stopped before the work was done.", "Send it again."
            )
        except CygnetError as failure:
            error = failure
        await self._records.fail(job, error)  # without effect where the machine said how it ended
        return True

    async def _is_lost(self, job: str, wait: float) -> bool:
        age = self._records.now() - (await self._records.job(job)).created
        if age < LOST:
            await asyncio.sleep(wait)
            return False
        error = BackendUnavailable("The server stopped before the job began.", "Send it again.")
        await self._records.fail(job, error)
        return True
