"""The door as a process: over stdio, with nothing heavy loaded, and ended in good order."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from shared.cli import main
from tests.mcp.conftest import COMMAND, ERAS, ROOT, data

pytestmark = pytest.mark.anyio

FOX = {"prompt": "a fox", "steps": 1, "seed": 7}


def parameters(*arguments: str, cwd: Path, prelude: str = "") -> StdioServerParameters:
    """The door with a fake backend; `prelude` runs before it."""
    command = [*COMMAND, "--backend", "fake", "--out", str(cwd / "pictures"), *arguments]
    if prelude:
        door = f"{prelude}\nimport sys\nfrom shared.cli import entry\nentry(['mcp', *sys.argv[1:]])"
        command = [sys.executable, "-c", door, *command[2:]]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return StdioServerParameters(command=command[0], args=command[1:], env=env, cwd=cwd)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_real_process_draws(tmp_path: Path, mode: str) -> None:
    async with Client(parameters(cwd=tmp_path), mode=mode) as client:
        told = data(await client.call_tool("generate_image", FOX))
    [made] = told["pictures"]
    path = Path(made["original"])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.parent == tmp_path / "pictures"


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def test_initialize_is_answered_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from shared.cli import main\n"
        f"main(['mcp', '--backend', 'auto', '--out', {str(tmp_path)!r}])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(INITIALIZE) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    answer = json.loads(ran.stdout)
    assert answer["result"]["serverInfo"]["name"] == "cygnet"
    loaded = set(ran.stderr.split())
    assert "shared.mcp.server" in loaded
    assert not loaded & {"torch", "diffusers", "transformers", "gradio", "fastapi", "httpx"}


def test_what_is_printed_by_accident_does_not_reach_the_wire(tmp_path: Path) -> None:
    noisy = (
        "import shared.backends.fake as fake\n"
        "draw = fake.draw\n"
        "def loud(*a):\n    print('a library talks')\n    return draw(*a)\n"
        "fake.draw = loud"
    )

    async def call() -> dict[str, Any]:
        async with Client(parameters(cwd=tmp_path, prelude=noisy)) as client:
            return data(await client.call_tool("generate_image", FOX))

    assert asyncio.run(call())["status"] == "succeeded"


# Notes each generation that is stopped, and waits for ever in its second step.
STUCK = """
import asyncio, pathlib
import shared.backends.fake as fake
from shared.contract import Step

generate = fake.FakeBackend.generate

async def stuck(self, request):
    try:
        async for event in generate(self, request):
            yield event
            if isinstance(event, Step):
                pathlib.Path("started").touch()
                await asyncio.Event().wait()
    finally:
        pathlib.Path("stopped").touch()

fake.FakeBackend.generate = stuck
"""


async def appears(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_leaves_stops_the_work_and_ends_the_server(
    tmp_path: Path, mode: str
) -> None:
    async with Client(parameters(cwd=tmp_path, prelude=STUCK), mode=mode) as client:
        waiting = {"wait_seconds": 0}
        data(await client.call_tool("generate_image", FOX | {"steps": 9} | waiting))
        await appears(tmp_path / "started")
    await appears(tmp_path / "stopped")


@pytest.mark.parametrize("mode", ERAS)
async def test_a_cancelled_call_stops_its_work(tmp_path: Path, mode: str) -> None:
    async with Client(parameters(cwd=tmp_path, prelude=STUCK), mode=mode) as client:
        calling = asyncio.create_task(client.call_tool("generate_image", FOX | {"steps": 9}))
        await appears(tmp_path / "started")
        calling.cancel()
        await appears(tmp_path / "stopped")
        assert (await client.list_tools()).tools


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        input="",
        timeout=60,
        env=os.environ | environment,
    )


def test_an_output_folder_that_cannot_be_written_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = run("--out", str(tmp_path / "file"))
    assert ran.returncode == 1
    assert "error[output_unwritable]" in ran.stderr
    assert ran.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--backend", "moon"], "unknown_backend"),
        (["--max-answer", "5"], "invalid_request"),
        (["--http", "--port", "x"], "invalid_request"),
        (["--http", "--host", "0.0.0.0"], "invalid_setting"),
        (["--backend", "api"], "invalid_setting"),
    ],
)
def test_a_wrong_start_is_one_line(tmp_path: Path, arguments: list[str], code: str) -> None:
    ran = run(*arguments, CYGNET_DATA_DIR=str(tmp_path))
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error[{code}]: ")
    assert len(ran.stderr.splitlines()) == 1


def test_a_package_is_missing_only_where_an_import_of_the_server_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def later(*_: object) -> None:
        raise ImportError("a backend's own")

    monkeypatch.setattr("shared.mcp.server.create_server", later)
    said = []
    for absent in (None, "shared.mcp.server"):
        if absent:
            monkeypatch.setitem(sys.modules, absent, None)
        assert main(["mcp", "--backend", "fake", "--out", str(tmp_path)]) == 1
        said.append(capsys.readouterr().err)
    assert "'.[mcp]'" not in said[0] and "'.[mcp]'" in said[1]
