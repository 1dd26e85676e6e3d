"""A picture unpacked, to be shown small: few at a time, and none that is larger than it need be.

Pillow gets no more of a file than its pixels need. What else lies in it, texts, colour profiles and EXIF,
is not shown, and may be large, damaged or hostile.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from shared.formats import PILLOW
from shared.images.container import JPEG, PNG, Container, body, opened, read_container
from shared.images.limits import AT_ONCE, MAX_DECODED, MAX_FILE_BYTES, unreadable

_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_EXIF = (b"EXIF", b"\xe1")
_JPEG_TEXTS = {0xFE, *range(0xE1, 0xEE), 0xEF}  # comments and applications', but JFIF's and Adobe's


def thumbnail(data: bytes, side: int) -> bytes:
    """A JPEG of the picture in the file `data`, at most `side` pixels a side, never enlarged.

    Raises `UnreadableImage`.
    """
    return save(small_image(data, side), "jpeg", quality=85)


def small_image(source: bytes | Path, side: int) -> Image.Image:
    """The RGB picture in a file, at most `side` pixels a side, never enlarged.

    Raises `UnreadableImage`, also for one of more than `MAX_DECODED` pixels.
    """
    with AT_ONCE, opened(source) as file:
        small = _decode(file, read_container(file))
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def recompress(data: bytes, quality: int) -> bytes:
    """The WebP or JPEG file `data` at another quality, 0 to 100, its request still inside.

    Raises `UnreadableImage`.
    """
    with AT_ONCE, opened(data) as file:
        container = read_container(file)
        image = _decode(file, container)
        blocks = (body(file, part, part.length) for part in container.parts if part.kind in _EXIF)
        return save(image, container.facts.format, exif=next(blocks, b""), quality=quality)


def save(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format.upper(), **options)
    return buffer.getvalue()


def _decode(file: BinaryIO, container: Container) -> Image.Image:
    if container.facts.width * container.facts.height > MAX_DECODED:
        raise unreadable(f"it has more than {MAX_DECODED:,} pixels, too many to be shown small")
    file.seek(0)
    data = BytesIO(_bare(container, file.read(MAX_FILE_BYTES)))
    try:
        with Image.open(data, formats=PILLOW) as image:
            if image.width * image.height > MAX_DECODED:
                raise ValueError("it is larger than it says")
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            return opaque.convert("RGB")
    except (
        Exception
    ):  # whatever Pillow's readers raise, which is theirs to extend: the file is at fault
        raise unreadable("it is damaged") from None


def _bare(container: Container, data: bytes) -> bytes:
    """The file with nothing but its pixels."""
    match container.facts.format:
        case "png":
            kept = [part for part in container.parts if part.kind in _PNG_PIXELS]
            return PNG + b"".join(data[part.start : part.end] for part in kept)
        case "jpeg":
            kept = [part for part in container.parts if part.kind[0] not in _JPEG_TEXTS]
            segments = b"".join(data[part.start : part.end] for part in kept)
            return JPEG + segments + data[container.parts[-1].end :]
        case "webp":
            return data
