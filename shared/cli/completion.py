"""`cygnet completion`: what makes a shell complete the command when the Tab key is pressed."""

from __future__ import annotations

import argparse
import os

from shared.cli.parser import Commands, Parser

SHELLS = ("bash", "zsh", "fish")


def add(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="print what makes a shell complete this command",
        description="Prints a script for the shell: eval or source it where the shell starts.",
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(run=_print)


def _print(args: argparse.Namespace) -> None:
    import argcomplete

    print(argcomplete.shellcode(["cygnet"], shell=args.shell))


def answer(parser: Parser) -> None:
    """Say what may come next and leave, if a shell is what called; else do nothing."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")
