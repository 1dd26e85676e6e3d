"""The contact sheet: small pictures in rows, each with its prompt and its settings under it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from shared.album.pictures import Contents, Shown
from shared.errors import UnreadableImage
from shared.files import as_text
from shared.images import small_image

COLUMNS = 8
ROWS = 15
"""At most, on one sheet; then another begins."""

_SIDE = 208
_GAP = 20
_MARGIN = 36
_TITLE = 78
_LABEL = 62
"""Pixels, as are the sizes of the letters below."""
_PAPER, _FRAME, _INK, _FAINT = "#faf9f6", "#efede7", "#1d1d1f", "#77746d"


def sheets(folder: Path, contents: Contents) -> Iterator[bytes]:
    """The PNG files, as many as it takes."""
    pictures = contents.pictures
    full = COLUMNS * ROWS
    pages = [pictures[first : first + full] for first in range(0, len(pictures), full)]
    for number, page in enumerate(pages, 1):
        count = f"{len(pictures):,} picture{'s' if len(pictures) > 1 else ''}"
        where = f" · sheet {number} of {len(pages)}" if len(pages) > 1 else ""
        yield _png(_sheet(folder, page, contents, f"{count}{where}"))


def _sheet(folder: Path, pictures: Sequence[Shown], contents: Contents, remark: str) -> Image.Image:
    columns = min(COLUMNS, max(3, math.ceil(math.sqrt(len(pictures)))), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = _cell_height(pictures)
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + columns * (_SIDE + _GAP) - _GAP,
            2 * _MARGIN + _TITLE + rows * (height + _LABEL + _GAP) - _GAP,
        ),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    room = sheet.width - 2 * _MARGIN
    pen.text((_MARGIN, _MARGIN), _fitted(contents.name, 26, room), _INK, _font(26))
    pen.text((_MARGIN, _MARGIN + 38), _fitted(remark, 14, room), _FAINT, _font(14))
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (_SIDE + _GAP)
        top = _MARGIN + _TITLE + row * (height + _LABEL + _GAP)
        if not _picture(sheet, folder / picture.path, (left, top), height):
            contents.not_unpacked.append(picture.path)
        _label(pen, picture, (left, top + height + 8))
    return sheet


def _cell_height(pictures: Sequence[Shown]) -> int:
    """High enough for the highest of them at the width of a cell, and no higher than a square."""
    heights = (min(1.0, height / width) for width, height in (shown.size for shown in pictures))
    return round(_SIDE * max(heights))


def _picture(sheet: Image.Image, path: Path, corner: tuple[int, int], height: int) -> bool:
    """The picture in the middle of its cell; what cannot be read leaves the cell empty, and is False."""
    left, top = corner
    try:
        small = small_image(path, _SIDE)
    except UnreadableImage:
        sheet.paste(Image.new("RGB", (_SIDE, height), _FRAME), corner)
        return False
    small.thumbnail((_SIDE, height), Image.Resampling.LANCZOS)
    if small.size != (_SIDE, height):
        sheet.paste(Image.new("RGB", (_SIDE, height), _FRAME), corner)
    sheet.paste(small, (left + (_SIDE - small.width) // 2, top + (height - small.height) // 2))
    return True


def _label(pen: ImageDraw.ImageDraw, picture: Shown, corner: tuple[int, int]) -> None:
    left, top = corner
    for line in _two_lines(picture.prompt or as_text(picture.path), 13):
        pen.text((left, top), line, _INK, _font(13))
        top += 17
    facts = " · ".join(
        f"{name.lower()} {picture.settings[name]}"
        for name in ("Seed", "Steps", "Guidance")
        if name in picture.settings
    )
    pen.text((left, top + 1), _fitted(facts, 11, _SIDE), _FAINT, _font(11))


def _two_lines(text: str, size: int) -> list[str]:
    words, first = _drawable(text).split(), ""
    while words and _font(size).getlength(f"{first} {words[0]}".strip()) <= _SIDE:
        first = f"{first} {words.pop(0)}".strip()
    rest = " ".join(words)
    return [line for line in (first, _fitted(rest, size, _SIDE) if rest else "") if line]


def _fitted(text: str, size: int, room: float) -> str:
    """The text, or so much of it as there is room for."""
    text = _drawable(text[:200])
    if _font(size).getlength(text) <= room:
        return text
    while text and _font(size).getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _drawable(text: str) -> str:
    """The text with a question mark for each letter that the font has no shape for."""
    return "".join(letter if _has_shape(letter) else "?" for letter in text)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries, so that the sheet is the same on every machine."""
    return ImageFont.load_default(size)


@functools.lru_cache(4096)
def _has_shape(letter: str) -> bool:
    return letter == " " or _shape(letter) != _shape("\uffff")


def _shape(letter: str) -> bytes:
    tile = Image.new("L", (32, 32))
    ImageDraw.Draw(tile).text((4, 4), letter, 255, _font(16))
    return tile.tobytes()


def _png(sheet: Image.Image) -> bytes:
    buffer, chunks = BytesIO(), PngInfo()
    chunks.add_text("Software", "cygnet gallery")
    sheet.save(buffer, "PNG", optimize=True, pnginfo=chunks)
    return buffer.getvalue()
