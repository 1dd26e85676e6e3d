"""Chooses the backend of a request, tries the next where one fails before its work began, and says so.

Work that may have begun is never sent again: it would be done, and paid, twice. What a call costs is
held against the user's limits before it is made. This module does not know how any backend works.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from shared.backends import Backend, Opening, open_backend
from shared.backends.config import AUTO, BackendConfig, Backends, Kind
from shared.backends.ledger import Ledger
from shared.contract import (
    BackendStatus,
    Done,
    Event,
    GenerationRequest,
    GenerationResult,
    ImageReady,
    Step,
)
from shared.errors import BackendUnavailable, Cancelled, CygnetError, InvalidRequest
from shared.settings import data_folder

STATUS_SECONDS = 5.0
"""How long a backend may take to say how it is."""

FRESH_SECONDS = 15.0
"""How long that is believed."""

BY_NAME = "asked for by name"
USUAL = "what draws here where nobody names another"
PLAIN = ("", f"{BY_NAME}.", f"{USUAL}.")
"""Reasons that tell whoever asked nothing new."""


class BackendRow(BaseModel):
    """What a person chooses a backend by."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    rank: int | None
    """Its place in the order of `auto`, from 1; None if `auto` never chooses it."""
    healthy: bool
    warm: bool
    wait_seconds: float | None
    """Until a request sent now would start, where known."""
    price_usd: float | None
    """For a picture, where known."""
    checkpoint: str
    """For a request that names none."""
    checkpoints: tuple[str, ...]
    detail: str


