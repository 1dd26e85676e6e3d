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
REQUEST = {"prompt": "a fox", "steps": 1}
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


Call = Callable[[int], Awaitable[None]]


async def medians(calls: dict[str, Call], repeats: int, at_once: int = 1) -> dict[str, float]:
    """Seconds of each call, or of so many at once; the sides take turns, and a first round is left out."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            await asyncio.gather(*(call(seed) for seed in range(at_once)))
            if number:
                spent[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in spent.items()}


def client(command: list[str]) -> Client:
    env = dict(os.environ)
    return Client(StdioServerParameters(command=command[0], args=command[1:], env=env))


async def calls(folder: Path, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a call, and of a hundred at once: of each side, and of the backend alone."""
    backend = FakeBackend()
    async with client(ours(folder)) as we, client(hello()) as they:

        async def draw(seed: int) -> None:
            answer = await we.call_tool("generate_image", REQUEST | {"seed": seed})
            assert not answer.is_error

        async def greet(_seed: int) -> None:
            await they.call_tool("hello", {"name": "fox"})

        async def alone(seed: int) -> None:
            await collect(backend.generate(parse_request(REQUEST | {"seed": seed})))

        sides: dict[str, Call] = {"ours": draw, "hello": greet, "backend": alone}
        return await medians(sides, 4 * repeats), await medians(sides, 3, AT_ONCE)


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
        one, many = asyncio.run(calls(Path(folder), repeats))
    print("\n| | ours | hello world | |\n| --- | ---: | ---: | ---: |")
    ratio = start["ours"] / start["hello"]
    print(
        f"| process start to `initialize` answered, s | {start['ours']:.2f} | {start['hello']:.2f} "
        f"| **{ratio:.2f}x** |"
    )
    print("\n| | the call | the backend alone | added |\n| --- | ---: | ---: | ---: |")
    for title, took, count in (
        ("one call, ms", one, 1),
        (f"{AT_ONCE} calls at once, ms each", many, AT_ONCE),
    ):
        call, alone, greeting = (1000 * took[name] / count for name in ("ours", "backend", "hello"))
        print(f"| {title} | {call:.1f} | {alone:.1f} | **{call - alone:.1f}** |")
        print(f"| the same of hello world | {greeting:.1f} | | {greeting:.1f} |")


if __name__ == "__main__":
    main()
