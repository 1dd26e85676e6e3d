"""`cygnet backends`: where pictures can be made, and how it is there now."""

from __future__ import annotations

import argparse
import asyncio
import json
import textwrap

from shared.backends import find_backend
from shared.backends.config import ADDRESS_VARIABLES, AUTO, read_backends
from shared.backends.router import BackendRow
from shared.cli.parser import Commands
from shared.prices import dollars
from shared.settings import config_file

_COLUMNS = "{:>2} {:<20} {:<6} {:<5} {:>9} {:>9}  {}"

_ELSEWHERE = {"api": "a cygnet serve", "modal": "your deployment", "space": "a Space"}
"""What stands at the address of each kind, as docs/backends.md explains them."""


def add(commands: Commands) -> None:
    backends = commands.add_parser("backends", help="list what can draw, and how it is now")
    backends.add_argument("--json", action="store_true", help="print JSON")
    backends.set_defaults(run=_backends)


def _backends(args: argparse.Namespace) -> None:
    rows = asyncio.run(_statuses())
    if args.json:
        print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
    else:
        _print(rows)


async def _statuses() -> list[BackendRow]:
    router = find_backend(AUTO)()
    try:
        return await router.statuses()
    finally:
        await router.aclose()


def _print(rows: list[BackendRow]) -> None:
    """In 80 columns: a line of facts each, and then words."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=80)
    titles = ("", "BACKEND", "KIND", "STATE", "WAIT", "A PICTURE", "CHECKPOINT")
    console.print(Text(_COLUMNS.format(*titles), style="dim"))
    for row in rows:
        facts = _COLUMNS.format(
            row.rank or "",
            row.name,
            row.kind,
            _state(row),
            "?" if row.wait_seconds is None else f"{row.wait_seconds:.1f} s",
            "?" if row.price_usd is None else dollars(row.price_usd),
            row.checkpoint,
        )
        console.print(Text.assemble(facts[:3], (facts[3:23], "bold"), facts[23:]), soft_wrap=True)
        for words in filter(None, (row.detail, ", ".join(row.checkpoints))):
            for line in textwrap.wrap(words, 77, break_long_words=False):
                console.print(Text(f"   {line}", style="dim"), soft_wrap=True)
    known = read_backends().known
    for kind, variable in ADDRESS_VARIABLES.items():
        if not known[kind].address and all(row.kind != kind for row in rows):
            missing = f"   {kind:<8} not set up: {variable} is the address of {_ELSEWHERE[kind]}"
            console.print(Text(missing, style="dim"), soft_wrap=True)
    where = f"Numbered as auto prefers them among equals. More of them: {config_file()}"
    console.print(Text(where, style="dim"), soft_wrap=True)


def _state(row: BackendRow) -> str:
    if not row.healthy:
        return "down"
    return "warm" if row.warm else "cold"
