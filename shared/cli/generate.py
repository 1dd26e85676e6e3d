"""`cygnet generate`: one request, its pictures saved as they come."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from shared import console
from shared.backends import Backend, find_backend
from shared.backends.config import AUTO, read_backends
from shared.checkpoints import get_checkpoint
from shared.cli.ctrl_c import CtrlC
from shared.cli.parser import Commands, complete, text
from shared.cli.request import FLAGS, add_backend_option, add_request_options, resolve_checkpoint
from shared.contract import Done, GenerationRequest, GenerationResult, ImageReady, parse_request
from shared.errors import Cancelled, CygnetError, GenerationError, InternalError, InvalidRequest
from shared.formats import FORMATS, IN_WORDS
from shared.images import Recipe, read_recipe
from shared.outputs import Outputs, format_of
from shared.settings import settings


def add(commands: Commands) -> None:
    generate = commands.add_parser("generate", help="make pictures")
    generate.set_defaults(run=_generate)
    generate.add_argument("prompt", nargs="?", type=text, metavar="PROMPT", help="what to draw")
    group = add_request_options(generate)
    group.add_argument("--from", dest="source", type=Path, metavar="FILE", help=_FROM_HELP)
    _add_output_options(generate)


_FROM_HELP = "take the request out of a picture; other options change it"


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", default="outputs", metavar="PATH", help="file or folder (default: outputs)"
    )
    formats = group.add_argument(
        "--format", dest="output_format", metavar="NAME", help=f"{IN_WORDS} (default: {FORMATS[0]})"
    )
    complete(formats, lambda: FORMATS)
    group.add_argument("--force", action="store_true", help="replace files that exist")
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("--quiet", action="store_true", help="show no progress")
    add_backend_option(group)


def _generate(args: argparse.Namespace) -> None:
    named = bool(args.backend)
    args.backend = args.backend or settings().backend
    open_backend = find_backend(args.backend, named=named)
    request, remarks = _request(args)
    outputs = Outputs(args.out, request, force=args.force)
    report: dict[str, Any] = {"images": outputs.saved}
    progress = console.progress_for(request, args.quiet)
    if args.quiet:  # the Hub's own bars; its client reads this when it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with CtrlC(progress) as ctrl_c:
            backend = open_backend()  # what it lacks is said before anything seems to begin
            with progress:
                for remark in remarks:
                    progress.note(remark)
                run = _run(backend, outputs, progress, ctrl_c, echo=not args.json)
                result = asyncio.run(run)
        progress.note(console.summary(result))
        for remark in result.remarks:
            progress.remark(remark)
        if args.backend == AUTO:
            progress.note(f"Drawn by {result.backend}: {result.backend_reason}")
        report["result"] = result.model_dump(mode="json")
    except CygnetError as error:
        if progress.steps_done and isinstance(error, GenerationError):
            error.next_step += f" With --seed {request.seed} the same pictures come again."
        fields = {"code": error.code, "message": error.message, "next_step": error.next_step}
        report["error"] = fields
        raise
    finally:
        if args.json:
            print(json.dumps(report, indent=2))


def _request(args: argparse.Namespace) -> tuple[GenerationRequest, list[str]]:
    """The whole request, and what the user should know of how it came about."""
    given = {name: getattr(args, name) for name in GenerationRequest.model_fields}
    fields = {name: value for name, value in given.items() if value is not None}
    if name := fields.get("checkpoint") or (not args.source and _default_checkpoint(args)):
        fields["checkpoint"] = resolve_checkpoint(name)
    suffix_format = format_of(args.out)
    if suffix_format and fields.setdefault("output_format", suffix_format) != suffix_format:
        raise InvalidRequest(
            f"--out {args.out} is {suffix_format}, but --format is {args.output_format}.",
            "Give one of the two.",
            ("output_format",),
        )
    recipe = read_recipe(args.source) if args.source else Recipe("cygnet", {})
    request = parse_request(recipe.fields | fields, FLAGS)
    return request, _remarks(recipe if args.source else None, request)


def _default_checkpoint(args: argparse.Namespace) -> str:
    return read_backends().default_checkpoint(args.backend)


def _remarks(recipe: Recipe | None, request: GenerationRequest) -> list[str]:
    remarks = []
    if request.negative_prompt and request.guidance_scale <= 1:
        remarks.append("What to avoid has no effect: guidance_scale is not above 1.")
    if recipe is None:
        return remarks
    if recipe.ignored:
        unused = ", ".join(f"{name}: {value}" for name, value in recipe.ignored.items())
        remarks.append(f"Not used: {unused}")
    revision = get_checkpoint(request.checkpoint).revision
    if recipe.writer == "cygnet" and recipe.revision != revision:
        remarks.append(
            f"The picture was made with revision {recipe.revision or 'unpinned'} of "
            f"{request.checkpoint}, this is {revision or 'unpinned'}: it may look different."
        )
    return remarks


async def _run(
    backend: Backend, outputs: Outputs, progress: console.Progress, ctrl_c: CtrlC, echo: bool
) -> GenerationResult:
    """Follow the events to their end, saving each image as it comes."""
    started = time.monotonic()
    ctrl_c.cancels_this_task()
    try:
        async with contextlib.aclosing(backend.generate(progress.request)) as events:
            async for event in events:
                progress.show(event)
                if isinstance(event, ImageReady):
                    path = outputs.save(event)
                    if echo:
                        with progress.paused():
                            seconds = time.monotonic() - started
                            print(f"{path}  seed {event.seed}  {seconds:.1f} s", flush=True)
                elif isinstance(event, Done):
                    return event.result
        raise InternalError("The backend stopped before the work was done.", "Try again.")
    except asyncio.CancelledError:
        raise Cancelled(
            f"Stopped at step {progress.steps_done} of {progress.all_steps}. {outputs.count}.",
            "Run the command again.",
        ) from None
    finally:
        await backend.aclose()
