"""What the subcommands' parsers share."""

from __future__ import annotations

import argparse
import functools
from typing import Any, NoReturn, TypeAlias

from shared.contract import number_from_text
from shared.errors import InvalidRequest

NUMBER: Any = {"type": number_from_text, "metavar": "N"}
"""For an option that takes a number; what it may be is checked with the rest of the request."""


class Parser(argparse.ArgumentParser):
    """Refuses in our form of error instead of with a page of usage."""

    def __init__(self, **options: Any) -> None:
        layout = functools.partial(argparse.HelpFormatter, max_help_position=28)
        super().__init__(**options, allow_abbrev=False, formatter_class=layout)

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a subcommand adds its own parser to."""
