"""One request through three real backends of one MCP server: the same picture, pixel for pixel.

The engine of this machine in its own process, `cygnet serve` as a process, and the Space's app as one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

from tests.mcp.conftest import COMMAND, ROOT, data

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FOX = {
    "prompt": "a red fox, 3d render, on a sky blue background",
    "checkpoint": "cygnet-tiny-fast",
    "seed": 7,
}


def environment(folder: Path, **more: str) -> dict[str, str]:
    ours = {"PYTHONPATH": str(ROOT), "CYGNET_DEVICE": "cpu", "CYGNET_DATA_DIR": str(folder)}
    return os.environ | ours | {"OMP_NUM_THREADS": "1"} | more


@contextlib.contextmanager
def process(folder: Path, name: str, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / f"{name}.log").open("w") as log:
        command = [sys.executable, "-m", *words]
        env = environment(folder / name, **more)
        running = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=60)


def answering(app: subprocess.Popen[str], url: str, log: Path) -> str:
    """The address, once a server answers there."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return url
        assert app.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a server and of a Space."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    where = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": port}
    serve = ("shared.cli", "serve", "--backend", "local", "--port", "0")
    with (
        process(tmp_path, "space", "space.app", CYGNET_BACKEND="local", **where) as space,
        process(tmp_path, "serve", *serve) as server,
    ):
        assert server.stdout
        api = server.stdout.readline().strip()
        assert api, (tmp_path / "serve.log").read_text()
        yield api, answering(space, f"http://127.0.0.1:{port}", tmp_path / "space.log")


async def test_the_same_request_gives_the_same_pixels_through_every_backend(
    tmp_path: Path, servers: tuple[str, str]
) -> None:
    api, space = servers
    env = environment(tmp_path / "mcp", CYGNET_API_URL=api, CYGNET_SPACE=space)
    door = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=env, cwd=tmp_path)
    drawn = {}
    async with Client(door) as client:
        for backend in ("local", "api", "space"):
            told = data(await client.call_tool("generate_image", FOX | {"backend": backend}))
            while told["status"] in ("queued", "running"):
                told = data(await client.call_tool("get_job", {"job_id": told["job_id"]}))
            assert (told["status"], told["backend"]) == ("succeeded", backend), told["message"]
            with Image.open(told["pictures"][0]["original"]) as picture:
                drawn[backend] = picture.convert("RGB").tobytes()
    assert drawn["local"] == drawn["api"] == drawn["space"]
    assert len(set(drawn["local"])) > 32  # it is a picture, and not one colour
