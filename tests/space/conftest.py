"""A site on a port of its own, served from a thread, over a backend that works step by step."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shared.api import ApiOptions
from shared.api.server import Server, listen
from shared.backends import Backend
from shared.backends.fake import FakeBackend
from shared.contract import Done, Event, GenerationRequest, Step
from shared.site import create_site


class HeldBackend(FakeBackend):
    """Takes `steps`, then one when it is let; tells whose work was stopped. For use from any thread."""

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self._steps = threading.Semaphore(steps)
        self.stopped: queue.SimpleQueue[str] = queue.SimpleQueue()

    def let(self, steps: int) -> None:
        self._steps.release(steps)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        done = False
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    while isinstance(event, Step) and not self._steps.acquire(blocking=False):
                        await asyncio.sleep(0.005)
                    done = isinstance(event, Done)
                    yield event
        finally:
            if not done:
                self.stopped.put(request.prompt)


def full(*_: Any, **__: Any) -> NoReturn:
    """In place of what writes a file."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves a backend's site as `cygnet serve` does; gives its address."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # a site says where its page keeps files

    @contextlib.contextmanager
    def run(backend: Backend, folder: Path | None = None, **options: Any) -> Iterator[str]:
        kept = folder or tmp_path / "data"
        running: queue.SimpleQueue[Server] = queue.SimpleQueue()

        async def serve_site(listener: socket.socket) -> None:  # Gradio wants to be made in a loop
            site = create_site(backend, kept, ApiOptions(**options))
            server = Server(site)
            running.put(server)
            await server._serve([listener])

        with listen("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as thread:
            serving = thread.submit(asyncio.run, serve_site(listener))
            server = running.get(timeout=60)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                serving.result()

    return run
