"""An MCP server over a router of fake backends, and the SDK's own clients on it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent

from shared.api.server import Server as UvicornServer
from shared.api.server import listen
from shared.backends import Backend
from shared.backends.config import read_backends
from shared.backends.fake import FakeBackend
from shared.backends.router import Router
from shared.gallery import Gallery
from shared.mcp.http import HttpOptions, mcp_app
from shared.mcp.server import Server, create_server
from tests.api.conftest import HeldBackend

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "mcp_client_server.py")]

ERAS = ("legacy", "auto")
"""How the SDK's client calls the protocol with sessions, and the newest one, which has none."""

Make = Callable[..., Server]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with contextlib.closing(Gallery(tmp_path / "gallery")) as opened:
        yield opened


@pytest.fixture
def held() -> HeldBackend:
    """Waits before each step until `go` is set."""
    return HeldBackend()


def routed(backend: Backend, name: str = "fake") -> Router:
    """A router to which every backend is this one."""
    return Router(read_backends(), name, open=lambda config, how: backend, named=False)


@pytest.fixture
def make(gallery: Gallery) -> Make:
    """A server over one backend."""

    def build(backend: Backend | None = None, **options: Any) -> Server:
        return create_server(routed(backend or FakeBackend()), gallery, **options)

    return build


@pytest.fixture
async def client(make: Make) -> AsyncIterator[Client]:
    """A client in memory."""
    async with Client(make()) as connected:
        yield connected


Serve = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def serve(gallery: Gallery) -> Serve:
    """Serves a backend over real HTTP; where."""

    @contextlib.asynccontextmanager
    async def run(backend: Backend | None = None, **options: Any) -> AsyncIterator[str]:
        settings = {"hosts": ("127.0.0.1",)} | options
        app = mcp_app(routed(backend or FakeBackend()), gallery, HttpOptions(**settings))
        server = UvicornServer(app)
        with listen("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(server._serve([listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            finally:
                server.should_exit = True
                await serving

    return run


@contextlib.asynccontextmanager
async def http_client(url: str, mode: str = "auto", key: str = "") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        create_mcp_http_client(headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as connected,
    ):
        yield connected


def words(answer: CallToolResult) -> str:
    """The first thing that an answer says."""
    return next(block.text for block in answer.content if isinstance(block, TextContent))


def images(answer: CallToolResult) -> list[ImageContent]:
    return [block for block in answer.content if isinstance(block, ImageContent)]


def data(answer: CallToolResult) -> dict[str, Any]:
    """What an answer says in data; fails with its words if it is an error."""
    assert not answer.is_error, words(answer)
    assert answer.structured_content is not None
    return answer.structured_content
