"""The `cygnet` command. Each subcommand is a file here with `add(commands)`."""

from shared.cli.command import entry, main

__all__ = ["entry", "main"]
