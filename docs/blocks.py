"""Fills the marked blocks of README.md and docs/ from data, so that they cannot drift.

`python -m docs.blocks` writes them. A block lies between `<!-- name -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from shared.checkpoints import CHECKPOINTS
from shared.cli.command import parser
from shared.prices import CORE_SECOND, GIB_SECOND, GPU_SECOND, PRICES_OF

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BENCHMARK = ROOT / "benchmarks" / "local.md"


def checkpoints() -> str:
    """The table of checkpoints."""
    lines = [
        "| checkpoint | what it is | size | steps | guidance | weights | licence |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in CHECKPOINTS:
        licence = row.licence.name + ("" if row.licence.verified else " (unverified)")
        lines.append(
            f"| `{row.name}` | {row.description} | {row.width}×{row.height} | {row.steps} "
            f"| {row.guidance_scale:g} | {row.memory_gib:g} GiB | {licence} |"
        )
    return "\n".join(lines)


def licences() -> str:
    """What is known of each checkpoint's origin and terms."""
    lines = ["| checkpoint | from | licence | |", "| --- | --- | --- | --- |"]
    for row in CHECKPOINTS:
        origin = "this repository"
        if row.repository:
            origin = _at(row.repository, row.revision)
        if row.lora and row.lora.repository:
            origin += f", {_at(row.lora.repository, row.lora.revision)}"
        licence = row.licence.name + ("" if row.licence.verified else " (unverified)")
        lines.append(f"| `{row.name}` | {origin} | {licence} | {row.licence.note} |")
    return "\n".join(lines)


def _at(repository: str, revision: str | None) -> str:
    return f"`{repository}` at {f'`{revision[:12]}`' if revision else '*unpinned*'}"


def prices() -> str:
    """What Modal's machines cost, by the second and by the hour."""
    lines = [
        f"As of {PRICES_OF}, in US dollars:",
        "",
        "| what | a second | an hour |",
        "| --- | ---: | ---: |",
    ]
    rows = GPU_SECOND | {"a core": CORE_SECOND, "a GiB of memory": GIB_SECOND}
    for what, second in rows.items():
        lines.append(f"| {what} | {second:.8f}".rstrip("0") + f" | {second * 3600:.3f} |")
    return "\n".join(lines)


def benchmark() -> str:
    """The machine and the first table of the last benchmark run."""
    head, _, rest = BENCHMARK.read_text().partition("\n\n")
    first = rest.split("\n\n`")[0].strip()
    return f"{head}\n\n{first}"


def batch() -> str:
    """The last run of the benchmark of batches."""
    return (ROOT / "benchmarks" / "batch.md").read_text().strip()


def page_benchmark() -> str:
    """The last run of benchmarks.page."""
    return (ROOT / "benchmarks" / "page.md").read_text().strip()


def help_pages() -> str:
    """What `--help` says of the command and of each of its subcommands, 80 columns wide."""
    with mock.patch.dict(os.environ, COLUMNS="80", NO_COLOR="1"):
        pages = [f"## {one.prog}\n\n```text\n{one.format_help()}```" for one in _parsers(parser())]
    return "\n\n".join(pages)


def _parsers(root: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser, and those of its subcommands, in the order of its help page."""
    yield root
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subcommand in action.choices.values():
                yield from _parsers(subcommand)


def mcp() -> str:
    """What the benchmark of the MCP server printed last."""
    return (ROOT / "benchmarks" / "mcp.md").read_text().strip()


BLOCKS: dict[str, Callable[[], str]] = {
    "checkpoints": checkpoints,
    "licences": licences,
    "benchmark": benchmark,
    "page_benchmark": page_benchmark,
    "prices": prices,
    "batch": batch,
    "help": help_pages,
    "mcp": mcp,
}


def filled(text: str) -> str:
    """A page with its blocks written anew."""
    return re.sub(
        r"<!-- (\w+) -->.*?<!-- /\1 -->",
        lambda found: f"<!-- {found[1]} -->\n{BLOCKS[found[1]]()}\n<!-- /{found[1]} -->",
        text,
        flags=re.S,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
