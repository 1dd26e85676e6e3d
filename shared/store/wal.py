"""SQLite's write-ahead log, looked at before SQLite does: a damaged one would be passed over in silence,
with every change that is only in it.

A process that is killed leaves its log, and the next one goes on from there. SQLite takes what is whole
from its beginning, and forgets the rest: right for a change that was not finished, and for what an older
log left behind in the file, but not for a file that was overwritten or cut. The format is SQLite's,
https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import DataUnusable

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = {0x377F0682: "little", 0x377F0683: "big"}
"""The first number, and the byte order in which it has the sums made."""

_GENERATIONS = 2**20
"""A log that is begun anew counts its first salt up: what is left of one before it is so close."""


def check_log(database: Path, *, shared: bool = False) -> None:
    """Raises `DataUnusable` if changes of `database` were lost with its log.

    A `shared` one may be written to meanwhile: then only its beginning is looked at.
    """
    path = database.with_name(f"{database.name}-wal")
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER if shared else -1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    if data and not _is_whole(data):
        raise _damaged(path, "is damaged")


def _damaged(path: Path, what: str) -> DataUnusable:
    return DataUnusable(
        f"{path}, which holds the newest changes, {what}.",
        "Restore it from a copy, or move it away to go on without them.",
    )


def _is_whole(data: bytes) -> bool:
    """Whether no finished change is lost; the last one may be unfinished."""
    order = _MAGIC.get(int.from_bytes(data[:4], "big"))
    if order is None or len(data) < _HEADER:
        return False
    sums = _checksum(data[:24], (0, 0), order)
    if sums != _pair(data[24:32]):
        return False
    salts, whole = _pair(data[16:24]), True
    for frame in _frames(data):
        if frame.salts != salts:
            if not frame.is_left_over(salts):
                return False
            whole = False
            continue
        if whole:
            sums = _checksum(frame.data[:8] + frame.data[_FRAME_HEADER:], sums, order)
            whole = sums == _pair(frame.data[16:24])
        if not whole and frame.ends_a_change:
            return False
    return True


@dataclass(frozen=True)
class _Frame:
    """A page as one change leaves it, after a header that says whose it is."""

    data: bytes

    @property
    def salts(self) -> tuple[int, int]:
        return _pair(self.data[8:16])

    @property
    def ends_a_change(self) -> bool:
        return self.data[4:8] != bytes(4)

    def is_left_over(self, salts: tuple[int, int]) -> bool:
        """Of an older log, or of room that was only made."""
        age = (salts[0] - self.salts[0]) % 2**32
        return age < _GENERATIONS or self.data[:_FRAME_HEADER] == bytes(_FRAME_HEADER)


def _frames(data: bytes) -> Iterator[_Frame]:
    length = _FRAME_HEADER + max(int.from_bytes(data[8:12], "big"), 512)
    for start in range(_HEADER, len(data) - length + 1, length):
        yield _Frame(data[start : start + length])


def _pair(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    words = array.array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    one, two = sums
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
