"""Callers that send half a call, or never read: they are not waited for, and hold up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from shared import http_clients
from shared.api import ApiOptions
from shared.api.connections import PATIENCE, Patience, QuietLoop
from shared.api.server import Server, listen
from shared.backends.config import read_backends
from shared.backends.fake import FakeBackend
from shared.backends.router import Router
from shared.gallery import Gallery
from shared.mcp.http import HttpOptions, mcp_app
from shared.site import create_site

ROOT = Path(__file__).parents[2]
NEVER = 3600.0
HURRIED = Patience(head=0.5, body=0.5, reader=0.5, slowest=2**20)

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def run(
    app: Starlette, patience: Patience = HURRIED, most: int = 1000
) -> AsyncIterator[tuple[Server, int]]:
    """A server, and its port."""
    server = Server(app, patience, most)
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


class NoJobs:
    async def stop(self) -> None:
        pass


def small_app(*routes: Route) -> Starlette:
    app = Starlette(routes=[*routes, Route("/healthz", healthz)])
    app.state.jobs, app.state.on_stop = NoJobs(), []
    return app


async def healthz(request: Request) -> Response:
    return PlainTextResponse("alive")


async def echo_size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


class Stream:
    """An answer that never ends, in pieces of so many bytes with a pause between them."""

    def __init__(self, size: int, pause: float) -> None:
        self.closed = asyncio.Event()
        self._size = size
        self._pause = pause

    async def answer(self, request: Request) -> Response:
        return StreamingResponse(self._pieces())

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(self._size)
                await asyncio.sleep(self._pause)
        finally:
            self.closed.set()


def router(name: str = "fake") -> Router:
    return Router(read_backends(), name, open=lambda config, how: FakeBackend())


async def sent(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back until the server closes, where nothing but `parts` is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
            if got.done():
                break
    try:
        async with asyncio.timeout(60):
            return await got
    except ConnectionError:
        return b""
    finally:
        writer.close()


HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("head", [b"", b"G", HEAD, HEAD + b"X: "], ids=len)
async def test_half_a_head_is_not_waited_for(head: bytes) -> None:
    async with run(small_app()) as (_, port):
        assert await sent(port, head) == b""


async def test_a_head_that_trickles_is_not_waited_for() -> None:
    async with run(small_app()) as (_, port):
        assert await sent(port, HEAD, *itertools.repeat(b"X: y\r\n", 1000), pause=0.02) == b""


async def test_half_a_second_call_is_not_waited_for() -> None:
    async with run(small_app()) as (_, port):
        answer = await sent(port, WHOLE, HEAD, pause=0.1)
        assert answer.endswith(b"alive")


async def test_a_body_that_trickles_is_not_waited_for() -> None:
    async with run(small_app(Route("/", echo_size, methods=["POST"]))) as (_, port):
        head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n"
        assert await sent(port, head, *itertools.repeat(b"x", 1000), pause=0.02) == b""


def paths(app: Any, prefix: str = "") -> Iterator[str]:
    """Every path that an app answers to, those of what is mounted or included in it too."""
    for route in getattr(app, "routes", []):
        path = prefix + getattr(route, "path", "")
        yield re.sub(r"\{[^}]*\}", "x", path) or "/"
        if isinstance(route, Mount):
            yield from paths(getattr(route.app, "_app", route.app), path)
        elif router := getattr(route, "original_router", None):
            yield from paths(router, prefix + getattr(route.include_context, "prefix", ""))  # type: ignore[attr-defined]


KINDS = {
    "application/json": b'{"prompt": "a',
    "application/x-www-form-urlencoded": b"key=a",
    "multipart/form-data; boundary=b": b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc',
    "text/plain": b"a",
}


async def half_sent_everywhere(app: Any, port: int, server: Server) -> int:
    """Half a body to every path of the app, in every kind; how many, once all were ended."""
    calls = []
    for path, (kind, start) in itertools.product(sorted({*paths(app)}), KINDS.items()):
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
        head += f"Content-Type: {kind}\r\nContent-Length: 9999\r\n\r\n"
        calls.append(sent(port, head.encode() + start))
    await asyncio.gather(*calls)
    await all_gone(server)
    return len(calls)


async def test_half_a_body_is_not_waited_for_on_any_route_of_the_site(tmp_path: Path) -> None:
    site = create_site(router(), tmp_path, ApiOptions(hosts=("127.0.0.1",)))
    everywhere = {*paths(site)}
    assert {"/v1/jobs", "/v1/images/generations", "/mcp", "/gradio_api/upload"} <= everywhere
    async with run(site) as (server, port):
        assert await half_sent_everywhere(site, port, server) >= len(everywhere)


async def test_half_a_body_is_not_waited_for_on_any_route_of_the_mcp_server(tmp_path: Path) -> None:
    with contextlib.closing(Gallery(tmp_path)) as gallery:
        app = mcp_app(router(), gallery, HttpOptions(hosts=("127.0.0.1",)))
        async with run(app) as (server, port):
            assert await half_sent_everywhere(app, port, server) >= len(KINDS)


async def deaf(port: int) -> socket.socket:
    """A connection that asks for `/` and never reads."""
    call = socket.socket()
    call.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    call.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(call, ("127.0.0.1", port))
    await loop.sock_sendall(call, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    return call


async def all_gone(server: Server) -> None:
    async with asyncio.timeout(60):
        while server.server_state.connections or server.server_state.tasks:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [500, 2**16, 2**24], ids=["small", "middling", "large"])
async def test_a_stream_that_nobody_reads_is_ended(size: int) -> None:
    stream = Stream(size, 0.0)
    async with run(small_app(Route("/", stream.answer))) as (server, port):
        with await deaf(port):
            await asyncio.wait_for(stream.closed.wait(), 60)
            await all_gone(server)


async def test_a_large_answer_that_nobody_reads_is_ended() -> None:
    async def large(request: Request) -> Response:
        return Response(bytes(2**25))

    async with run(small_app(Route("/", large))) as (server, port):
        with await deaf(port):
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
            await all_gone(server)


async def test_a_slow_upload_that_goes_on_is_waited_for() -> None:
    patience = Patience(head=NEVER, body=1.0, reader=NEVER, slowest=1000)
    async with run(small_app(Route("/", echo_size, methods=["POST"])), patience) as (_, port):

        async def body() -> AsyncIterator[bytes]:
            for _ in range(40):  # for longer than the patience, and faster than the slowest
                yield bytes(2000)
                await asyncio.sleep(0.1)

        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(f"http://127.0.0.1:{port}/", content=body())
        assert answer.text == "80000"


async def test_a_stream_with_nothing_to_say_is_not_ended() -> None:
    stream = Stream(10, 4.0)
    async with run(small_app(Route("/", stream.answer))) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        got = 0
        while got < 3:
            line = await asyncio.wait_for(reader.readline(), 60)
            assert line, "it was ended"
            got += bytes(10) in line
        writer.close()


async def test_who_works_is_not_ended_for_who_only_waits() -> None:
    stream = Stream(10, 0.05)
    patient = Patience(head=NEVER, body=NEVER, reader=NEVER)
    async with run(small_app(Route("/", stream.answer)), patient, most=8) as (server, port):
        working, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await working.readline()
        halves = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _, half in halves:
            half.write(HEAD)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/healthz")).text == "alive"
        assert len(server.server_state.connections) <= 9
        assert not stream.closed.is_set()
        assert await working.readline()
        for _, half in (*halves, (None, writer)):
            half.close()


def test_a_flood_of_open_files_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    loop, others = asyncio.new_event_loop(), []
    loop.set_exception_handler(lambda _, context: others.append(context))
    quiet = QuietLoop(loop)
    for _ in range(1000):
        quiet(loop, {"message": "x", "exception": OSError(errno.EMFILE, "Too many open files")})
    another = {"message": "x", "exception": OSError(errno.EIO, "Input/output error")}
    quiet(loop, another)
    loop.close()
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR
    ] == ["no more connections can be taken for now: Too many open files"]
    assert others == [another]


def test_with_few_files_the_server_goes_on_and_its_log_stays_small(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = f"ulimit -n 256; exec {sys.executable} -m shared.cli serve --backend fake --port 0"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            ["bash", "-c", program],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"CYGNET_DATA_DIR": str(tmp_path / "data")},
            cwd=ROOT,
            text=True,
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(server.send_signal, signal.SIGTERM)
        assert server.stdout
        url = server.stdout.readline().strip()
        address = ("127.0.0.1", httpx.URL(url).port or 0)
        for _ in range(400):
            half = stack.enter_context(socket.create_connection(address))
            half.sendall(HEAD)
        for _ in range(5):
            assert httpx.get(f"{url}/healthz", timeout=60, trust_env=False).status_code == 200
        for _ in range(600):  # it is said once a second
            if "crowded" in log.read_text():
                break
            time.sleep(0.1)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    ours = [line for line in lines if line["logger"] == "shared.api.connections"]
    assert sum(line.get("crowded", 0) for line in ours) > 0
    assert len(lines) < 100


def test_a_pooled_connection_is_given_up_before_a_server_closes_it() -> None:
    usual_pool, usual_server = httpx.Limits().keepalive_expiry, 5.0
    assert usual_pool == usual_server
    assert http_clients.KEPT_SECONDS < usual_server < PATIENCE.idle
    server = Server(small_app())
    assert server.config.timeout_keep_alive == PATIENCE.idle
