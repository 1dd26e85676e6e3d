"""The app file as a deployment with the embedded checkpoint imports it, and a platform in this process."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI

from shared.api.server import Server, listen
from shared.backends.modal.methods import Methods
from shared.backends.modal.protocols import CallStats
from shared.backends.modal.records import Records
from shared.contract import GenerationRequest
from shared.errors import Cancelled, InternalError
from shared.settings import settings


class MemoryTable:
    """A `Table` that only this process sees."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    async def get(self, key: str) -> Any:
        await asyncio.sleep(0)  # as a call over the network lets others in
        return copy.deepcopy(self.rows.get(key))

    async def put(self, key: str, row: Any) -> None:
        await asyncio.sleep(0)
        self.rows[key] = copy.deepcopy(row)

    async def put_new(self, key: str, row: Any) -> bool:
        await asyncio.sleep(0)
        new = copy.deepcopy(row)
        return self.rows.setdefault(key, new) is new

    async def remove(self, key: str) -> None:
        self.rows.pop(key, None)

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        for item in list(self.rows.items()):
            yield item


RunJob = Callable[[str, dict[str, Any]], Awaitable[None]]


class TaskCalls:
    """`Calls` as tasks of this process; `machines` is what it says is running."""

    def __init__(self, run_job: RunJob) -> None:
        self._run_job = run_job
        self._ids = itertools.count(1)
        self.calls: dict[str, asyncio.Task[None]] = {}
        self.machines = 0
        self.waiting = 0

    @classmethod
    def of(cls, methods: Methods, records: Records) -> TaskCalls:
        """The calls of a machine that serves these methods."""
        return cls(lambda job, request: methods.run_job(records, job, request))

    async def spawn(self, job: str, request: GenerationRequest) -> str:
        call = f"fc-{next(self._ids)}"
        work = self._run_job(job, request.model_dump(mode="json"))
        self.calls[call] = asyncio.ensure_future(work)
        return call

    async def is_over(self, call: str, wait: float) -> bool:
        task = self.calls[call]
        await asyncio.wait({task}, timeout=wait)
        if not task.done():
            return False
        if task.cancelled():
            raise Cancelled("The call was cancelled.", "Send it again.")
        if error := task.exception():
            raise InternalError("The machine died.", "Send it again.") from error
        return True

    async def cancel(self, call: str) -> None:
        self.calls[call].cancel()
        await asyncio.wait({self.calls[call]})

    async def stats(self) -> CallStats:
        running = sum(not task.done() for task in self.calls.values())
        return CallStats(self.waiting, running, self.machines)


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """A web container; its address."""
    server = Server(app)
    with listen("127.0.0.1", 0) as listener:
        task = asyncio.create_task(server._serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


Deploy = Callable[..., ModuleType]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Imports `modal_app.py` as if for a deployment with this environment."""

    def load(**environment: str) -> ModuleType:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()
        monkeypatch.delitem(sys.modules, "modal_app", raising=False)
        return importlib.import_module("modal_app")

    return load


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
