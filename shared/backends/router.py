"""Chooses the backend of a request, tries the next where one fails before its work began, and says so.

Work that may have begun is never sent again: it would be done, and paid, twice. What a call costs is
held against the user's limits before it is made. This module does not know how any backend works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from shared.backends import Backend, Opening, open_backend
from shared.backends.config import AUTO, BackendConfig, Backends, Kind
from shared.contract import BackendStatus, Done, Event, GenerationRequest, ImageReady, Step
from shared.errors import BackendUnavailable, Cancelled, CygnetError, InvalidRequest

STATUS_SECONDS = 5.0
"""How long a status is believed, and how long one is waited for."""

BY_NAME = "asked for by name"


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

    `open` stands in for what opens a backend, `now` for the clock.
    """

    def __init__(
        self,
        backends: Backends,
        name: str = AUTO,
        how: Opening | None = None,
        open: Callable[[BackendConfig, Opening], Backend] = open_backend,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.backends = backends
        self._how = how or Opening()
        self._open = open
        self._now = now
        self._opened: dict[tuple[str, bool], Backend] = {}
        self._closing = AsyncExitStack()
        self._statuses: dict[str, tuple[float, asyncio.Task[BackendStatus]]] = {}
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
            choices, remarks = [Choice(self.backends.find(name), BY_NAME)], []
        for choice in choices:
            last = choice is choices[-1]
            attempt = Attempt(self._backend(choice.config, fail_fast=not last), choice, remarks)
            try:
                async with aclosing(attempt.events(request)) as events:
                    async for event in events:
                        yield event
                return
            except CygnetError as error:
                if name != AUTO or attempt.began or not _may_go_elsewhere(error):
                    raise
                if len(choices) == 1 and not remarks:
                    raise
                remarks.append(f"{choice.config.name} failed: {error.message}")
            finally:
                self._forget(choice.config.name)
        raise BackendUnavailable(
            " ".join(["No backend can draw this.", *remarks]),
            "Mend one of them; `cygnet backends` shows them all.",
        )

    async def statuses(self) -> list[BackendRow]:
        """Every backend that is configured, in the order of `auto`, without waking a GPU."""
        found = await asyncio.gather(*map(self._status, self.backends.listed))
        return [self._row(status) for status in found]

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
        tasks = [task for _, task in self._statuses.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._opened.clear()
        await self._closing.aclose()

    async def _rank(self, request: GenerationRequest) -> tuple[list[Choice], list[str]]:
        """Who may serve, the best first, and why others may not."""
        found = await asyncio.gather(*map(self._status, self.backends.auto))
        remarks, able = [], []
        for status in found:
            if not status.healthy:
                remarks.append(f"{status.name} was passed over: {status.detail}")
            elif status.checkpoints and request.checkpoint not in status.checkpoints:
                remarks.append(f"{status.name} was passed over: it has no {request.checkpoint}.")
            else:
                able.append(status)
        able.sort(key=lambda status: not status.warm)  # keeps the user's order among equals
        reasons = {True: "the first that is warm", False: "the first that answers, none being warm"}
        return [
            Choice(self.backends.find(status.name), reasons[status.warm]) for status in able
        ], remarks

    def _backend(self, config: BackendConfig, fail_fast: bool = False) -> Backend:
        key = (config.name, fail_fast and config.kind not in ("local", "fake"))
        if key not in self._opened:
            self._opened[key] = self._open(config, replace(self._how, fail_fast=key[1]))
            self._closing.push_async_callback(self._opened[key].aclose)
        return self._opened[key]

    async def _status(self, name: str) -> BackendStatus:
        """As it was a moment ago, or as it is; those who ask at once share the answer."""
        until, task = self._statuses.get(name, (0.0, None))
        if task is None or (task.done() and self._now() >= until):
            task = asyncio.create_task(self._ask(name))
            self._statuses[name] = (self._now() + STATUS_SECONDS, task)
        return await asyncio.shield(task)

    def _forget(self, name: str) -> None:
        """What a call has found out is newer than what was known."""
        if name in self._statuses and self._statuses[name][1].done():
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
        return BackendRow(
            name=config.name,
            kind=config.kind,
            rank=order.index(config.name) + 1 if config.name in order else None,
            healthy=status.healthy,
            warm=status.warm,
            wait_seconds=status.wait_seconds,
            price_usd=config.price,
            checkpoint=self.backends.default_checkpoint(config.name),
            checkpoints=status.checkpoints,
            detail=status.detail,
        )


@dataclass(frozen=True)
class Choice:
    """A backend that may serve, and why it."""

    config: BackendConfig
    reason: str


class Attempt:
    """One try of one backend; `began` once its work has."""

    def __init__(self, backend: Backend, choice: Choice, remarks: list[str]) -> None:
        self.began = False
        self._backend = backend
        self._choice = choice
        self._remarks = remarks

    async def events(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        async with aclosing(self._backend.generate(request)) as events:
            async for event in events:
                self.began = self.began or isinstance(event, Step | ImageReady)
                yield self._signed(event) if isinstance(event, Done) else event

    def _signed(self, done: Done) -> Done:
        """With who served, and why."""
        result = done.result
        sentences = [f"{self._choice.reason}.", *self._remarks]
        if result.backend_reason not in ("", f"{BY_NAME}."):  # a server may choose as well
            sentences.append(f"There {result.backend} served: {result.backend_reason}")
        said = {"backend": self._choice.config.name, "backend_reason": " ".join(sentences)}
        return Done(result=result.model_copy(update=said))


def _may_go_elsewhere(error: CygnetError) -> bool:
    """Whether another backend may do better, and none has the work already."""
    return not error.began and not isinstance(error, InvalidRequest | Cancelled)
