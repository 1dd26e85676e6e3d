"""The formats of picture files, and every fact about them; who shows or checks one asks here."""

from __future__ import annotations

from typing import Literal, get_args

OutputFormat = Literal["png", "webp", "jpeg"]

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

SUFFIXES: dict[OutputFormat, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
"""Of a file's name, by its format."""

FORMAT_OF_SUFFIX: dict[str, OutputFormat] = {
    **{suffix: name for name, suffix in SUFFIXES.items()},
    ".jpeg": "jpeg",
}
"""What a file's suffix says, in small letters."""

PILLOW = tuple(name.upper() for name in FORMATS)
"""The only formats that Pillow is to try: its other readers are never let at a stranger's file."""

IN_WORDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def media_type(name: str) -> str:
    """What HTTP and MCP call a format."""
    return f"image/{name}"
