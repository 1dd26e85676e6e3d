"""The `cygnet` command: parse, resolve, run, save.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 2 bad input, 1 failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from shared import __version__, console
from shared.backends import Backend, find_backend
from shared.checkpoints import CHECKPOINTS, add_folder, get_checkpoint
from shared.contract import (
    Done,
    GenerationRequest,
    GenerationResult,
    ImageReady,
    number_from_text,
    parse_request,
)
from shared.errors import (
    Cancelled,
    CygnetError,
    GenerationError,
    InternalError,
    InvalidRequest,
    PackageMissing,
)
from shared.files import is_folder
from shared.images import Recipe, read_recipe
from shared.outputs import Outputs, format_of
from shared.settings import settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter gets its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with console.library_logs() as logs:
        try:
            args = _parser().parse_args(argv)
            args.run(args)
            sys.stdout.flush()
            return 0
        except KeyboardInterrupt:
            error: CygnetError = Cancelled("Stopped. No image was saved.", "Run the command again.")
        except CygnetError as known:
            error = known
        except BrokenPipeError:  # the reader of stdout has gone, and there is nobody to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as fault:
            error = InternalError(f"Something in Cygnet failed ({type(fault).__name__}).", "")
            error.__cause__ = fault
    if isinstance(error, InternalError):
        log = console.write_log(error, logs.getvalue())
        error.next_step = f"{error.next_step} Report it with {log}.".strip()
    console.print_error(error)
    return error.exit_code


def entry() -> NoReturn:
    """`main` as a process of its own, which leaves without taking the interpreter apart.

    Freeing what torch and diffusers hold, piece by piece, took 1.4 of 6.3 seconds; the system does
    it at once. By then every file is written and every backend closed.
    """
    code = main()
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    """Refuses in our form of error instead of with a page of usage."""

    def __init__(self, **options: Any) -> None:
        layout = functools.partial(argparse.HelpFormatter, max_help_position=28)
        super().__init__(**options, allow_abbrev=False, formatter_class=layout)

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="cygnet", description="A prompt in, a picture out.")
    parser.add_argument("--version", action="version", version=f"cygnet {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    generate = commands.add_parser("generate", help="make pictures")
    generate.set_defaults(run=_generate)
    _add_request_options(generate)
    _add_output_options(generate)

    checkpoints = commands.add_parser("checkpoints", help="list the weights that can be used")
    checkpoints.add_argument("--json", action="store_true", help="print JSON")
    checkpoints.set_defaults(run=_checkpoints)

    serve = commands.add_parser("serve", help="answer over HTTP, OpenAI's clients included")
    serve.set_defaults(run=_serve)
    _add_serve_options(serve)

    inspect = commands.add_parser("inspect", help="print how a picture was made")
    inspect.add_argument("file", type=Path, metavar="FILE", help="PNG, WebP or JPEG")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)
    return parser


def _add_request_options(parser: argparse.ArgumentParser) -> None:
    """The fields of a request, under their own names; `parse_request` checks what they hold."""
    group = parser.add_argument_group("request", "What is left out, the checkpoint fills in.")
    number: Any = {"type": number_from_text, "metavar": "N"}
    group.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to draw")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what to avoid")
    group.add_argument("--width", **number, help="pixels")
    group.add_argument("--height", **number, help="pixels")
    group.add_argument("--steps", **number, help="denoising steps, 1 to 100")
    group.add_argument("--guidance-scale", **number, help="0 to 20; above 1 uses what to avoid")
    group.add_argument("--seed", **number, help="the same seed makes the same picture")
    group.add_argument("--num-images", **number, help="1 to 16; their seeds count up")
    group.add_argument("--checkpoint", metavar="NAME", help="or a folder in diffusers' format")
    group.add_argument("--scheduler", metavar="NAME", help="unipc, euler or lcm")
    group.add_argument("--from", dest="source", type=Path, metavar="FILE", help=_FROM_HELP)


_FROM_HELP = "take the request out of a picture; other options change it"


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", default="outputs", metavar="PATH", help="file or folder (default: outputs)"
    )
    group.add_argument(
        "--format", dest="output_format", metavar="NAME", help="png, webp or jpeg (default: png)"
    )
    group.add_argument("--force", action="store_true", help="replace files that exist")
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    group.add_argument("--quiet", action="store_true", help="show no progress")
    group.add_argument(
        "--backend",
        default="local",
        metavar="NAME",
        help="what draws: local (default), api or fake",
    )


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    number: Any = {"type": number_from_text, "metavar": "N"}
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="address (default: this machine only)"
    )
    parser.add_argument("--port", default=8000, **number, help="0 takes a free one (default: 8000)")
    parser.add_argument("--max-queued", default=64, **number, help="jobs that may wait (64)")
    parser.add_argument("--keep-days", default=30, **number, help="how long images are kept (30)")
    parser.add_argument("--keep-gib", default=10, **number, help="how much of them is kept (10)")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="lets web pages from there call",
    )
    parser.add_argument(
        "--backend", default="local", metavar="NAME", help="what draws: local (default) or fake"
    )


def _serve(args: argparse.Namespace) -> None:
    try:
        from shared import serving
    except ImportError as error:
        raise PackageMissing(
            f"Serving needs a package that is not installed: {error.name}.",
            "Install it with: pip install 'cygnet[serve]'",
        ) from error
    serving.serve(serving.read_options(vars(args)))


def _generate(args: argparse.Namespace) -> None:
    open_backend = find_backend(args.backend)
    request, remarks = _request(args)
    outputs = Outputs(args.out, request, force=args.force)
    report: dict[str, Any] = {"images": outputs.saved}
    progress = console.progress_for(request, args.quiet)
    if args.quiet:  # the Hub's own bars; its client reads this when it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with progress:
            for remark in remarks:
                progress.note(remark)
            with _CtrlC(progress) as ctrl_c:
                run = _run(open_backend(), outputs, progress, ctrl_c, echo=not args.json)
                result = asyncio.run(run)
        progress.note(console.summary(result))
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
    if name := fields.get("checkpoint") or (not args.source and settings().checkpoint):
        fields["checkpoint"] = _resolve_checkpoint(name)
    suffix_format = format_of(args.out)
    if suffix_format and fields.setdefault("output_format", suffix_format) != suffix_format:
        raise InvalidRequest(
            f"--out {args.out} is {suffix_format}, but --format is {args.output_format}.",
            "Give one of the two.",
            ("output_format",),
        )
    recipe = _read(args.source) if args.source else Recipe("cygnet", {})
    request = parse_request(recipe.fields | fields)
    return request, _remarks(recipe if args.source else None, request)


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


def _resolve_checkpoint(name: str) -> str:
    """A known name as it is; a folder is made known first."""
    known = {checkpoint.name for checkpoint in CHECKPOINTS}
    looks_like_path = os.sep in name or name.startswith((".", "~")) or is_folder(name)
    return add_folder(Path(name)).name if name not in known and looks_like_path else name


async def _run(
    backend: Backend, outputs: Outputs, progress: console.Progress, ctrl_c: _CtrlC, echo: bool
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


class _CtrlC:
    """The first Ctrl-C cancels the task that gave itself up to it; the second leaves at once."""

    def __init__(self, progress: console.Progress) -> None:
        self._progress = progress
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> _CtrlC:
        self._previous = signal.signal(signal.SIGINT, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def cancels_this_task(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            self._progress.note("Stopping at the next step; Ctrl-C again leaves at once.")
            if task:
                task.cancel()

        self._cancel = functools.partial(loop.call_soon_threadsafe, stop)

    def _first(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._second)
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()

    def _second(self, *_: object) -> NoReturn:
        self._progress.__exit__()  # gives the terminal its cursor back
        os._exit(1)  # threads that still compute would hold up any other way out


def _checkpoints(args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([console.checkpoint_facts(row) for row in CHECKPOINTS], indent=2))
    else:
        console.print_checkpoints()


def _inspect(args: argparse.Namespace) -> None:
    recipe = _read(args.file)
    if args.json:
        print(json.dumps(dataclasses.asdict(recipe), indent=2))
    else:
        console.print_recipe(recipe)


def _read(path: Path) -> Recipe:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; the error line says it
        return read_recipe(path)


if __name__ == "__main__":
    entry()
