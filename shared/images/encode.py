"""A picture's file, the request that made the picture inside.

PNG has two text chunks: `cygnet` with our JSON, and `parameters` with the text that A1111's web UI
writes and reads. WebP and JPEG have the same two in EXIF: MakerNote holds our JSON (UTF-8 after
`Cygnet` and a zero byte), UserComment the text (big-endian UTF-16 after `UNICODE`, as A1111 does).
The same picture and request give the same bytes: no time and no place is written. WebP and JPEG
have quality 95, JPEG at full colour resolution.
"""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from shared.contract import GenerationRequest
from shared.images.a1111 import a1111_text
from shared.images.pixels import save
from shared.images.recipe import Stored
from shared.images.texts import OURS, OURS_IN_EXIF

_PREVIEW_SIDE = 256


def encode_image(image: Image.Image, request: GenerationRequest, revision: str | None) -> bytes:
    """The file of one RGB `image`, in the request's format, with `request` inside.

    `request` is the one that makes this image alone (`GenerationRequest.for_image`), `revision` the
    checkpoint's.
    """
    stored = Stored(request=request.model_dump(), revision=revision).model_dump_json()
    text = a1111_text(request)
    match request.output_format:
        case "png":
            chunks = PngInfo()
            chunks.add_text(OURS, stored)
            chunks.add_text("parameters", text)
            options: dict[str, Any] = {"pnginfo": chunks}
        case "webp":
            options = {"exif": _exif(stored, text), "quality": 95}
        case "jpeg":
            options = {"exif": _exif(stored, text), "quality": 95, "subsampling": "4:4:4"}
    return save(image, request.output_format, **options)


def preview_jpeg(image: Image.Image) -> bytes:
    """A small JPEG of an RGB `image`, at most 256 pixels a side, without its request."""
    small = image.copy()
    small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    return save(small, "jpeg", quality=80)


def _exif(stored: str, text: str) -> Image.Exif:
    exif = Image.Exif()
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    tags[ExifTags.Base.MakerNote] = OURS_IN_EXIF + stored.encode()
    tags[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif
