"""The manifest: a line of JSON for each picture that is finished, or that failed.

Lines are only ever added, each in one write after its picture's file is whole, so that a kill at any
moment leaves at most a torn last line, which is passed over. Where a picture has several lines the
last one counts. Memory: eight bytes a picture.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.batch.plan import MAX_PICTURES
from shared.contract import Timings
from shared.files import clear_errors

NAME = "manifest.jsonl"
_MAX_LINE = 2**20
_NOWHERE = -1


class Failure(BaseModel):
    """An error as `shared.errors` draws it."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    next_step: str


class Entry(BaseModel):
    """One line: a picture, the request that makes it, and how that went."""

    model_config = ConfigDict(frozen=True)

    number: int
    line: int
    status: Literal["done", "failed"]
    file: str | None = None
    """The path within the folder, with slashes."""
    seed: int
    request: dict[str, Any]
    template: dict[str, str] = {}
    backend: str | None = None
    """Who served; None where the file of an interrupted run was found."""
    backend_reason: str | None = None
    device: str | None = None
    timings: Timings | None = None
    cost_usd: float | None = None
    attempts: int
    finished: str
    """When, in UTC (ISO 8601)."""
    error: Failure | None = None
    remarks: tuple[str, ...] = ()
    """What was not done as asked, as the result said it."""


class Manifest:
    """The manifest of a folder, which need not be there yet. Reading changes nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.damaged = 0
        """Lines that make no sense; the pictures' own files still count."""
        self.cost_usd = 0.0
        self._offsets = array("q")
        """Where each picture's last line begins."""
        self._end = 0
        """Behind the last whole line."""
        self._reader: BinaryIO | None = None
        self._writer: BinaryIO | None = None
        if self.path.is_file():
            self._reader = self.path.open("rb")
            self._index(self._reader)

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for file in (self._reader, self._writer):
            if file:
                file.close()

    def entry(self, number: int) -> Entry | None:
        """What is known of picture `number`."""
        offset = self._offsets[number] if number < len(self._offsets) else _NOWHERE
        if offset == _NOWHERE or not self._reader:
            return None
        self._reader.seek(offset)
        return Entry.model_validate_json(self._reader.readline(_MAX_LINE))

    def entries(self) -> Iterator[Entry]:
        """All that is known, in the order of the pictures' numbers."""
        for number in range(len(self._offsets)):
            if entry := self.entry(number):
                yield entry

    def add(self, entry: Entry) -> None:
        """Write a line. Raises `DiskFull` or `OutputUnwritable`."""
        line = entry.model_dump_json().encode() + b"\n"
        with clear_errors(self.path):
            if not self._writer:
                self._writer = self.path.open("ab", buffering=0)
                self._writer.truncate(self._end)  # a torn line would swallow this one
                self._reader = self._reader or self.path.open("rb")
            if self._writer.write(line) != len(line):
                raise OSError(errno.ENOSPC, "it was written in part")
        self._count(entry, self._end)
        self._end += len(line)

    def _index(self, file: BinaryIO) -> None:
        while line := file.readline(_MAX_LINE):
            if not line.endswith(b"\n") and len(line) < _MAX_LINE:
                return
            try:
                self._count(Entry.model_validate_json(line), self._end)
            except ValidationError:
                self.damaged += 1
            self._end += len(line)

    def _count(self, entry: Entry, offset: int) -> None:
        if not 0 < entry.number <= MAX_PICTURES:
            return
        missing = entry.number + 1 - len(self._offsets)
        if missing > 0:
            self._offsets.extend([_NOWHERE] * missing)
        self._offsets[entry.number] = offset
        self.cost_usd += entry.cost_usd or 0.0
