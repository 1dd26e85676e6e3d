"""What the subcommands' parsers share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

from shared.contract import Limit
from shared.errors import InvalidRequest
from shared.numbers import number_from_text

NUMBER: Any = {"type": number_from_text, "metavar": "N"}
"""For an option that takes a number; what it may be is checked with the rest of the request."""


def text(given: str) -> str:
    """What stands on the command line, in UTF-8 whatever the locale claims; else as it is."""
    try:
        return os.fsencode(given).decode("utf-8")
    except UnicodeError:
        return given


class _Layout(argparse.HelpFormatter):
    """Leaves room for the names of subcommands, whose indent argparse forgets to count."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            longest = max(map(len, action.choices)) + 2 * self._indent_increment
            self._action_max_length = max(self._action_max_length, longest)


class Parser(argparse.ArgumentParser):
    """Refuses in our form of error instead of with a page of usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, formatter_class=_Layout)

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")


def check_numbers(given: Mapping[str, Any], limits: Mapping[str, Limit]) -> None:
    """Raises `InvalidRequest` for the first option that was given and is not within its limit."""
    for name, limit in limits.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, str) or not limit.allows(value):
            option = f"--{name.replace('_', '-')}"
            raise InvalidRequest(
                f"{option} {str(value)[:60]} is not {limit}.",
                f"Give {limit} for {option}.",
                (name,),
            )


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a subcommand adds its own parser to."""
