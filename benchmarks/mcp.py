"""The MCP server beside a hello-world server on the same SDK: start, one call, a hundred at once.

`python -m benchmarks.mcp` prints the tables of benchmarks/mcp.md. Both servers are processes, spoken to
over stdio by the SDK's own client; they take turns, and numbers are medians. The backend is the fake one,
whose own time is measured in this process and taken off: what is left is what the server adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from benchmarks.local import cpu
from shared.backends.fake import FakeBackend
from shared.contract import collect, parse_request

ROOT = Path(__file__).parents[1]
HELLO = """
from mcp.server import MCPServer
server = MCPServer("hello")

@server.tool()
def hello(name: str) -> str:
    return f"hello {name}"

server.run()
"""
REQUEST = {"prompt": "a fox", "steps": 1, "seed": 7}
AT_ONCE = 100

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    },
}


def ours(folder: Path) -> list[str]:
    door = str(ROOT / "mcp_client_server.py")
    return [sys.executable, door, "--backend", "fake", "--out", str(folder)]


def hello() -> list[str]:
    return [sys.executable, "-c", HELLO]


def seconds_to_initialize(command: list[str]) -> float:
    """From the start of the process to its answer."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
        server.stdin.flush()
        assert b'"result"' in server.stdout.readline()
        took = time.perf_counter() - started
        server.stdin.close()
    return took


async def median_of(call: Callable[[], Awaitable[Any]], repeats: int) -> float:
    await call()
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        await call()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


async def at_once(call: Callable[[int], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*map(call, range(AT_ONCE)))
    return time.perf_counter() - started


def client(command: list[str]) -> Client:
    env = dict(os.environ)
    return Client(StdioServerParameters(command=command[0], args=command[1:], env=env))


async def calls(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of a call and of a hundred, of each side, and of the backend alone."""
    request = parse_request(REQUEST)
    backend = FakeBackend()
    async with client(ours(folder)) as we, client(hello()) as they:

        async def draw(number: int = 7) -> None:
            answer = await we.call_tool("generate_image", REQUEST | {"seed": number})
            assert not answer.is_error

        async def greet(_number: int = 7) -> None:
            await they.call_tool("hello", {"name": "fox"})

        async def alone(_number: int = 7) -> None:
            await collect(backend.generate(request))

        return {
            "ours": await median_of(draw, repeats),
            "hello": await median_of(greet, repeats),
            "backend": await median_of(alone, repeats),
            "ours at once": await at_once(draw),
            "hello at once": await at_once(greet),
            "backend at once": await at_once(alone),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"{cpu()}, {os.cpu_count()} cores. mcp {version('mcp')}.")
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"The machine was busy (load {load:.1f}): read the ratios rather than the numbers.")
    with tempfile.TemporaryDirectory() as folder:
        sides = {"ours": ours(Path(folder)), "hello": hello()}
        spent: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(repeats + 1):
            for name, command in sides.items():
                took = seconds_to_initialize(command)
                if number:  # the first round fills the caches
                    spent[name].append(took)
        start = {name: statistics.median(values) for name, values in spent.items()}
        took = asyncio.run(calls(Path(folder), 4 * repeats))
    print("\n| | ours | hello world | |\n| --- | ---: | ---: | ---: |")
    ratio = start["ours"] / start["hello"]
    print(
        f"| process start to `initialize` answered, s | {start['ours']:.2f} | {start['hello']:.2f} "
        f"| **{ratio:.2f}x** |"
    )
    print("\n| | the call | the backend alone | added |\n| --- | ---: | ---: | ---: |")
    for title, suffix, count in (
        ("one call, ms", "", 1),
        (f"{AT_ONCE} calls at once, ms each", " at once", AT_ONCE),
    ):
        call, alone, greeting = (
            1000 * took[f"{name}{suffix}"] / count for name in ("ours", "backend", "hello")
        )
        print(f"| {title} | {call:.1f} | {alone:.1f} | **{call - alone:.1f}** |")
        print(f"| the same of hello world | {greeting:.1f} | | {greeting:.1f} |")


if __name__ == "__main__":
    main()
