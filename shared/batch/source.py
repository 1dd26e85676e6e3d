"""The file of prompts: rows as they were written, read as a stream and as often as needed.

Plain text has a prompt a line, JSON Lines an object a line, CSV a header and a row. The file is
hostile until proven good: it has to be UTF-8 without NUL bytes, and a row has to be short. This
module does not know what a field may hold, nor what a template is.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from shared.contract import GenerationRequest, parse_request
from shared.errors import InvalidRequest, reason

MAX_ROW = 2**20
"""Bytes of one row, over all its lines."""
MAX_FILE = 2**30

Kind = Literal["csv", "jsonl", "text"]

_SUFFIXES: dict[str, Kind] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
}


@dataclass(frozen=True)
class Row:
    """One row: the line it begins on, counted from 1, and the fields that it fills."""

    line: int
    fields: dict[str, Any]


class Source:
    """An open file of rows, `-` for standard input; close it, or use it with `with`.

    What cannot be read twice, such as a pipe, is copied to a temporary file first. `kind` None is
    told by the suffix, or else by the first line. Raises `InvalidRequest`, here and while reading.
    """

    def __init__(self, name: str, kind: Kind | None = None) -> None:
        self.name = "standard input" if name == "-" else name
        self._file = self._open(name)
        try:
            self.kind = kind or _SUFFIXES.get(Path(name).suffix.lower()) or self._sniff()
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

    def _sniff(self) -> Kind:
        """By the first line that is not empty: an object, a header that names the prompt, or text."""
        first = next((text.strip() for _, text in self._lines() if text.strip()), "")
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(first), dict):
                return "jsonl"
        with contextlib.suppress(csv.Error):
            names = [name.strip() for name in next(csv.reader([first]), [])]
            if "prompt" in names and set(names) & GenerationRequest.model_fields.keys():
                return "csv"
        return "text"

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Each line with its number and its end, as text."""
        self._file.seek(0)
        read = 0
        for number in itertools.count(1):
            raw = self._file.readline(MAX_ROW + 1)
            read += len(raw)
            if not raw:
                return
            if len(raw) > MAX_ROW:
                raise self._too_long(number)
            if read > MAX_FILE:
                raise _too_large(self.name)
            yield number, self._text(raw, number)

    def _text(self, raw: bytes, number: int) -> str:
        if b"\0" in raw or (number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff"))):
            fault = "it is UTF-16, or no text at all"
        else:
            try:
                text = raw.decode()
                return text.removeprefix("\ufeff") if number == 1 else text
            except UnicodeDecodeError as error:
                fault = f"byte {raw[error.start]:#04x} at column {error.start + 1} is not UTF-8"
        raise self.refuse(number, f"{fault}.", "Save the file as UTF-8.")

    def _too_long(self, number: int) -> InvalidRequest:
        message = f"the row is longer than {MAX_ROW // 2**20} MiB."
        return self.refuse(number, message, "Check for a missing line end or quote.")

    def _text_rows(self) -> Iterator[Row]:
        for number, text in self._lines():
            if prompt := text.strip():
                yield Row(number, {"prompt": prompt})

    def _json_rows(self) -> Iterator[Row]:
        for number, text in self._lines():
            if not text.strip():
                continue
            try:
                fields = json.loads(text)
            except (ValueError, RecursionError) as error:
                fault = f"it is no JSON ({reason(error)})."
                raise self.refuse(number, fault, "Give one object a line.") from None
            if not isinstance(fields, dict):
                raise self.refuse(number, "it is no JSON object.", "Give one object a line.")
            yield Row(number, {name: value for name, value in fields.items() if value is not None})

    def _csv_rows(self) -> Iterator[Row]:
        begin, size = 1, 0
        """The line that the row being read begins on, and its length so far."""

        def texts() -> Iterator[str]:
            nonlocal size
            for _, text in self._lines():
                size += len(text)
                if size > MAX_ROW:
                    raise self._too_long(begin)
                yield text

        reader = csv.reader(texts(), strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                line, begin, size = begin, reader.line_num + 1, 0
                if not any(cells):
                    continue
                if not header:
                    header = self._header(cells, line)
                elif len(cells) > len(header):
                    message = f"it has {len(cells)} cells, the header has {len(header)}."
                    raise self.refuse(line, message, 'Put "quotes" around text with commas.')
                else:
                    given = zip(header, cells, strict=False)
                    yield Row(line, {name: cell for name, cell in given if cell.strip()})
        except csv.Error as error:
            fault = f"it is no CSV ({reason(error)})."
            raise self.refuse(begin, fault, 'Put "quotes" around text with quotes.') from None

    def _header(self, cells: list[str], line: int) -> list[str]:
        """The names of the columns. Raises `InvalidRequest`, naming those that are no field."""
        names = [cell.strip() for cell in cells]
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            message = f"the column {min(doubled)[:60]!r} is there twice."
            raise self.refuse(line, message, "Keep one of them.")
        unknown = [name for name in names if name not in GenerationRequest.model_fields]
        if unknown:
            try:
                parse_request(dict.fromkeys(unknown, "") | {"prompt": "any"})
            except InvalidRequest as error:
                raise self.refuse(line, error.message, error.next_step) from None
        return names


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
