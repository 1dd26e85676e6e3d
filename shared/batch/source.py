"""The file of prompts: rows as they were written, read as a stream and as often as needed.

Plain text has a prompt a line, JSON an object a line or an array, a table a header and a row. The file
is hostile until proven good: it has to be text without zero bytes, and a row has to be short. What
looks like a header, or like a row of another kind, is never taken for a prompt. This module does not
know what a field may hold, nor what a template is.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from shared.batch import sniff
from shared.batch.columns import as_written, is_field, is_manifest, named
from shared.batch.json_array import Broken, elements
from shared.batch.templates import escape
from shared.batch.text import fault_in, pieces
from shared.contract import parse_request
from shared.errors import InvalidRequest, reason

MAX_ROW = 2**20
"""Characters of one row, over all its lines."""
MAX_FILE = 2**30
_PIECE = 2**16

Kind = Literal["csv", "jsonl", "text"]

_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
}
_TABS = (".tsv", ".tab")

_JSON_ADVICE = "Give one object a line, or an array of objects or texts."
_TEXT_ADVICE = "Mend it, or say --kind text if each line is a prompt as it stands."

_SPACE_AFTER_QUOTE = re.compile(r'" +(?=[,;\t|\n])')


@dataclass(frozen=True)
class Row:
    """One row: the line it begins on, counted from 1, and the fields that it fills."""

    line: int
    fields: dict[str, Any]


class Source:
    """An open file of rows, `-` for standard input; close it, or use it with `with`.

    What cannot be read twice, such as a pipe, is copied to a temporary file first. `kind` None is
    told by the first lines, or else by the suffix. Raises `InvalidRequest`, here and while reading.
    """

    def __init__(self, name: str, kind: Kind | None = None) -> None:
        self.name = "standard input" if name == "-" else name
        self._suffix = Path(name).suffix.lower()
        self._told = kind is not None
        self._file = self._open(name)
        try:
            self.kind = kind or self._sniff() or _SUFFIXES.get(self._suffix) or "text"
        except InvalidRequest:
            self.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def rows(self) -> Iterator[Row]:
        """The rows from the first on; empty ones are passed over."""
        readers = {"csv": self._csv_rows, "jsonl": self._json_rows, "text": self._text_rows}
        return readers[self.kind]()

    def refuse(self, line: int, message: str, next_step: str) -> InvalidRequest:
        """What is wrong with a line of this file."""
        return InvalidRequest(f"{self.name}, line {line}: {message}", next_step)

    def _open(self, name: str) -> BinaryIO:
        try:
            if name == "-":
                return _copy(sys.stdin.buffer)
            file = Path(name).open("rb")  # noqa: SIM115 - `close` closes it
            if file.seekable():
                return file
            with file:
                return _copy(file)
        except OSError as error:
            raise InvalidRequest(
                f"{self.name} cannot be read: {error.strerror or error}.",
                "Give a file of prompts, or - for standard input.",
            ) from None

    def _sniff(self) -> Kind | None:
        """What the first two lines that are not empty say; None if they may be anything."""
        texts = (text for _, text in self._pieces(_PIECE) if text.strip())
        first, second = next(texts, ""), next(texts, "")
        if sniff.separator(first) is not None or sniff.columns(first):
            return "csv"
        if sniff.is_json(first, cut=len(first) == _PIECE):
            return "jsonl"
        return "csv" if sniff.are_rows(first, second) else None

    def _first(self) -> str:
        """The first line that is not empty, or its first piece."""
        return next((text for _, text in self._pieces(_PIECE) if text.strip()), "")

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Each line with its number and its end."""
        for number, text in self._pieces(MAX_ROW + 1):
            if len(text) > MAX_ROW:
                raise self._too_long(number)
            yield number, text

    def _pieces(self, longest: int) -> Iterator[tuple[int, str]]:
        read = 0
        for number, text in pieces(self._file, longest):
            read += len(text)
            if read > MAX_FILE:
                raise _too_large(self.name)
            if fault := fault_in(text):
                advice = 'Save the file as UTF-8, which Excel calls "CSV UTF-8".'
                raise self.refuse(number, f"{fault}.", advice)
            yield number, text.lstrip("\ufeff") if number == 1 else text

    def _too_long(self, number: int) -> InvalidRequest:
        message = f"the row is longer than {MAX_ROW // 2**20} MiB."
        return self.refuse(number, message, "Check for a missing line end or quote.")

    def _text_rows(self) -> Iterator[Row]:
        for number, text in self._lines():
            if not self._told:
                self._check_prose(number, text)
            if prompt := text.strip():
                yield Row(number, {"prompt": prompt})

    def _check_prose(self, line: int, text: str) -> None:
        """Raises `InvalidRequest` for what was written by a program, and not as a prompt."""
        if sniff.is_json(text):
            raise self.refuse(line, "it is JSON among plain text.", _TEXT_ADVICE)
        if "prompt" in text.lower() and sniff.columns(text) > 1:
            raise self.refuse(line, "it is the header of a table among plain text.", _TEXT_ADVICE)

    def _json_rows(self) -> Iterator[Row]:
        if self._first().lstrip().startswith("["):
            texts: Iterable[tuple[int, str]] = elements(self._pieces(_PIECE), MAX_ROW)
        else:
            texts = ((number, text) for number, text in self._lines() if text.strip())
        try:
            for number, text in texts:
                yield Row(number, self._json_fields(number, text))
        except Broken as broken:
            raise self.refuse(
                broken.line, f"it is no JSON: {broken.fault}.", _JSON_ADVICE
            ) from None

    def _json_fields(self, line: int, text: str) -> dict[str, Any]:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            self._check_doubled("field", [named(name) for name, _ in pairs], line)
            return dict(pairs)

        try:
            fields = json.loads(text.strip(), object_pairs_hook=once)
        except json.JSONDecodeError as error:
            fault = f"{reason(ValueError(error.msg))} at column {error.colno}"
            line += error.lineno - 1
            raise self.refuse(line, f"it is no JSON: {fault}.", _JSON_ADVICE) from None
        except (ValueError, RecursionError) as error:
            fault = f"it is no JSON ({reason(error)})."
            raise self.refuse(line, fault, _JSON_ADVICE) from None
        if isinstance(fields, str):
            return {"prompt": fields} if fields.strip() else {}
        if not isinstance(fields, dict):
            raise self.refuse(line, "it is no JSON object and no text.", _JSON_ADVICE)
        return {named(name): value for name, value in fields.items() if value is not None}

    def _csv_rows(self) -> Iterator[Row]:
        lines = self._table()
        header, delimiter = self._header_line(lines)
        if not header:
            return
        begin, size = header[0], 0
        """The line that the row being read begins on, and its length so far."""

        def texts() -> Iterator[str]:
            nonlocal size
            for _, text in itertools.chain([header], lines):
                size += len(text)
                if size > MAX_ROW:
                    raise self._too_long(begin)
                yield text

        reader = csv.reader(texts(), delimiter=delimiter, strict=True, skipinitialspace=True)
        names: list[str] = []
        is_ours = False
        try:
            for cells in reader:
                line, begin, size = begin, header[0] + reader.line_num, 0
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                if not names:
                    names = self._header(cells, line)
                    is_ours = is_manifest(names)
                    continue
                self._check_row(cells, names, delimiter, line)
                yield Row(line, _fields(cells, names, is_ours=is_ours))
        except csv.Error as error:
            fault = f"it is no CSV ({reason(error)})."
            advice = 'Put "quotes" around text with quotes, and double those within.'
            raise self.refuse(begin, fault, advice) from None

    def _table(self) -> Iterator[tuple[int, str]]:
        """The lines of a table, without the spaces that some programs put behind quotes."""
        for number, text in self._lines():
            yield number, _SPACE_AFTER_QUOTE.sub('"', text) if '" ' in text else text

    def _header_line(self, lines: Iterator[tuple[int, str]]) -> tuple[tuple[int, str] | None, str]:
        """The first line of the table, and what separates its columns; None if there is none."""
        delimiter = ""
        for number, text in lines:
            if (separator := sniff.separator(text)) is not None and not delimiter:
                delimiter = separator
            elif text.strip():
                usual = "\t" if self._suffix in _TABS else ","
                return (number, text), delimiter or sniff.delimiter_of(text, usual)
        return None, ","

    def _header(self, cells: Sequence[str], line: int) -> list[str]:
        """The names of the columns. Raises `InvalidRequest`, naming those that are no field."""
        names = [named(cell) for cell in cells]
        while names and not names[-1]:
            names.pop()
        self._check_doubled("column", [name for name in names if name], line)
        if is_manifest(names):
            return names
        if len(names) == 1 and not is_field(names[0]) and sniff.columns(names[0]) > 1:
            raise self.refuse(
                line,
                f"its columns cannot be told apart: {names[0][:60]!r}.",
                f"Separate them with {sniff.ONE_OF_THEM}, and put no quotes around a whole line.",
            )
        if unknown := [name for name in names if name and not is_field(name)]:
            try:
                parse_request(dict.fromkeys(unknown, "") | {"prompt": "any"})
            except InvalidRequest as error:
                raise self.refuse(line, error.message, self._header_advice(names, error)) from None
        return names

    def _header_advice(self, names: Sequence[str], error: InvalidRequest) -> str:
        advice = error.next_step
        if not any(map(is_field, names)) and "Did you mean" not in advice:
            advice = "Begin the table with a line that names its columns, such as prompt,seed."
        prose = not self._told and _SUFFIXES.get(self._suffix) != "csv"
        return f"{advice}{' Say --kind text if it is a prompt.' if prose else ''}"

    def _check_doubled(self, what: str, names: Sequence[str], line: int) -> None:
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            message = f"the {what} {min(doubled)[:60]!r} is there twice."
            raise self.refuse(line, message, "Keep one of them.")

    def _check_row(
        self, cells: Sequence[str], names: Sequence[str], delimiter: str, line: int
    ) -> None:
        """Raises `InvalidRequest` for cells that belong to no column, and for no row at all."""
        separators = sniff.DELIMITERS.get(delimiter, repr(delimiter))
        if any(cells[len(names) :]):
            message = f"it has {len(cells)} cells, the header has {len(names)}."
            raise self.refuse(line, message, f'Put "quotes" around text with {separators}.')
        for number, (name, cell) in enumerate(zip(names, cells, strict=False), 1):
            if cell and not name:
                message = f"{cell[:60]!r} is in column {number}, which has no name."
                raise self.refuse(line, message, "Name the column, or take it out.")
        filled = [cell for cell in cells if cell]
        if sniff.is_rule(cells):
            raise self.refuse(
                line, "it is a rule, as in a drawn table.", "Export the table as CSV."
            )
        if filled and all(named(cell) == name for cell, name in zip(cells, names, strict=False)):
            raise self.refuse(line, "it is the header once more.", "Take it out.")
        if len(filled) == 1 and len(cells) < len(names) and sniff.is_whole_row(cells[0], names):
            message = f"{cells[0][:60]!r} is not separated by {separators}, as the header is."
            raise self.refuse(line, message, "Use one delimiter, and no quotes around whole lines.")


def _fields(cells: Sequence[str], names: Sequence[str], *, is_ours: bool) -> dict[str, str]:
    """What a row fills. In a table of ours it is no template, but what a template became."""
    given = {
        name: cell for name, cell in zip(names, cells, strict=False) if cell and is_field(name)
    }
    if is_ours:
        return {name: escape(as_written(cell)) for name, cell in given.items()}
    return given


def _copy(stream: BinaryIO) -> BinaryIO:
    """What is in a stream, to be read again and again. Raises `InvalidRequest` if it is endless."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - whoever closes the source closes it
    try:
        while data := stream.read(2**20):
            copy.write(data)
            if copy.tell() > MAX_FILE:
                raise _too_large("standard input")
    except BaseException:
        copy.close()
        raise
    return copy


def _too_large(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name} is larger than {MAX_FILE // 2**30} GiB.", "Split it.")
