"""What the subcommands' parsers share."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Refuses in our form of error instead of with a page of usage, and says what may be meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False, formatter_class=_Layout)

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}.", f"See {self.prog} --help.")

    def add_commands(self, metavar: str, **options: Any) -> Commands:
        """Where subcommands are added; without one of them the command shows its help."""
        self.set_defaults(run=lambda _: self.print_help())
        return self.add_subparsers(metavar=metavar, **options)

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As argparse's, but what is left over is refused by the command that it was given to."""
        parsed, rest = super().parse_known_args(*args, **options)
        if rest:
            self._refuse(rest, parsed)
        return parsed, rest

    def _refuse(self, rest: Sequence[str], parsed: argparse.Namespace) -> NoReturn:
        if dashed := [word for word in rest if word.startswith("-") and word != "--"]:
            name = dashed[0].partition("=")[0]
            raise InvalidRequest(
                f"{self.prog} has no option {name[:60]}.",
                self._suggestion(name, self._option_string_actions),
            )
        words = " ".join([getattr(parsed, "prompt", None) or "", *rest]).strip()
        if hasattr(parsed, "prompt"):
            raise InvalidRequest(
                "The prompt is more than one word, and has no quotes around it.",
                f"Put it in quotes: {self.prog} {shlex.quote(words)}",
            )
        raise InvalidRequest(
            f"{self.prog} does not take {words[:60]!r}.", f"See {self.prog} --help."
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A subcommand that there is none of; argparse would list all of them."""
        if not isinstance(action, argparse._SubParsersAction) or value in action.choices:
            super()._check_value(action, value)
        elif len(value.split()) > 1 and "generate" in action.choices:
            raise InvalidRequest(
                f"{value[:60]!r} is no command.",
                f"To draw it: {self.prog} generate {shlex.quote(value)}",
            )
        else:
            example = f', or draw with: {self.prog} generate "a red fox"'
            raise InvalidRequest(
                f"{self.prog} has no command {value[:60]!r}.",
                self._suggestion(
                    value, action.choices, example if "generate" in action.choices else "."
                ),
            )

    def _suggestion(self, word: str, known: Iterable[str], else_also: str = ".") -> str:
        near = difflib.get_close_matches(word, known, n=1)
        return f"Did you mean {near[0]}?" if near else f"See {self.prog} --help{else_also}"


def complete(action: argparse.Action, values: Callable[[], Iterable[str]]) -> None:
    """Let a shell complete an option with these; they are found when it asks."""
    vars(action)["completer"] = lambda **_: values()  # where argcomplete looks for it


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
