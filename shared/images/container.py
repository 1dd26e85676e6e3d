"""The parts of a PNG, WebP or JPEG file: where each lies, and what the picture measures.

Nothing is unpacked, and of the pixels nothing is read. What lies between or behind the parts that are
known does not matter; a file that ends before its picture does is damaged.

PNG: W3C, Portable Network Graphics, section 5. WebP: RFC 9649, section 2. JPEG: ITU-T T.81, annex B.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from shared.formats import OutputFormat
from shared.images.limits import MAX_FILE_BYTES, MAX_PIXELS, unreadable

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"

_MOST_PARTS = 2**16  # a whole PNG of the largest size has some eight thousand
_BLOCK = 2**16
_ALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG's markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # those that begin a frame
_SCAN, _END = 0xDA, 0xD9


@dataclass(frozen=True)
class Facts:
    """What a file says of its picture."""

    format: OutputFormat
    width: int
    height: int


@dataclass(frozen=True)
class Part:
    """A chunk or a segment: its type, where it begins, and where its body lies."""

    kind: bytes
    start: int
    body: int
    length: int
    end: int


@dataclass(frozen=True)
class Container:
    facts: Facts
    parts: list[Part]


def facts(source: bytes | Path) -> Facts:
    """What a picture's file says of it. Raises `UnreadableImage`."""
    with opened(source) as file:
        return read_container(file).facts


@contextlib.contextmanager
def opened(source: bytes | Path) -> Iterator[BinaryIO]:
    """The file, if it is one and not too large. Raises `UnreadableImage`."""
    try:
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise unreadable("it is not a file")  # a pipe would never end
        with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            if _size(file) > MAX_FILE_BYTES:
                raise unreadable(f"it is larger than {MAX_FILE_BYTES // 2**20} MiB")
            yield file
    except OSError as error:
        raise unreadable(
            f"{source if isinstance(source, Path) else 'it'}: {error.strerror}"
        ) from None


def read_container(file: BinaryIO) -> Container:
    """Raises `UnreadableImage` if the file is none of the three, cut off, or too large a picture."""
    file.seek(0)
    head = file.read(12)
    try:
        if head.startswith(PNG):
            container = _png(file)
        elif head.startswith(b"RIFF") and head[8:] == b"WEBP":
            container = _webp(file, struct.unpack("<I", head[4:8])[0] + 8)
        elif head.startswith(JPEG):
            container = _jpeg(file)
        else:
            raise unreadable("it is no PNG, WebP or JPEG, or is damaged")
    except struct.error:  # a part that is shorter than what it must hold
        raise unreadable("it is damaged") from None
    if container.facts.width * container.facts.height > MAX_PIXELS:
        raise unreadable(f"it has more than {MAX_PIXELS:,} pixels")
    return container


def body(file: BinaryIO, part: Part, most: int) -> bytes:
    """The first bytes of a part, at most so many."""
    file.seek(part.body)
    return file.read(min(part.length, most))


def _png(file: BinaryIO) -> Container:
    parts: list[Part] = []
    size, at = _size(file), len(PNG)
    while not parts or parts[-1].kind != b"IEND":
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        at = _append(parts, Part(kind, at, at + 8, length, at + length + 12), size)
    if parts[0].kind != b"IHDR":
        raise unreadable("it is damaged")
    width, height = struct.unpack(">II", body(file, parts[0], 8))
    return Container(_facts("png", width, height), parts)


def _webp(file: BinaryIO, end: int) -> Container:
    if end > _size(file):
        raise unreadable("it is damaged")
    parts: list[Part] = []
    at, known = 12, None
    while at + 8 <= end:
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        part = Part(kind, at, at + 8, length, at + 8 + length + length % 2)
        at = _append(parts, part, end + length % 2)  # the last one may lack its padding
        known = known or _webp_size(kind, body(file, part, 10))
    return Container(_facts("webp", *(known or (0, 0))), parts)


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X":
        return _little(head[4:7]) + 1, _little(head[7:10]) + 1
    if kind == b"VP8L" and head[:1] == b"\x2f":
        bits = _little(head[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        return _little(head[6:8]) & 0x3FFF, _little(head[8:10]) & 0x3FFF
    return None


def _jpeg(file: BinaryIO) -> Container:
    parts: list[Part] = []
    size, at, known = _size(file), len(JPEG), (0, 0)
    for _ in range(_MOST_PARTS):
        file.seek(at)
        mark, marker = struct.unpack("BB", file.read(2))
        if mark != 0xFF or marker == _END:
            break
        if marker == 0xFF or marker in _ALONE:  # padding, or nothing but itself
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", file.read(2))
        part = Part(bytes([marker]), at, at + 4, max(length - 2, 0), at + 2 + length)
        at = _append(parts, part, size)
        if marker in _FRAMES and known == (0, 0):
            height, width = struct.unpack(">xHH", body(file, part, 5))
            known = (width, height)
        elif marker == _SCAN:
            _seek_end(file, at)
            return Container(_facts("jpeg", *known), parts)
    raise unreadable("it is damaged")


def _seek_end(file: BinaryIO, at: int) -> None:
    """Raises `UnreadableImage` if no end of image follows: within a scan each 0xFF has a mark behind it."""
    file.seek(at)
    last = b""
    while block := file.read(_BLOCK):
        if bytes([0xFF, _END]) in last + block:
            return
        last = block[-1:]
    raise unreadable("it is damaged")


def _append(parts: list[Part], part: Part, end: int) -> int:
    """Where the part after this one begins. Raises `UnreadableImage` if it ends too late."""
    if part.end > end or len(parts) == _MOST_PARTS:
        raise unreadable("it is damaged")
    parts.append(part)
    return part.end


def _facts(kind: OutputFormat, width: int, height: int) -> Facts:
    if not (width and height):
        raise unreadable("it is damaged")
    return Facts(kind, width, height)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)
