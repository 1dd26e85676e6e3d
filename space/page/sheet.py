"""A contact sheet with a label for each row and each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

_SIDE = 384  # pixels of the longer side of a cell, at most
_GAP = 12
_TEXT = 18
_PAPER, _INK, _BLANK = "#faf9f6", "#262523", "#e6e2da"


def draw_sheet(
    pictures: Mapping[tuple[int, int], bytes],
    columns: Sequence[str],
    rows: Sequence[str],
    size: tuple[int, int],
    title: str,
) -> bytes:
    """A PNG of the pictures at (row, column); `size` is a picture's, in pixels.

    Cells without a picture stay blank, and labels that are too long are cut.
    """
    font = ImageFont.load_default(_TEXT)
    scale = min(1.0, _SIDE / max(size))
    width, height = (round(side * scale) for side in size)
    left = round(max((font.getlength(row[:40]) for row in rows), default=0)) + 2 * _GAP
    top = 2 * _TEXT + 4 * _GAP
    across, down = left + len(columns) * (width + _GAP), top + len(rows) * (height + _GAP)
    sheet = Image.new("RGB", (max(across, 400), down), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, _GAP), _fit(title, sheet.width - 2 * _GAP, font), _INK, font)
    for column, label in enumerate(columns):
        middle = left + column * (width + _GAP) + width // 2
        pen.text((middle, top - _GAP), _fit(label, width, font), _INK, font, anchor="mb")
    for row, label in enumerate(rows):
        y = top + row * (height + _GAP)
        pen.text((_GAP, y + height // 2), _fit(label, left, font), _INK, font, anchor="lm")
        for column in range(len(columns)):
            place = (left + column * (width + _GAP), y)
            if (row, column) in pictures:
                with Image.open(BytesIO(pictures[row, column])) as picture:
                    sheet.paste(picture.convert("RGB").resize((width, height)), place)
            else:
                pen.rectangle((*place, place[0] + width, place[1] + height), _BLANK)
    file = BytesIO()
    sheet.save(file, "png")
    return file.getvalue()


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
