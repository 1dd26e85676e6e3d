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


LINES = {
    "half an emoji": (
        rb'{"jsonrpc":"2.0","id":10,"method":"ping","params":{"x":"\ud83e"}}',
        -32700,
        10,
    ),
    "half an emoji in a name": (
        rb'{"jsonrpc":"2.0","id":"a","method":"ping","\udd8a":1}',
        -32700,
        "a",
    ),
    "half an emoji as the id": (rb'{"jsonrpc":"2.0","id":"\ud83e","method":"ping"}', -32700, "?"),
    "no JSON": (b"not json", -32700, None),
    "a byte order mark": (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":15,"method":"ping"}', -32700, 15),
    "UTF-16": ('{"jsonrpc":"2.0","id":16,"method":"ping"}'.encode("utf-16-be"), -32700, None),
    "cut": (b'{"jsonrpc":"2.0","id":17,"method":"pi', -32700, None),
    "two in a line": (b'{"jsonrpc":"2.0","id":1,"method":"ping"}{}', -32700, None),
    "too deep": (b'{"id":19,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", -32700, None),
    "a batch": (b'[{"jsonrpc":"2.0","id":20,"method":"ping"}]', -32600, None),
    "no method": (b'{"jsonrpc":"2.0","id":21}', -32600, 21),
    "another version": (b'{"jsonrpc":"1.0","id":22,"method":"ping"}', -32600, 22),
    "a method that is no text": (b'{"jsonrpc":"2.0","id":23,"method":7}', -32600, 23),
    "parameters in a list": (b'{"jsonrpc":"2.0","id":24,"method":"ping","params":[1]}', -32600, 24),
    "an answer that is none": (b'{"jsonrpc":"2.0","id":25,"error":{"code":1}}', -32600, 25),
    "a number": (b"7", -32600, None),
}


def test_every_line_gets_an_answer_and_the_server_goes_on(tmp_path: Path) -> None:
    door = parameters(cwd=tmp_path)
    ping = {"jsonrpc": "2.0", "id": "ping", "method": "ping"}
    sent = [json.dumps(INITIALIZE).encode(), *(line for line, _, _ in LINES.values())]
    with subprocess.Popen(
        [door.command, *door.args], env=door.env, cwd=tmp_path, stdin=-1, stdout=-1
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"\n".join([*sent, b"", json.dumps(ping).encode(), b""]))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(len(sent) + 1)]
        process.stdin.close()
    refused = [answer for answer in answers if "error" in answer]
    told = [(answer["error"]["code"], answer["id"]) for answer in refused]
    assert told == [(code, id) for _, code, id in LINES.values()]
    assert all("in UTF-8" in answer["error"]["message"] for answer in refused)
    batches = ["batches" in answer["error"]["message"] for answer in refused]
    assert batches == [line.startswith(b"[") for line, _, _ in LINES.values()]
    assert {answer["id"] for answer in answers if "result" in answer} == {0, "ping"}
