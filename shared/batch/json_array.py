"""A JSON array read one element at a time, so that its length is nobody's memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_IN_TEXT = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["\[\]{},]')


class Broken(Exception):
    """Not an array: at which line, and why."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(line, fault)
        self.line, self.fault = line, fault


def elements(pieces: Iterable[tuple[int, str]], longest: int) -> Iterator[tuple[int, str]]:
    """The elements, each as JSON, with the line that it begins on; `pieces` have the numbers of their
    lines.

    An element itself is not checked. Raises `Broken`, also for one of more than `longest` characters.
    """
    reader = _Elements(longest)
    for line, piece in pieces:
        yield from reader.read(line, piece)
    reader.end()


class _Elements:
    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._depth = 0
        self._ended = False
        self._in_text = self._escaped = False
        self._parts: list[str] = []
        """Of the element that is being read."""
        self._size = 0
        self._begins = self._line = 1
        self._many = False

    def read(self, line: int, piece: str) -> Iterator[tuple[int, str]]:
        self._line = line
        at = 0
        while at < len(piece):
            if not self._depth:
                at = self._open(piece, at)
                continue
            if self._in_text:
                at = self._text(piece, at)
                continue
            found = _OUTSIDE.search(piece, at)
            self._add(piece[at : found.start() if found else None])
            at = found.end() if found else len(piece)
            if found and self._depth == 1 and found[0] in ",]":
                yield from self._element(last=found[0] == "]")
            elif found:
                self._depth += (found[0] in "[{") - (found[0] in "]}" and self._depth > 1)
                self._in_text = found[0] == '"'
                self._add(found[0])

    def end(self) -> None:
        if not self._ended:
            raise Broken(self._begins if self._parts else self._line, "the array has no end")

    def _open(self, piece: str, at: int) -> int:
        rest = piece[at:].lstrip()
        if rest and (self._ended or rest[0] != "["):
            raise Broken(self._line, "there is more behind the array")
        self._depth = 1 if rest else 0
        return len(piece) - len(rest) + 1 if rest else len(piece)

    def _text(self, piece: str, at: int) -> int:
        """Read on in a text, to its end or that of the piece."""
        found = None if self._escaped else _IN_TEXT.search(piece, at)
        end = at + 1 if self._escaped else found.end() if found else len(piece)
        self._escaped = bool(found and found[0] == "\\")
        self._in_text = not (found and found[0] == '"')
        self._add(piece[at:end])
        return end

    def _add(self, text: str) -> None:
        if not self._parts:
            text = text.lstrip()
            self._begins = self._line
        if text:
            self._parts.append(text)
            self._size += len(text)
        if self._size > self._longest:
            raise Broken(self._begins, f"an element is longer than {self._longest // 2**20} MiB")

    def _element(self, *, last: bool) -> Iterator[tuple[int, str]]:
        if self._parts:
            yield self._begins, "".join(self._parts)
        elif self._many or not last:
            raise Broken(self._line, "there is a comma too many")
        self._parts, self._size, self._many = [], 0, True
        if last:
            self._depth, self._ended = 0, True
