"""Templates: `{a|b|c}` choices, `{style}` from a wordlist, `{1..9..2}` ranges; choices nest.

A template is counted before any text is made, and each text has an index, so that neither a product
of a billion nor a sample of it takes memory. `\\{`, `\\|`, `\\}` and `\\\\` stand for themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from shared.errors import InvalidRequest

MAX_TEMPLATE = 20_000
MAX_DEPTH = 10

Words = Callable[[str], Sequence[str]]
"""The wordlist of a name. Raises `InvalidRequest` if there is none."""

_SPECIAL = re.compile(r"[{}\\]")
_SIGN = re.compile(r"[{}|\\]")
_TOKEN = re.compile(r"\\[{}|\\]|[{}|\\]|[^{}|\\]+")
_NUMBER = r"(-?\d{1,17}(?:\.\d{1,6})?)"
_RANGE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}(?:\.\.{_NUMBER})?", flags=re.ASCII)
_NAME = re.compile(r"[A-Za-z][\w-]{0,59}", flags=re.ASCII)


@dataclass(frozen=True)
class Pattern:
    """What a template can become: `count` texts, and the one `at` an index from 0."""

    count: int
    at: Callable[[int], str]


def is_template(text: str) -> bool:
    """Whether anything in `text` means more than itself."""
    return bool(_SPECIAL.search(text))


def parse(text: str, words: Words) -> Pattern:
    """The pattern of a template. Raises `InvalidRequest`."""
    if not is_template(text):
        return _text(text)
    if len(text) > MAX_TEMPLATE:
        raise _refuse(f"a template of {len(text)} characters", f"Keep to {MAX_TEMPLATE}.")
    levels: list[list[list[Pattern]]] = [[[]]]
    """The braces that are open, the options in each, the parts of each option."""
    for token in _TOKEN.findall(text):
        options = levels[-1]
        if token == "{":
            if len(levels) > MAX_DEPTH:
                raise _refuse(f"braces {MAX_DEPTH + 1} deep", f"Keep to {MAX_DEPTH}.")
            levels.append([[]])
        elif token == "|" and len(levels) > 1:
            options.append([])
        elif token == "}":
            if len(levels) == 1:
                raise _refuse("a } without its {", "Write \\} for a brace as text.")
            levels[-2][-1].append(_braces(levels.pop(), words))
        else:
            options[-1].append(_text(token[-1] if token[0] == "\\" else token))
    if len(levels) > 1:
        raise _refuse("a { without its }", "Write \\{ for a brace as text.")
    return _sequence(levels[0][0])


def escape(text: str) -> str:
    """The template that becomes exactly `text`."""
    return _SIGN.sub(r"\\\g<0>", text)


def product(patterns: dict[str, Pattern]) -> int:
    """How many ways there are to take one text of each."""
    return math.prod(pattern.count for pattern in patterns.values())


def pick(patterns: dict[str, Pattern], index: int) -> dict[str, str]:
    """One of the ways, the last pattern changing fastest."""
    texts = {}
    for name in reversed(patterns):
        index, digit = divmod(index, patterns[name].count)
        texts[name] = patterns[name].at(digit)
    return {name: texts[name] for name in patterns}


def figure(count: int) -> str:
    """A count in words, however large."""
    return f"{count:,}" if count < 10**15 else f"about 10^{math.log10(count):.0f}"


def _braces(options: list[list[Pattern]], words: Words) -> Pattern:
    if len(options) > 1:
        return _choice([_sequence(parts) for parts in options])
    [parts] = options
    inside = "".join(part.at(0) for part in parts if part.count == 1)
    if len(parts) == 1 and (numbers := _RANGE.fullmatch(inside)):
        return _numbers(*(Decimal(number) for number in numbers.groups("1")))
    if len(parts) == 1 and _NAME.fullmatch(inside):
        listed = words(inside)
        return Pattern(len(listed), listed.__getitem__)
    raise _refuse(
        f"{{{inside[:60]}}}, which is no choice, range or wordlist",
        "Write {a|b}, {1..9} or {name}; \\{ for a brace as text.",
    )


def _text(text: str) -> Pattern:
    return Pattern(1, lambda _: text)


def _sequence(parts: list[Pattern]) -> Pattern:
    if len(parts) == 1:
        return parts[0]
    named = {str(number): part for number, part in enumerate(parts)}
    return Pattern(product(named), lambda index: "".join(pick(named, index).values()))


def _choice(options: list[Pattern]) -> Pattern:
    def at(index: int) -> str:
        for option in options:
            if index < option.count:
                return option.at(index)
            index -= option.count
        raise IndexError(index)

    return Pattern(sum(option.count for option in options), at)


def _numbers(first: Decimal, last: Decimal, step: Decimal) -> Pattern:
    if step <= 0:
        raise _refuse(f"a range with the step {step}", "Give a step above 0.")
    step = step if first <= last else -step
    return Pattern(int((last - first) // step) + 1, lambda index: f"{first + index * step:f}")


def _refuse(what: str, next_step: str) -> InvalidRequest:
    return InvalidRequest(f"there is {what}.", next_step)
