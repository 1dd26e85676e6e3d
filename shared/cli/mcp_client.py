"""`cygnet mcp tools` and `cygnet mcp call`: a client to try an MCP server with, this one or another."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from shared import console
from shared.cli.ctrl_c import CtrlC
from shared.contract import clean_text
from shared.errors import Cancelled
from shared.packages import needed
from shared.settings import secret

if TYPE_CHECKING:
    from shared.mcp.client import Answer, Target

_OPTIONS = ("--save", "--quiet", "--server", "--key-variable", "--json")
"""Those of `call`, which people put after the tool's name too."""


def add(mcp: argparse.ArgumentParser) -> None:
    actions = mcp.add_subparsers(metavar="ACTION", title="try a server instead")
    tools = actions.add_parser("tools", help="list what it offers")
    tools.set_defaults(run=_tools)
    call = actions.add_parser("call", help="call a tool, and save its pictures")
    call.set_defaults(run=_call)
    call.add_argument("tool", metavar="TOOL", help="such as generate_image")
    call.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="--NAME VALUE",
        help="its arguments, after all other options",
    )
    call.add_argument(
        "--save", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: outputs"
    )
    call.add_argument("--quiet", action="store_true", help="show no progress")
    for action in (tools, call):
        action.add_argument(
            "--server", metavar="URL", help="or a command; default: this one, over stdio"
        )
        action.add_argument(
            "--key-variable", metavar="NAME", help="variable that holds the key for the URL"
        )
        action.add_argument("--json", action="store_true", help="print JSON")


def _tools(args: argparse.Namespace) -> None:
    with needed("MCP", "mcp"):
        from shared.mcp.client import list_tools

    tools = asyncio.run(list_tools(_target(args)))
    if args.json:
        print(json.dumps(tools, indent=2))
        return
    for tool in tools:
        print(f"{tool['name']}  {tool.get('title', '')}")
        for line in tool.get("description", "").splitlines():
            print(f"  {line}")
        print(f"  takes {', '.join(tool['inputSchema'].get('properties', {})) or 'nothing'}\n")


def _call(args: argparse.Namespace) -> None:
    with needed("MCP", "mcp"):
        from shared.mcp.client import call

    async def follow() -> Answer:
        ctrl_c.cancels_this_task()
        try:
            return await call(
                _target(args), args.tool, args.words, args.save, progress.show, _OPTIONS
            )
        except asyncio.CancelledError:
            raise Cancelled("Stopped.", "Call it again.") from None

    with CallProgress(args.tool, args.quiet) as progress, CtrlC(progress) as ctrl_c:
        answer = asyncio.run(follow())
    if args.json:
        files = [str(path) for path in answer.files]
        print(json.dumps({"answer": answer.data, "text": answer.text, "files": files}, indent=2))
    elif answer.files:
        progress.note(answer.text)
        print(*answer.files, sep="\n")
    else:
        print(json.dumps(answer.data, indent=2) if answer.data else answer.text)


class CallProgress:
    """How far a call is, in place on a terminal; nothing of it anywhere else."""

    def __init__(self, tool: str, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console = console.stderr()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # else what is printed for a pipe would land on stderr
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(f"Calling {tool}", total=None)

    def __enter__(self) -> CallProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: float, total: float | None, said: str) -> None:
        self._bar.update(self._task, completed=done, total=total, description=clean_text(said))

    def note(self, text: str) -> None:
        self._console.print(clean_text(text), markup=False, highlight=False, soft_wrap=True)


def _target(args: argparse.Namespace) -> Target:
    """The server to call: at an address, behind a command, or this one."""
    from shared.mcp.client import THIS_SERVER, Target

    server = args.server or ""
    if server.startswith(("http://", "https://")):
        return Target(address=server, key=secret(args.key_variable) if args.key_variable else "")
    backend = ["--backend", args.backend] if args.backend else []
    return Target(command=shlex.split(server) or [*THIS_SERVER, *backend])