class Router:
    """A backend in front of all that are configured: `name` says which, or `auto`.

    `open` stands in for what opens a backend, `now` for the clock. `named` is whether whoever calls
    has named the backend; if it is a server's own choice, its callers have not.
    """

    def __init__(
        self,
        backends: Backends,
        name: str = AUTO,
        how: Opening | None = None,
        ledger: Ledger | None = None,
        open: Callable[[BackendConfig, Opening], Backend] = open_backend,
        now: Callable[[], float] = time.monotonic,
        named: bool = True,
    ) -> None:
        self.name = name
        self._named = named
        self.backends = backends
        self._how = how or Opening()
        self._ledger = ledger or Ledger(data_folder(), backends.limits)
        self._open = open
        self._now = now
        self._opened: dict[tuple[str, bool], Backend] = {}
        self._closing = AsyncExitStack()
        self._statuses: dict[str, _Status] = {}
        if name != AUTO:
            self._backend(backends.find(name))  # what it lacks is said at the start

    async def generate(
        self, request: GenerationRequest, backend: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events of one generation, on `backend` or on the one that this router is named after.

        Raises what that backend raises; for `auto`, `BackendUnavailable` if none can serve.
        """
        name = backend or self.name
        if name == AUTO:
            choices, remarks = await self._rank(request)
        else:
            reason = USUAL if name == self.name and not self._named else BY_NAME
            choices, remarks = [Choice(self.backends.find(name), reason)], []
        for choice in choices:
            attempt, last = Attempt(choice, remarks), choice is choices[-1]
            try:
                async with aclosing(self._follow(attempt, request, last)) as events:
                    async for event in events:
                        yield event
                return
            except (InvalidRequest, Cancelled):
                raise  # nobody else should do better
            except CygnetError as error:
                self._forget(choice.config.name)
                if last and not remarks:
                    raise
                remarks.append(f"{choice.config.name} did not serve: {error.message}")
                if attempt.began or error.began:
                    remarks.append("Nothing was sent elsewhere: its work may have begun.")
                elif not last:
                    continue
                error.message = " ".join(remarks)
                raise
        raise BackendUnavailable(
            " ".join(["No backend can draw this.", *remarks]),
            "Mend one of them; `cygnet backends` shows them all.",
        )

    async def _follow(
        self, attempt: Attempt, request: GenerationRequest, last: bool
    ) -> AsyncGenerator[Event, None]:
        """The events of one attempt, which is booked before it is made."""
        config = attempt.choice.config
        backend = self._backend(config, fail_fast=not last)
        call = await asyncio.to_thread(self._ledger.book, config, request.num_images)
        try:
            async with aclosing(backend.generate(request)) as events:
                async for event in events:
                    event = attempt.signed(event)
                    if isinstance(event, Done):  # nobody may read on after it
                        await asyncio.to_thread(self._settle, call, attempt, event.result)
                        self._forget(config.name)
                    yield event
        except CygnetError as error:
            if not (attempt.began or error.began):
                await asyncio.to_thread(self._ledger.release, call)
            raise

    def _settle(self, call: int | None, attempt: Attempt, result: GenerationResult) -> None:
        cold = attempt.choice.cold or result.timings.loading > 0
        self._ledger.settle(call, result.cost_usd, cold, attempt.waited)

    async def statuses(self, names: Sequence[str] = ()) -> list[BackendRow]:
        """Of these backends, or of all that are configured in the order of `auto`.

        Wakes no GPU.
        """
        found = await asyncio.gather(*map(self._status, names or self.backends.listed))
        return await asyncio.to_thread(lambda: [self._row(status) for status in found])

    async def status(self) -> BackendStatus:
        """Of the backend that this router is named after; for `auto`, what all of them can do."""
        if self.name != AUTO:
            return await self._ask(self.name)
        found = [row for row in await self.statuses() if row.rank and row.healthy]
        names = dict.fromkeys(name for row in found for name in row.checkpoints)
        return BackendStatus(
            name=AUTO,
            healthy=bool(found),
            warm=any(row.warm for row in found),
            checkpoints=tuple(names),
            detail="" if found else "No backend answers.",
        )

    async def aclose(self) -> None:
        """Close every backend that was opened."""
        tasks = [known.task for known in self._statuses.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._opened.clear()
        await self._closing.aclose()
        self._ledger.close()

    async def _rank(self, request: GenerationRequest) -> tuple[list[Choice], list[str]]:
        """Who may serve, the best first, and why others may not."""
        found = await asyncio.gather(*map(self._status, self.backends.auto))
        remarks, able = [], []
        for status in found:
            if not status.healthy:
                remarks.append(f"{status.name} did not serve: {status.detail}")
            elif status.checkpoints and request.checkpoint not in status.checkpoints:
                remarks.append(f"{status.name} did not serve: it has no {request.checkpoint}.")
            else:
                able.append(status)
        able.sort(key=lambda status: not status.warm)  # keeps the user's order among equals
        reasons = {True: "the first that is warm", False: "the first that answers, none being warm"}
        choices = [
            Choice(self.backends.find(status.name), reasons[status.warm], cold=not status.warm)
            for status in able
        ]
        return choices, remarks

    def _backend(self, config: BackendConfig, fail_fast: bool = False) -> Backend:
        key = (config.name, fail_fast and config.is_elsewhere)
        if key not in self._opened:
            self._opened[key] = self._open(config, replace(self._how, fail_fast=key[1]))
            self._closing.push_async_callback(self._opened[key].aclose)
        return self._opened[key]

    async def _status(self, name: str) -> BackendStatus:
        """As it was a moment ago, or as it is; those who ask at once share the answer."""
        known = self._statuses.get(name)
        if known is None or self._now() > known.believed_until:
            known = self._statuses[name] = _Status(asyncio.create_task(self._ask(name)))
            known.task.add_done_callback(functools.partial(self._date, known))
        return await asyncio.shield(known.task)

    def _date(self, known: _Status, _: object) -> None:
        known.believed_until = self._now() + FRESH_SECONDS

    def _forget(self, name: str) -> None:
        """What a call has found out is newer than what was known."""
        known = self._statuses.get(name)
        if known and known.task.done():
            del self._statuses[name]

    async def _ask(self, name: str) -> BackendStatus:
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                status = await self._backend(self.backends.find(name)).status()
            return status.model_copy(update={"name": name})
        except CygnetError as error:
            detail = error.message
        except TimeoutError:
            detail = f"It does not answer within {STATUS_SECONDS:g} s."
        return BackendStatus(name=name, healthy=False, warm=False, detail=detail)

    def _row(self, status: BackendStatus) -> BackendRow:
        config, order = self.backends.find(status.name), self.backends.auto
        wait = self._ledger.wait(config.name, cold=not status.warm) if status.healthy else None
        return BackendRow(
            name=config.name,
            kind=config.kind,
            rank=order.index(config.name) + 1 if config.name in order else None,
            healthy=status.healthy,
            warm=status.warm,
            wait_seconds=wait,
            price_usd=config.price_usd,
            checkpoint=self.backends.default_checkpoint(config.name),
            checkpoints=status.checkpoints,
            detail=status.detail,
        )


@dataclass
class _Status:
    """What a backend said of itself, or is about to say."""

    task: asyncio.Task[BackendStatus]
    believed_until: float = math.inf


@dataclass(frozen=True)
class Choice:
    """A backend that may serve, and why it."""

    config: BackendConfig
    reason: str
    cold: bool = False


class Attempt:
    """One try of one backend."""

    def __init__(self, choice: Choice, remarks: list[str]) -> None:
        self.choice = choice
        self.waited: float | None = None
        """Seconds before its work began; None until then."""
        self._remarks = remarks
        self._started = time.monotonic()

    @property
    def began(self) -> bool:
        return self.waited is not None

    def signed(self, event: Event) -> Event:
        """The event; with who served, why, and for how much, if it is the last."""
        if isinstance(event, Step | ImageReady) and self.waited is None:
            self.waited = time.monotonic() - self._started
        if not isinstance(event, Done):
            return event
        result, config = event.result, self.choice.config
        sentences = [f"{self.choice.reason}.", *self._remarks]
        if result.backend_reason not in PLAIN:  # a server may choose as well
            sentences.append(f"There {result.backend} served: {result.backend_reason}")
        said: dict[str, object] = {"backend": config.name, "backend_reason": " ".join(sentences)}
        if result.cost_usd is None and config.price is not None:
            said["cost_usd"] = config.price * len(result.seeds)
        return Done(result=result.model_copy(update=said))
