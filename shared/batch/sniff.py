"""What a line of a file of prompts is: the header of a table, JSON, or a prompt.

A prompt may hold commas, semicolons, colons, quotes and brackets. So a line is a header only if its
cells are names of fields, or `prompt` and a few other names; and JSON only if it is, or begins and ends
as it does. Whoever means such a line as a prompt says that the file is text.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence

from shared.batch.columns import is_field, is_number, named
from shared.numbers import number_from_text

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

_NAMES = list(DELIMITERS.values())
ONE_OF_THEM = f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}"

_SEPARATOR = re.compile(r'"?sep=(.?)"?[,;\t| ]*\n?', re.IGNORECASE)
_WORDS_OF_A_NAME = 3
_OF_PROMPTS = re.compile(r"prompts|prompt_\w+|\w+_prompts?", re.IGNORECASE)
_NUMBERED = re.compile(r"\d+[,;\t|][^\d\s].*|.*[^\d\s][,;\t|]-?\d+(\.\d+)?")
_RULE = re.compile(r"[-+=:_|\s]*[-=_]{2}[-+=:_|\s]*")

# What is no JSON and yet no prose: an object's first key, a list whose first element is quoted and which
# ends as a list does, or a bracket that the line opens and leaves. `{red|blue}` is a template.
_JSON = re.compile(
    r"""\{\s*(["'][^"']*["']\s*:.*)?|\[\s*(["'].*["'\],]|\{\s*(["'].*[\]},])?)?""", re.DOTALL
)
_BEGINS = re.compile(r'\[\s*["{]')


def separator(line: str) -> str | None:
    """The delimiter that a line of Excel's, `sep=;`, names; "" if it names none, None for any other
    line."""
    found = _SEPARATOR.fullmatch(line)
    return found[1] if found else None


def split(line: str, delimiter: str) -> list[str]:
    """The cells of one line, with empty ones at its end left out."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def delimiter_of(header: str, usual: str = ",") -> str:
    """What separates the columns: that which gives the most fields, or else the most columns."""

    def merit(delimiter: str) -> tuple[int, int, bool]:
        names = [named(cell) for cell in split(header, delimiter)]
        return sum(map(is_field, names)), len(names), delimiter == usual

    return max(DELIMITERS, key=merit)


def columns(line: str) -> int:
    """How many columns a line names if it is a table's header, 0 if it is none."""
    names = [named(cell) for cell in split(line, delimiter_of(line))]
    known = sum(map(is_field, names))
    if known == len(names) and (known > 1 or names == ["prompt"]):
        return len(names)
    if all(len(name.split()) <= _WORDS_OF_A_NAME for name in names):
        of_prompts = any("prompt" in name.lower() for name in names)
        if "prompt" in names or (of_prompts and known) or any(map(_OF_PROMPTS.fullmatch, names)):
            return len(names)
    words = re.findall(r"\w+", line)  # of columns that something else separates
    if len(words) > 1 and all(is_field(named(word)) for word in words):
        return len(words)
    return 0


def are_rows(first: str, second: str) -> bool:
    """Whether two lines begin a table by their numbers: both have one set close at an end, or the
    second has it where the first names a field of numbers."""
    if all(_NUMBERED.fullmatch(line.strip("\n")) for line in (first, second)):
        return True
    delimiter = delimiter_of(first)
    above, below = (split(line, delimiter) for line in (first, second))
    if len(above) != len(below) or any(len(name.split()) > _WORDS_OF_A_NAME for name in above):
        return False
    return len(above) > 1 and any(
        is_number(named(head)) and not isinstance(number_from_text(cell), str)
        for head, cell in zip(above, below, strict=True)
    )


def is_rule(cells: Sequence[str]) -> bool:
    """Whether a row is the line that is drawn between a header and the rows."""
    return _RULE.fullmatch("|".join(cells)) is not None


def is_json(line: str, *, cut: bool = False) -> bool:
    """Whether a line is an object or a list of JSON's, which may be broken, or go on where it is cut."""
    line = line.strip()
    if cut and _BEGINS.match(line):
        return True
    if not line.startswith(("{", "[")):
        return False
    try:
        return isinstance(json.loads(line), dict | list)
    except (ValueError, RecursionError):
        return _JSON.fullmatch(line) is not None


def is_whole_row(cell: str, names: Sequence[str]) -> bool:
    """Whether the only cell of a row is the row itself, with other delimiters than its header."""
    for delimiter in DELIMITERS:
        cells = split(cell, delimiter)
        if len(cells) != len(names) or len(cells) < 2:
            continue
        numbers = [cell for name, cell in zip(names, cells, strict=True) if is_number(name)]
        fit = all(not isinstance(number_from_text(number), str) for number in numbers if number)
        if fit and (numbers or delimiter != ","):
            return True
    return False
