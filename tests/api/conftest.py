"""A real server on the loopback, in the test's own event loop, over a backend that can be held."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.api import ApiOptions, create_api
from shared.api.runner import Runner
from shared.api.server import Server as UvicornServer
from shared.api.server import listen
from shared.backends.fake import FakeBackend
from shared.contract import Event, GenerationRequest, Step
from shared.store import Store


class HeldBackend(FakeBackend):
    """Waits before each step until `go` is set; remembers what ran and what was stopped."""

    def __init__(self, before_event: Callable[[Event], None] | None = None) -> None:
        super().__init__(before_event)
        self.go = asyncio.Event()
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.closed = False

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.started.append(request.prompt)
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    if isinstance(event, Step):
                        await self.go.wait()
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.append(request.prompt)
            raise

    async def aclose(self) -> None:
        self.closed = True


class Server:
    """What a test needs to know of the server."""

    def __init__(self, url: str, runner: Runner, client: httpx.AsyncClient) -> None:
        self.url = url
        self.runner = runner
        self.client = client

    async def post(self, **fields: Any) -> dict[str, Any]:
        """A new job."""
        answer = await self.client.post("/v1/jobs", json={"prompt": "a fox", "steps": 2} | fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def ended(self, job: str) -> dict[str, Any]:
        """The job, once it has ended."""
        async with aclosing(self.runner.events(job)) as events:
            async for _ in events:
                pass
        return (await self.client.get(f"/v1/jobs/{job}")).json()


Serve = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Serves a backend, with the options given, from one data folder."""

    @contextlib.asynccontextmanager
    async def run(backend: FakeBackend, **options: Any) -> AsyncIterator[Server]:
        settings: dict[str, Any] = {"hosts": ("127.0.0.1",)} | options
        app = create_api(backend, Store(tmp_path / "data"), ApiOptions(**settings))
        server = UvicornServer(app)
        with listen("127.0.0.1", 0) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            serving = asyncio.create_task(server._serve([listener]))
            try:
                async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                    yield Server(url, app.state.jobs, client)
            finally:
                server.should_exit = True
                await serving

    return run


@pytest.fixture
def backend() -> HeldBackend:
    return HeldBackend()


@pytest.fixture
async def server(serve: Serve, backend: HeldBackend) -> AsyncIterator[Server]:
    """The defaults, over a backend that is held; `backend.go.set()` lets it work."""
    async with serve(backend, grace=0) as running:
        yield running
