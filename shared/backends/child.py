"""This machine's engine in a process of its own, so that torch stays out of ours.

The process is a server of our own HTTP API, which listens to this machine only, takes a key that it
alone was told, and keeps nothing. It starts with the first request, ends when it was idle for a while,
and ends when we do, even if we are killed: it reads our end of a pipe. One that died is replaced at the
next request. This module does not know torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from shared.backends.api_client import ApiBackend, wait_before
from shared.backends.local import LocalBackend
from shared.contract import BackendStatus, Event, GenerationRequest
from shared.errors import BackendUnavailable, CygnetError, error_of

IDLE_SECONDS = 300.0
"""A checkpoint loads in seconds, and a GPU's memory is wanted by others."""

_START_SECONDS = 60.0
_STOP_SECONDS = 15.0

COMMAND = (sys.executable, "-P", "-m", "shared.cli")
"""Without the current folder on its path, where another package may be named as ours."""

_ROOT = Path(__file__).parents[2]
_ERROR = re.compile(r"error\[(\w+)\]: (.*) Next: (.*)")


class ChildBackend:
    """The local backend, elsewhere. `command` stands in for the `cygnet` command."""

    name = LocalBackend.name

    def __init__(
        self, idle_seconds: float = IDLE_SECONDS, command: Sequence[str] = COMMAND
    ) -> None:
        self._idle_seconds = idle_seconds
        self._command = command
        self._child: Child | None = None
        self._starting = asyncio.Lock()
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one generation; closing the iterator stops it before its next step.

        Raises `BackendUnavailable` if the process cannot be started, or dies.
        """
        started = False
        for process in ("the one there is", "a new one"):
            async with self._in_use() as child:
                try:
                    async with aclosing(child.backend.generate(request)) as events:
                        async for event in events:
                            started = True
                            yield event
                    return
                except CygnetError as error:
                    error.began = error.began and child.alive
                    if started or child.alive or process == "a new one":
                        raise

    async def status(self) -> BackendStatus:
        """Warm once a checkpoint is loaded. Starts no process."""
        if self._child and self._child.alive:
            return (await self._child.backend.status()).model_copy(update={"name": self.name})
        return await LocalBackend().status()

    async def aclose(self) -> None:
        """Cancel what runs, and end the process."""
        async with self._starting:
            self._retire()
        await asyncio.gather(*self._stopping)

    @contextlib.asynccontextmanager
    async def _in_use(self) -> AsyncIterator[Child]:
        """The process, which is not idle meanwhile."""
        self._users += 1
        self._cancel_timer()
        try:
            yield await self._running()
        finally:
            self._users -= 1
            if not self._users:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(self._idle_seconds, self._retire)

    async def _running(self) -> Child:
        async with self._starting:
            if self._child and not self._child.alive:
                self._retire()
            if self._child is None:
                self._child = await _start(self._command)
            return self._child

    def _retire(self) -> None:
        """Let the process end, while a new one may already be started."""
        self._cancel_timer()
        if child := self._child:
            self._child = None
            stopping = asyncio.create_task(child.stop())
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    def _cancel_timer(self) -> None:
        if self._idle:
            self._idle.cancel()
            self._idle = None


class Child:
    """A process that serves, and the backend that talks to it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, key: str) -> None:
        self.backend = ApiBackend(url, key, wait=self._wait)
        self._process = process
        self._drains = [
            asyncio.create_task(_drain(pipe)) for pipe in (process.stdout, process.stderr) if pipe
        ]

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def stop(self) -> None:
        """End the process by closing the pipe that it reads, or by force if that takes too long."""
        await self.backend.aclose()
        await _end(self._process)
        await asyncio.gather(*self._drains)

    def _wait(self, attempt: int, asked: float | None) -> float:
        """Nobody answers any more once the process is dead."""
        if not self.alive:
            raise BackendUnavailable(
                f"The engine's process died (code {self._process.returncode}).",
                "Try again: a new one is started. If it dies again, ask for a smaller size.",
            )
        return wait_before(attempt, asked)


async def _start(command: Sequence[str]) -> Child:
    """A process that serves already. Raises why it could not be started."""
    key = secrets.token_urlsafe(32)
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    process = await asyncio.create_subprocess_exec(
        *command,
        *("serve", "--child", "--backend", "local", "--port", "0", "--max-queued", "100000"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"CYGNET_API_KEY": key, "PYTHONPATH": path, "NO_COLOR": "1"},
        start_new_session=True,  # a terminal's Ctrl-C is for us, who stop the work in good order
    )
    assert process.stdout
    try:
        async with asyncio.timeout(_START_SECONDS):
            if url := (await process.stdout.readline()).decode().strip():
                return Child(process, url, key)
            _, told = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.communicate()
        if isinstance(error, TimeoutError):
            message = f"The engine's process did not start within {_START_SECONDS:g} s."
            raise BackendUnavailable(message, "Try again.") from None
        raise
    raise _failure(told.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the pipe that the process reads; kill it if it takes no notice."""
    if process.stdin:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _drain(pipe: asyncio.StreamReader) -> None:
    """Let the process write what it likes: a full pipe would stop it."""
    while await pipe.read(2**16):
        pass


def _failure(told: str) -> CygnetError:
    """The error that the process left with, as it told it."""
    if found := _ERROR.search(told):
        return error_of(*found.groups())
    return BackendUnavailable(
        "The engine's process could not be started.", "See what `cygnet serve` says."
    )
