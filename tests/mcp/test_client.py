"""The small client: over real stdio and real HTTP, at this server and at others."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.images import read_recipe
from shared.mcp.jobs import Jobs
from tests.api.conftest import HeldBackend
from tests.mcp.conftest import COMMAND, ROOT, Serve

pytestmark = pytest.mark.anyio

GENERATE = ("generate_image", "--prompt", "a red fox", "--steps", "2", "--seed", "7")


class Ran:
    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.out, self.err = code, out.decode(), err.decode()


async def start(folder: Path, *words: str, **environment: str) -> asyncio.subprocess.Process:
    kept = {"CYGNET_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *words,
        cwd=folder,
        env=os.environ | kept | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(folder: Path, *words: str, **environment: str) -> Ran:
    process = await start(folder, *words, **environment)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ran(process.returncode or 0, out, err)


async def test_a_call_over_stdio_saves_the_picture(tmp_path: Path) -> None:
    ran = await run(tmp_path, "--backend", "fake", "call", *GENERATE, "--num-images=2")
    assert (ran.code, ran.out.split()) == (0, ["outputs/a-red-fox.png", "outputs/a-red-fox-2.png"])
    assert "Drew 2 pictures on fake" in ran.err
    seeds = [read_recipe(tmp_path / path).fields["seed"] for path in ran.out.split()]
    assert seeds == [7, 8]


async def test_a_job_is_followed_to_its_end(serve: Serve, tmp_path: Path) -> None:
    words = ("--save", "here", "--json", *GENERATE, "--wait-seconds", "0")
    async with serve() as url:
        ran = await run(tmp_path, "call", "--server", url, *words)
    told = json.loads(ran.out)
    assert told["answer"]["status"] == "succeeded"
    assert told["files"] == ["here/a-red-fox.png"]
    assert (tmp_path / "here/a-red-fox.png").read_bytes().startswith(b"\x89PNG")


async def test_a_call_over_http_shows_a_key_that_a_variable_holds(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(keys=("right",), hosts=()) as url:
        at = ("call", "--server", url)
        ran = await run(tmp_path, *at, "--key-variable", "MY_KEY", *GENERATE, MY_KEY="right")
        refused = await run(tmp_path, *at, *GENERATE, CYGNET_API_KEY="right")
        wrong = await run(tmp_path, *at, "--key-variable", "MY_KEY", *GENERATE, MY_KEY="secret")
    assert (ran.code, ran.out.split()) == (0, ["outputs/a-red-fox.png"])
    for failed in (refused, wrong):
        assert failed.code == 1
        assert failed.err.startswith("error[")
        assert "secret" not in failed.err and "Traceback" not in failed.err


async def test_an_original_larger_than_an_answer_is_saved_whole(
    serve: Serve, tmp_path: Path
) -> None:
    large = ("--checkpoint", "wan2.1-14b", "--width", "1280", "--height", "1280")
    async with serve() as url:
        ran = await run(tmp_path, "call", "--server", url, *GENERATE, *large)
    [path] = ran.out.split()
    assert read_recipe(tmp_path / path).fields["width"] == 1280


async def test_tools_are_listed_for_people_and_for_programs(tmp_path: Path) -> None:
    ran = await run(tmp_path, "tools", "--json")
    names = [tool["name"] for tool in json.loads(ran.out)]
    assert names[0] == "generate_image" and len(names) == 7
    shown = await run(tmp_path, "tools")
    assert "takes prompt, negative_prompt" in shown.out


async def test_what_is_no_picture_is_printed(serve: Serve, tmp_path: Path) -> None:
    async with serve() as url:
        ran = await run(tmp_path, "call", "--server", url, "list_checkpoints")
    assert json.loads(ran.out)["default"] == "cygnet-tiny"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["generate_image", "--prompt", "a", "--steps", "500"], 2, "error[invalid_request]"),
        (["generate_image", "--prompt", "a", "--stepz", "5"], 2, "'stepz' is no argument"),
        (["generate_image", "--prompt"], 2, "--prompt has no value."),
        (["generate_image", "a fox"], 2, "'a fox' is no --name."),
        (["generate_image", "--prompt", "a", "--json"], 2, "--json is not for generate_image."),
        (["list_checkpoints", "--save", "here"], 2, "Put it before TOOL."),
        (["get_job", "--job-id", "gone"], 2, "error[not_found]"),
        (["draw"], 2, "The server has no tool 'draw'."),
    ],
)
async def test_a_wrong_call_is_one_line_and_the_exit_code_of_the_command_line(
    serve: Serve, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    async with serve() as url:
        ran = await run(tmp_path, "call", "--server", url, *words)
    assert ran.code == code
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


OTHER = """
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
server = MCPServer("other")

@server.tool()
def add(numbers: list[int], twice: bool = False) -> int:
    return sum(numbers) * (2 if twice else 1)

@server.tool()
def fail() -> str:
    raise ToolError("the moon is full")

server.run()
"""


async def test_other_servers_can_be_called_too(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(OTHER)
    at = ("call", "--server", shlex.join([sys.executable, "other.py"]))
    added = await run(tmp_path, *at, "add", "--numbers", "[1, 2]", "--twice", "true")
    failed = await run(tmp_path, *at, "fail")
    assert json.loads(added.out) == {"result": 6}
    assert failed.code == 1
    assert "error[tool_failed]: " in failed.err and "the moon is full" in failed.err


@pytest.mark.parametrize("server", ["http://127.0.0.1:9/mcp", "/no/such/command", "true"])
async def test_a_server_that_is_not_there_is_said_to_be_so(tmp_path: Path, server: str) -> None:
    ran = await run(tmp_path, "call", "--server", server, *GENERATE)
    assert ran.code == 1
    assert "error[backend_unavailable]: The MCP server cannot be reached" in ran.err
    assert len(ran.err.splitlines()) == 1


async def stop(folder: Path, url: str, held: HeldBackend, begun: asyncio.Event, wait: str) -> None:
    """Presses Ctrl-C once the server has begun, and waits until its work has stopped."""
    async with asyncio.timeout(60):
        words = ("call", "--server", url, *GENERATE, "--wait-seconds", wait)
        process = await start(folder, *words)
        await begun.wait()
        while not held.started:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        while not held.stopped:
            await asyncio.sleep(0.01)
    assert process.returncode == 1
    assert b"error[cancelled]: Stopped." in err


@pytest.mark.parametrize(("wait", "busy"), [("50", "start"), ("0", "find")])
async def test_ctrl_c_stops_the_work_on_a_server_elsewhere(
    serve: Serve,
    held: HeldBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait: str,
    busy: str,
) -> None:
    """While the call waits, and while its job is asked for."""
    begun = asyncio.Event()
    ours = getattr(Jobs, busy)

    def begin(*given: Any) -> Any:
        begun.set()
        return ours(*given)

    monkeypatch.setattr(Jobs, busy, begin)
    async with serve(held) as url:
        await stop(tmp_path, url, held, begun, wait)
