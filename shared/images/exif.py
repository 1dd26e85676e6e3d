"""The few texts of an EXIF block, and nothing else of it.

An entry names its size and place itself, so that a small block may claim any number of large ones: those
that are not asked for are passed over. CIPA DC-008 (EXIF 3.0), section 4.6; TIFF 6.0, section 2.
"""

from __future__ import annotations

import struct

DESCRIPTION, MAKE, MODEL, COMMENT, MAKER_NOTE, XP_COMMENT = (
    0x010E,
    0x010F,
    0x0110,
    0x9286,
    0x927C,
    0x9C9C,
)
WANTED = (DESCRIPTION, MAKE, MODEL, COMMENT, MAKER_NOTE, XP_COMMENT)

PREFIX = b"Exif\0\0"
_EXIF_BLOCK = 0x8769
_BYTES = {1, 2, 7}  # the types whose values are bytes: numbers, letters, anything
_ENTRY = 12


def read_tags(block: bytes) -> dict[int, bytes]:
    """The wanted values, each as its bytes; of a damaged block what can be read."""
    tiff = block.removeprefix(PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    found: dict[int, bytes] = {}
    try:
        if order:
            (at,) = struct.unpack_from(f"{order}I", tiff, 4)
            deeper = _read(tiff, order, at, found)
            if deeper:
                _read(tiff, order, deeper, found)
    except struct.error:
        pass
    return found


def _read(tiff: bytes, order: str, at: int, found: dict[int, bytes]) -> int:
    """Add the wanted values of the directory at that place; where the second directory begins, or 0."""
    deeper = 0
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    for number in range(count):
        entry = at + 2 + number * _ENTRY
        tag, kind, length, value = struct.unpack_from(f"{order}HHII", tiff, entry)
        if tag == _EXIF_BLOCK:
            deeper = value
        elif tag in WANTED and kind in _BYTES and tag not in found:
            place = value if length > 4 else entry + 8
            found[tag] = tiff[place : place + length]
    return deeper
