"""The `cygnet` command: parse, resolve, run, save.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 2 bad input, 1 failure.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from shared import __version__, console
from shared.cli import (
    backends,
    batch,
    checkpoints,
    completion,
    gallery,
    generate,
    inspect,
    mcp,
    serve,
    space,
)
from shared.cli.parser import Parser
from shared.errors import Cancelled, CygnetError, InternalError

COMMANDS = (generate, batch, gallery, checkpoints, backends, serve, mcp, space, inspect, completion)
"""In the order of the help page."""


_UNSAYABLE = "cygnet-unsayable"


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    """A letter that a stream lacks becomes its number; a byte of a file's name stays what it is, so
    that who reads our output finds the file."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    start = error.start
    letter = UnicodeEncodeError(error.encoding, error.object, start, start + 1, error.reason)
    with contextlib.suppress(UnicodeError):
        return codecs.lookup_error("surrogateescape")(letter)
    return codecs.lookup_error("backslashreplace")(letter)


codecs.register_error(_UNSAYABLE, _as_it_is)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter gets its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_UNSAYABLE)
    with console.library_logs() as logs:
        try:
            args = parser().parse_args(argv)
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


def entry(argv: Sequence[str] | None = None) -> NoReturn:
    """`main` as a process of its own, which leaves without taking the interpreter apart.

    Freeing what torch and diffusers hold, piece by piece, took 1.4 of 6.3 seconds; the system does
    it at once. By then every file is written and every backend closed.
    """
    completion.answer(parser())
    code = main(argv)
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def parser() -> Parser:
    """The whole command line."""
    whole = Parser(prog="cygnet", description="A prompt in, a picture out.")
    whole.add_argument("--version", action="version", version=f"cygnet {__version__}")
    commands = whole.add_commands("COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return whole
