"""Pictures made small enough for a client: measured as they travel, in base64."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shared.formats import media_type
from shared.images import facts, thumbnail

SMALLEST = 64
"""Pixels of the longer side; below that a picture shows nothing."""


@dataclass(frozen=True)
class Preview:
    """A whole image file, and what it shows."""

    data: bytes
    mime_type: str
    width: int
    height: int
    is_original: bool

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


def encoded_size(data: bytes) -> int:
    """How many characters the bytes are in base64."""
    return 4 * ((len(data) + 2) // 3)


def fit(data: bytes, budget: int) -> Preview | None:
    """The file `data` itself if it takes at most `budget` characters, else the largest JPEG that does.

    None if not even the smallest one would. Raises `UnreadableImage`.
    """
    original = _read(data, is_original=True)
    if encoded_size(data) <= budget:
        return original
    side = max(original.width, original.height)
    while side >= SMALLEST:
        small = thumbnail(data, side)
        if (size := encoded_size(small)) <= budget:
            return _read(small, is_original=False)
        if side == SMALLEST:
            break
        # The size goes with the number of pixels; a little less, so that few tries are needed.
        side = min(round(side * 0.95 * math.sqrt(max(budget, 1) / size)), side - 1)
        side = max(side, SMALLEST)  # which is tried before anything is left out
    return None


def mime_type(data: bytes) -> str:
    """Of an image file."""
    return _read(data, is_original=True).mime_type


def _read(data: bytes, *, is_original: bool) -> Preview:
    of = facts(data)
    return Preview(data, media_type(of.format), of.width, of.height, is_original)
