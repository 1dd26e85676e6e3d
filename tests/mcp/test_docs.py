"""docs/mcp.md: its commands run, and its snippets start the server."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.mcp.conftest import ROOT, http_client
from tests.mcp.test_checkers import served
from tests.test_docs import code

pytestmark = pytest.mark.anyio

PAGE = ROOT / "docs/mcp.md"
DOOR = ".venv/bin/python mcp_client_server.py "
SNIPPETS = [json.loads(block) for block in code(PAGE, "json")]
README = [json.loads(block) for block in code(ROOT / "README.md", "json")]


def server_of(snippet: dict[str, Any]) -> dict[str, Any]:
    [kind] = snippet
    return snippet[kind]["cygnet"]


def test_there_is_a_snippet_for_each_client() -> None:
    kinds = [(*snippet, server_of(snippet).get("type")) for snippet in SNIPPETS]
    local = [("mcpServers", None), ("mcpServers", "stdio"), ("mcpServers", None)]
    assert kinds == [*local, ("servers", "stdio"), ("mcpServers", "http")]
    assert len(README) == 1


@pytest.mark.parametrize(
    "snippet", [row for row in SNIPPETS + README if "command" in server_of(row)]
)
async def test_a_snippet_starts_the_server(snippet: dict[str, Any], tmp_path: Path) -> None:
    server = server_of(snippet)
    assert server["command"] == "/path/to/cygnet/.venv/bin/python"
    args = [word.replace("/path/to/cygnet", str(ROOT)) for word in server["args"]]
    env = server.get("env", {}) | {"CYGNET_DATA_DIR": str(tmp_path)}
    started = StdioServerParameters(command=sys.executable, args=args, env=env, cwd=tmp_path)
    async with Client(started) as client:
        assert len((await client.list_tools()).tools) == 7


async def test_the_snippet_for_http_reaches_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_API_KEY", "a-long-one")
    server = server_of(SNIPPETS[-1])
    key = os.path.expandvars(server["headers"]["Authorization"]).removeprefix("Bearer ")
    with served(tmp_path) as url:
        assert url.rpartition("/")[2] == server["url"].rpartition("/")[2]
        async with http_client(url, key=key) as client:
            assert (await client.list_tools()).tools


def test_the_first_call_on_the_page_draws_a_picture(tmp_path: Path) -> None:
    lines = "".join(code(PAGE, "sh")).splitlines()
    [command] = [line for line in lines if line.startswith(f"{DOOR}call generate_image")]
    words = shlex.split(command.removeprefix(DOOR))
    ran = subprocess.run(
        [sys.executable, str(ROOT / "mcp_client_server.py"), *words],
        cwd=tmp_path,
        env=os.environ | {"CYGNET_BACKEND": "fake", "CYGNET_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / ran.stdout.strip()).is_file()
