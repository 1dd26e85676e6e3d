"""`cygnet batch`: a file of prompts, a folder of pictures, and on again where it stopped."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, get_args

from shared.backends import Backend, find_backend
from shared.backends.config import read_backends
from shared.batch import LISTED, Batch, BatchOptions, Checked
from shared.batch.batch import CONCURRENCY
from shared.batch.names import DEFAULT
from shared.batch.progress import BatchProgress, Tally, describe, progress_for
from shared.batch.source import Kind
from shared.batch.table import NAME as TABLE
from shared.cli.ctrl_c import CtrlC
from shared.cli.parser import NUMBER, Commands, check_numbers
from shared.cli.request import FLAGS, add_backend_option, add_request_options, resolve_checkpoint
from shared.contract import SEED, Event, GenerationRequest, Limit, Step, clean_text
from shared.errors import BatchIncomplete, Cancelled
from shared.formats import IN_WORDS
from shared.settings import settings

_LIMITS = {
    "concurrency": Limit(1, 10_000),
    "limit": Limit(1, 1_000_000),
    "sample": Limit(1, 1_000_000),
    "batch_seed": SEED,
}

PRIORITY = 7
"""The urgency of a batch on a server: that of what nobody waits for (RFC 9218, section 4.1)."""


def add(commands: Commands) -> None:
    batch = commands.add_parser("batch", help="make the pictures of a file of prompts")
    batch.set_defaults(run=_batch)
    batch.add_argument("file", metavar="FILE", help="CSV, JSON Lines or plain text; - is stdin")
    add_backend_option(batch)
    add_batch_options(batch)


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """All but the file and the backend, which not every door has."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder")
    parser.add_argument("--dry-run", action="store_true", help="check every row, make nothing")
    parser.add_argument("--limit", **NUMBER, help="make at most so many pictures now")
    parser.add_argument(
        "--concurrency",
        default=CONCURRENCY,
        **NUMBER,
        help="pictures asked for at once (%(default)s)",
    )
    parser.add_argument("--kind", choices=get_args(Kind), help="what FILE is")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    group = parser.add_argument_group("templates", "{a|b}, {1..9}, and {style} for style.txt.")
    group.add_argument("--words", type=Path, metavar="DIR", help="wordlists (FILE's own folder)")
    group.add_argument("--sample", **NUMBER, help="of each row's combinations, so many")
    group.add_argument("--batch-seed", **NUMBER, help="samples and missing seeds follow it (0)")
    group.add_argument("--name", metavar="TEXT", help=f"of a file (default: {DEFAULT})")
    request = add_request_options(parser)
    request.add_argument("--format", dest="output_format", metavar="NAME", help=IN_WORDS)


def _batch(args: argparse.Namespace) -> None:
    name = args.backend or settings().backend
    open_backend = find_backend(name, priority=PRIORITY, named=bool(args.backend))
    args.checkpoint = args.checkpoint or read_backends().default_checkpoint(name)
    run_batch(batch_options(args), open_backend, dry_run=args.dry_run, quiet=args.quiet)


def run_batch(
    options: BatchOptions, open_backend: Callable[[], Backend], *, dry_run: bool, quiet: bool
) -> None:
    """Check the file, then make its pictures; what is shown goes to stderr.

    Raises `InvalidRequest` before anything is begun, `BatchIncomplete` if pictures failed,
    `Cancelled` on Ctrl-C.
    """
    with Batch(options) as batch:
        checked = batch.check()
        _refuse(checked)
        if dry_run:
            _print_plan(checked)
            return
        goal = checked.done + (options.limit or checked.pictures)
        tally = Tally(min(goal, checked.pictures), checked.done, checked.cost_usd)
        progress = progress_for(tally, quiet)
        if checked.damaged:
            progress.note(f"Damaged lines of the manifest: {checked.damaged:,}. The files count.")
        try:
            with progress, CtrlC(progress) as ctrl_c:
                asyncio.run(_run(batch, open_backend(), progress, ctrl_c))
        finally:
            failed = _list_failures(batch, checked.pictures)
        if failed:
            raise BatchIncomplete(
                f"{failed:,} of {checked.pictures:,} pictures failed.",
                f"Run the same command again to try them again; {options.out / TABLE} says why.",
            )
        print(options.out / TABLE)


async def _run(batch: Batch, backend: Backend, progress: BatchProgress, ctrl_c: CtrlC) -> None:
    async def generate(request: GenerationRequest) -> AsyncGenerator[Event, None]:
        async with aclosing(backend.generate(request)) as events:
            async for event in events:
                if isinstance(event, Step):
                    progress.tally.begin()
                yield event

    ctrl_c.cancels_this_task()
    try:
        await batch.run(generate, progress.show)
    except asyncio.CancelledError:
        raise Cancelled(
            f"Stopped: {progress.tally.done:,} of {progress.tally.total:,} pictures are there.",
            "Run the same command again: it goes on from here.",
        ) from None
    finally:
        await backend.aclose()


def batch_options(args: argparse.Namespace) -> BatchOptions:
    """What was given, checked. Raises `InvalidRequest`, naming the option."""
    given = {name: getattr(args, name, None) for name in GenerationRequest.model_fields}
    fields = {name: value for name, value in given.items() if value is not None}
    if name := fields.get("checkpoint"):
        fields["checkpoint"] = resolve_checkpoint(name)
    chosen: dict[str, Any] = {"name": args.name} | {name: getattr(args, name) for name in _LIMITS}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    check_numbers(chosen, _LIMITS)
    return BatchOptions(
        args.file,
        args.out,
        kind=args.kind,
        words=args.words,
        fields=fields,
        names=FLAGS,
        **chosen,
    )


def _refuse(checked: Checked) -> None:
    """Raises `InvalidRequest` if a row is wrong, after saying what is wrong with the first ones."""
    if not checked.refused:
        return
    first, *others = checked.refusals
    for error in others:
        print(f"{error.message} {error.next_step}", file=sys.stderr)
    if checked.refused > 1:
        first.next_step += f" In all {checked.refused:,} rows are wrong."
    raise first


def _print_plan(checked: Checked) -> None:
    """What would be made, and the first pictures of it."""
    print(f"{checked.pictures:,} pictures, {checked.done:,} of them there already.")
    for name, item in checked.first:
        print(f"{name}  {item.request.prompt}")
    if checked.pictures > len(checked.first):
        print("...")


def _list_failures(batch: Batch, pictures: int) -> int:
    """Name the first of the pictures that failed; how many did."""
    failed = 0
    for entry in batch.failures(pictures):
        failed += 1
        if failed <= LISTED:
            print(clean_text(f"Failed: {describe(entry)}"), file=sys.stderr)
    if failed > LISTED:
        print(f"... and {failed - LISTED:,} more", file=sys.stderr)
    return failed
