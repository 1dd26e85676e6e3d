"""The text of a file in pieces, whatever its encoding and its line ends.

UTF-8, UTF-16 and UTF-32 are told by their mark, UTF-16 without one by its zero bytes. What is none of
them is refused where it begins, since nothing says which of the old encodings it is.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

# The longer marks first: UTF-32's begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 2**16
_CONTROLS = re.compile("[\x01-\x08\x0e-\x19]")


def encoding_of(file: BinaryIO) -> str:
    """What Python calls the encoding of a file, by its first bytes."""
    file.seek(0)
    head = file.read(_LOOKED_AT)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    first, second = (head[parity::2].count(0) for parity in (0, 1))
    many = 4 * max(first, second) > len(head)
    if max(first, second) > 8 * min(first, second) and (many or not _is_utf8(head)):
        return "utf-16-le" if second > first else "utf-16-be"
    return "utf-8-sig"


def _is_utf8(head: bytes) -> bool:
    """Whether it is UTF-8 as people write it: bytes of other alphabets in UTF-16 may be so by chance."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not _CONTROLS.search(text)


def pieces(file: BinaryIO, longest: int) -> Iterator[tuple[int, str]]:
    """Each line with its number, ended by "\\n"; one of more than `longest` characters in several
    pieces.

    What cannot be decoded stands in the text for `fault_in` to find.
    """
    encoding = encoding_of(file)
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    file.seek(0)
    text = io.TextIOWrapper(file, encoding, errors)  # which reads every line end as "\n"
    try:
        number = 1
        while piece := text.readline(longest):
            yield number, piece
            number += piece.endswith("\n")
    finally:
        with contextlib.suppress(ValueError):  # the file was closed before
            text.detach()


def fault_in(piece: str) -> str:
    """Why a piece is no text, in words; empty if it is."""
    if "\0" in piece:
        return "it has a zero byte, so it is no text, or has lost its first bytes"
    if column := piece.find("\ufffd") + 1:
        return f"what stands at column {column} is damaged"
    try:
        piece.encode()
    except UnicodeEncodeError as error:
        return (
            f"byte {ord(piece[error.start]) & 0xFF:#04x} at column {error.start + 1} is not UTF-8"
        )
    return ""
