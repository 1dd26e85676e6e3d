"""Pictures as files: the request that made a picture is written inside it, and read back.

PNG has two text chunks: `cygnet` with our JSON, and `parameters` with the text that A1111's web UI
writes and reads. WebP and JPEG have the same two in EXIF: MakerNote holds our JSON (UTF-8 after
`Cygnet` and a zero byte), UserComment the text (big-endian UTF-16 after `UNICODE`, as A1111 does).
The same picture and request give the same bytes: no time and no place is written. WebP and JPEG
have quality 95, JPEG at full colour resolution.

Files that are read are hostile until proven good: their bytes, pixels and texts are limited.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile, PngInfo
from pydantic import BaseModel, ConfigDict, ValidationError

from shared import __version__
from shared.checkpoints import SAMPLER_NAMES, get_checkpoint
from shared.contract import GenerationRequest
from shared.errors import NoRecipeInImage, UnknownCheckpoint, UnreadableImage
from shared.formats import PILLOW
from shared.numbers import number_from_text

MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 8192 * 8192
MAX_TEXT = 64 * 2**10

_JSON_CHUNK, _TEXT_CHUNK = "cygnet", "parameters"
_JSON_PREFIX, _TEXT_PREFIX = b"Cygnet\0", b"UNICODE\0"

_PREVIEW_SIDE = 256

# What Pillow raises for a damaged file; Warning where the process turns warnings into errors.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Warning)


@dataclass(frozen=True)
class Recipe:
    """What a picture's file says about how the picture was made."""

    writer: Literal["cygnet", "a1111"]
    fields: dict[str, Any]
    """For `parse_request`, which checks them; from A1111 only what has a counterpart here."""
    revision: str | None = None
    """Of the checkpoint; None if unpinned or unknown."""
    ignored: dict[str, str] = field(default_factory=dict)
    """The settings without a counterpart, as written."""


class _Stored(BaseModel):
    """Our JSON. Another shape gets another version number."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    request: dict[str, Any]
    revision: str | None


def encode_image(image: Image.Image, request: GenerationRequest, revision: str | None) -> bytes:
    """The file of one RGB `image`, in the request's format, with `request` inside.

    `request` is the one that makes this image alone (`GenerationRequest.for_image`), `revision` the
    checkpoint's.
    """
    stored = _Stored(request=request.model_dump(), revision=revision).model_dump_json()
    text = a1111_text(request)
    match request.output_format:
        case "png":
            chunks = PngInfo()
            chunks.add_text(_JSON_CHUNK, stored)
            chunks.add_text(_TEXT_CHUNK, text)
            options: dict[str, Any] = {"pnginfo": chunks}
        case "webp":
            options = {"exif": _exif(stored, text), "quality": 95}
        case "jpeg":
            options = {"exif": _exif(stored, text), "quality": 95, "subsampling": "4:4:4"}
    return _save(image, request.output_format, **options)


def preview_jpeg(image: Image.Image) -> bytes:
    """A small JPEG of an RGB `image`, at most 256 pixels a side, without its request."""
    small = image.copy()
    small.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
    return _save(small, "jpeg", quality=80)


def thumbnail(data: bytes, side: int) -> bytes:
    """A JPEG of the picture in the file `data`, at most `side` pixels a side, never enlarged.

    Raises `UnreadableImage`.
    """
    return _save(small_image(data, side), "jpeg", quality=85)


def small_image(source: bytes | Path, side: int) -> Image.Image:
    """The RGB picture in a file, at most `side` pixels a side, never enlarged.

    Raises `UnreadableImage`.
    """
    data = source if isinstance(source, bytes) else _read_file(source)
    try:
        with Image.open(BytesIO(data), formats=PILLOW) as image:
            small = image.convert("RGB")
    except (*_DAMAGED, Image.DecompressionBombError):
        raise _unreadable("it is damaged") from None
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def recompress(data: bytes, quality: int) -> bytes:
    """The WebP or JPEG file `data` at another quality, 0 to 100, its request still inside."""
    with Image.open(BytesIO(data), formats=("WEBP", "JPEG")) as image:
        return _save(image, image.format or "", exif=image.getexif(), quality=quality)


def _save(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format.upper(), **options)
    return buffer.getvalue()


def _exif(stored: str, text: str) -> Image.Exif:
    exif = Image.Exif()
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    tags[ExifTags.Base.MakerNote] = _JSON_PREFIX + stored.encode()
    tags[ExifTags.Base.UserComment] = _TEXT_PREFIX + text.encode("utf-16-be")
    return exif


def read_recipe(source: bytes | Path) -> Recipe:
    """The recipe inside a PNG, WebP or JPEG file, ours where there is one, else A1111's.

    Raises `UnreadableImage` if the file is missing, damaged or too large, `NoRecipeInImage` if the
    picture is fine but says nothing about how it was made.
    """
    data = source if isinstance(source, bytes) else _read_file(source)
    if len(data) > MAX_FILE_BYTES:
        raise _unreadable(f"it is larger than {MAX_FILE_BYTES // 2**20} MiB")
    stored, text = _texts(data)
    if max(len(stored), len(text)) > MAX_TEXT:
        raise _unreadable(f"its settings are longer than {MAX_TEXT // 2**10} KiB")
    if stored:
        try:
            ours = _Stored.model_validate_json(stored)
        except ValidationError:
            raise _unreadable("its settings are damaged, or from another version") from None
        return Recipe("cygnet", ours.request, ours.revision)
    if text.strip():
        return parse_a1111(text)
    raise NoRecipeInImage(
        "The picture does not say how it was made.",
        "Choose one made by Cygnet or A1111 that was not edited or sent through a messenger since.",
    )


def _read_file(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise _unreadable("it is not a file")
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(f"{path}: {error.strerror}") from None


def _texts(data: bytes) -> tuple[str, str]:
    """Our JSON and A1111's text, each empty if it is not there."""
    try:
        with Image.open(BytesIO(data), formats=PILLOW) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _unreadable(f"it has more than {MAX_PIXELS:,} pixels")
            image.load()  # finds what is cut off, and the chunks behind the pixels
            if isinstance(image, PngImageFile) and image.text.keys() & {_JSON_CHUNK, _TEXT_CHUNK}:
                return image.text.get(_JSON_CHUNK, ""), image.text.get(_TEXT_CHUNK, "")
            tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
            note = tags.get(ExifTags.Base.MakerNote)
            comment = tags.get(ExifTags.Base.UserComment)
    except Image.UnidentifiedImageError:
        raise _unreadable("it is no PNG, WebP or JPEG, or is damaged") from None
    except (*_DAMAGED, Image.DecompressionBombError):
        raise _unreadable("it is damaged") from None
    stored = ""
    if isinstance(note, bytes) and note.startswith(_JSON_PREFIX):
        stored = note.removeprefix(_JSON_PREFIX).decode(errors="replace")
    return stored, _comment_text(comment) if isinstance(comment, bytes) else ""


def _comment_text(comment: bytes) -> str:
    """The text of an EXIF UserComment, whose first eight bytes name its encoding."""
    body = comment[8:]
    if not comment.startswith(_TEXT_PREFIX):
        return body.decode(errors="replace").strip("\0 ")
    big, little = (body.decode(order, errors="replace") for order in ("utf-16-be", "utf-16-le"))
    # A1111 writes big-endian, other tools the order of the EXIF block; only one makes sense.
    return little if "Steps: " in little else big


def _unreadable(fault: str) -> UnreadableImage:
    return UnreadableImage(
        f"The picture cannot be read: {fault}.", "Give a whole PNG, WebP or JPEG file."
    )


def a1111_text(request: GenerationRequest) -> str:
    """The text that A1111's web UI writes into its pictures, for a picture of ours."""
    settings = {
        "Steps": request.steps,
        "Sampler": SAMPLER_NAMES[request.scheduler],
        "CFG scale": request.guidance_scale,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": _quoted(request.checkpoint),
        "Version": f"Cygnet {__version__}",
    }
    negative = [f"Negative prompt: {request.negative_prompt}"] if request.negative_prompt else []
    last = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return "\n".join([request.prompt, *negative, last])


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


# One `Name: value` of the last line. A name's length is bounded to keep the search linear.
_SETTING = re.compile(r'(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_FEWEST_SETTINGS = 3  # with fewer, A1111 takes the last line as part of the prompt


def parse_a1111(text: str) -> Recipe:
    """The recipe in A1111's text: prompt, negative prompt, and a last line of settings."""
    lines = text.strip().split("\n")
    found = _SETTING.findall(lines[-1])
    settings: dict[str, str] = {}
    if len(found) >= _FEWEST_SETTINGS:
        settings = {name: _unquoted(value.strip()) for name, value in found}
        lines.pop()
    prompt, *negative = re.split("^Negative prompt:", "\n".join(lines), maxsplit=1, flags=re.M)
    fields: dict[str, Any] = {
        "prompt": prompt.strip(),
        "negative_prompt": "".join(negative).strip(),
    }
    ignored: dict[str, str] = {}
    for name, value in settings.items():
        if (ours := _our_fields(name, value)) is None:
            ignored[name] = value
        else:
            fields |= ours
    return Recipe("a1111", fields, ignored=ignored)


def _our_fields(name: str, value: str) -> dict[str, Any] | None:
    """A setting of A1111's as fields of a request, or None if it has no counterpart."""
    match name:
        case "Steps":
            return {"steps": number_from_text(value)}
        case "CFG scale":
            return {"guidance_scale": number_from_text(value)}
        case "Seed":
            return {"seed": number_from_text(value)}
        case "Size" if value.count("x") == 1:
            width, height = map(number_from_text, value.split("x"))
            return {"width": width, "height": height}
        case "Sampler":
            ours = [key for key, theirs in SAMPLER_NAMES.items() if theirs == value]
            return {"scheduler": ours[0]} if ours else None
        case "Model":
            try:
                return {"checkpoint": get_checkpoint(value).name}
            except UnknownCheckpoint:
                return None
        case _:
            return None


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value
