"""Pictures made by any backend: so many at once, each tried again if it fails, each in the manifest.

The items are a stream, and so many workers take from it, so that memory does not grow with their
number. This module does not know what draws.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime

from shared.backends import IDEMPOTENCY_KEY
from shared.batch.folder import Folder
from shared.batch.manifest import Entry, Failure
from shared.batch.plan import Item
from shared.contract import Event, GenerationRequest, GenerationResult, clean_text, collect
from shared.errors import (
    BackendUnavailable,
    BatchIncomplete,
    CygnetError,
    DeviceUnavailable,
    GenerationError,
    InternalError,
    OutputExists,
    PackageMissing,
    QueueFull,
    RateLimited,
    SpendingLimit,
    Unauthorised,
    UnsupportedSetting,
)

MAX_ATTEMPTS = 3
MAX_WAITS = 60
"""How often a server may say that it is full before that counts as a failure."""

GIVE_UP_AFTER = 10
"""Failures in a row that are not the pictures' own fault: every other one would fail as well."""

_FULL = (QueueFull, RateLimited)
_NOT_THE_PICTURE = (
    *_FULL,
    BackendUnavailable,
    DeviceUnavailable,
    PackageMissing,
    SpendingLimit,
    Unauthorised,
    UnsupportedSetting,
)

Generate = Callable[[GenerationRequest], AsyncGenerator[Event, None]]
"""What draws: the verb of a backend."""


async def run(
    items: Iterator[Item],
    generate: Generate,
    folder: Folder,
    concurrency: int,
    show: Callable[[Entry], None],
) -> None:
    """Make the pictures; `show` sees each line of the manifest when it is written.

    A picture's failure is a line like another. Raises `BatchIncomplete` if the backend itself fails
    again and again, `DiskFull` or `OutputUnwritable`, and what the items raise.
    """
    workers = _Workers(items, generate, folder, show)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(workers.work())
    except* CygnetError as failures:
        raise failures.exceptions[0] from None
    if error := workers.gave_up:
        raise BatchIncomplete(
            f"Stopped after {GIVE_UP_AFTER} failures in a row: {error.message}",
            f"{error.next_step} Then run the same command again: it goes on from here.",
        )


def wait_before(attempt: int, error: CygnetError) -> float:
    """Seconds before try `attempt`, 2 being the first repeat."""
    if isinstance(error, _FULL):
        return error.retry_after
    return 2.0 ** (attempt - 2) * random.uniform(0.5, 1.0)


class _Workers:
    """What those who draw share: the items, and when to give up."""

    def __init__(
        self,
        items: Iterator[Item],
        generate: Generate,
        folder: Folder,
        show: Callable[[Entry], None],
    ) -> None:
        self._items, self._generate, self._folder, self._show = items, generate, folder, show
        self._streak = 0
        self.gave_up: CygnetError | None = None
        """Then what has begun is finished, for it may be paid for, and nothing else begins."""

    async def work(self) -> None:
        for item in self._items:
            entry, error = await self._make(item)
            self._folder.manifest.add(entry)
            self._show(entry)
            self._streak = self._streak + 1 if isinstance(error, _NOT_THE_PICTURE) else 0
            if self._streak == GIVE_UP_AFTER:
                self.gave_up = error
            if self.gave_up:
                return

    async def _make(self, item: Item) -> tuple[Entry, CygnetError | None]:
        """One picture, however often it takes; the line to write, and the error if it failed."""
        try:
            if await asyncio.to_thread(self._folder.find, item):
                return _done(item, self._folder, attempts=0, result=None), None
        except OutputExists as error:
            return _failed(item, attempts=0, error=error), error
        attempt, waits = 1, 0
        while True:
            try:
                IDEMPOTENCY_KEY.set(self._folder.call_key(item, attempt))  # a worker has its own
                result, image = await _draw(item.request, self._generate)
                break
            except CygnetError as error:
                if isinstance(error, _FULL) and waits < MAX_WAITS:
                    waits += 1
                elif attempt < MAX_ATTEMPTS and _may_pass(error) and not self.gave_up:
                    attempt += 1
                else:
                    return _failed(item, attempt, error), error
                await asyncio.sleep(wait_before(attempt, error))
        await asyncio.to_thread(self._folder.save, item, image)
        return _done(item, self._folder, attempt, result), None


def _may_pass(error: CygnetError) -> bool:
    """Whether the same request may do better the next time."""
    return isinstance(error, GenerationError) and not isinstance(error, SpendingLimit)


async def _draw(request: GenerationRequest, generate: Generate) -> tuple[GenerationResult, bytes]:
    async with aclosing(generate(request)) as events:
        result, images = await collect(events)
    if len(images) != 1:
        raise InternalError(f"The backend sent {len(images)} pictures for one.", "Try again.")
    return result, images[0]


def _done(item: Item, folder: Folder, attempts: int, result: GenerationResult | None) -> Entry:
    return _line(item, attempts).model_copy(
        update={
            "status": "done",
            "file": folder.name(item),
            "backend": result and result.backend,
            "backend_reason": result and result.backend_reason,
            "device": result and result.device,
            "timings": result and result.timings,
            "cost_usd": result and result.cost_usd,
            "remarks": result.remarks if result else (),
        }
    )


def _failed(item: Item, attempts: int, error: CygnetError) -> Entry:
    failure = Failure(
        code=error.code,
        message=clean_text(error.message),
        next_step=clean_text(error.next_step),
    )
    return _line(item, attempts).model_copy(update={"error": failure})


def _line(item: Item, attempts: int) -> Entry:
    return Entry(
        number=item.number,
        line=item.line,
        status="failed",
        seed=item.request.seed,
        request=item.request.model_dump(mode="json"),
        template=item.template,
        attempts=attempts,
        finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
