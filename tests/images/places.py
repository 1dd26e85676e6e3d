"""Pictures with a text inside, in every place where programs put one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import ExifTags, Image

PICTURE = Image.new("RGB", (16, 8), "#c0602a")

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
xmp:CreatorTool="A program"><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">%s</rdf:li></rdf:Alt>
</exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def saved(file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    PICTURE.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    """A PNG with these chunks before its pixels."""
    plain = saved("PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def named(name: str, text: str) -> bytes:
    """A PNG with an iTXt chunk, which has any letter."""
    return png(international(name, text))


def international(name: str, text: str, packed: bool = False) -> bytes:
    data = text.encode()
    head = name.encode("latin-1") + b"\0" + bytes([packed, 0]) + b"en\0\0"
    return chunk(b"iTXt", head + (zlib.compress(data) if packed else data))


def packed(name: str, data: bytes) -> bytes:
    return chunk(b"zTXt", name.encode("latin-1") + b"\0\0" + zlib.compress(data))


def plain(name: str, data: bytes) -> bytes:
    return chunk(b"tEXt", name.encode("latin-1") + b"\0" + data)


def exif(comment: bytes) -> bytes:
    block = Image.Exif()
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return block.tobytes()


def first_directory(tag: int, text: str) -> bytes:
    """EXIF with a text where its first tags are, as Pillow writes what it is given."""
    block = Image.Exif()
    block[tag] = text.encode()
    return block.tobytes()


def xmp(text: str) -> bytes:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (XMP % escaped).encode()


CODES: dict[str, Callable[[str], bytes]] = {
    "ascii": lambda text: b"ASCII\0\0\0" + text.encode(),
    "ascii, ended by a zero": lambda text: b"ASCII\0\0\0" + text.encode() + b"\0",
    "unicode, big-endian": lambda text: b"UNICODE\0" + text.encode("utf-16-be"),
    "unicode, little-endian": lambda text: b"UNICODE\0" + text.encode("utf-16-le"),
    "unicode, marked big": lambda text: b"UNICODE\0\xfe\xff" + text.encode("utf-16-be"),
    "unicode, marked little": lambda text: b"UNICODE\0\xff\xfe" + text.encode("utf-16-le"),
    "unicode that is UTF-8": lambda text: b"UNICODE\0" + text.encode(),
    "undefined": lambda text: bytes(8) + text.encode(),
    "undefined, wide": lambda text: bytes(8) + text.encode("utf-16-le"),
    "none": lambda text: text.encode(),
    "jis": lambda text: b"JIS\0\0\0\0\0" + text.encode("iso2022_jp"),
}
"""What a UserComment begins with, and how its letters follow."""

PNG_PLACES: dict[str, Callable[[str, str], bytes]] = {
    "iTXt": named,
    "iTXt, packed": lambda name, text: png(international(name, text, packed=True)),
    "tEXt in UTF-8": lambda name, text: png(plain(name, text.encode())),
    "zTXt in UTF-8": lambda name, text: png(packed(name, text.encode())),
    "behind the pixels": lambda name, text: (
        saved("PNG")[:-12] + international(name, text) + saved("PNG")[-12:]
    ),
}
"""By name, as only PNG has them."""

PLACES: dict[str, Callable[[str], bytes]] = {
    **{
        f"{kind}, UserComment, {code}": lambda text, kind=kind, code=code: saved(
            kind, exif=exif(CODES[code](text))
        )
        for kind in ("PNG", "WEBP", "JPEG")
        for code in CODES
    },
    **{
        f"{kind}, {tag.name}": lambda text, kind=kind, tag=tag: saved(
            kind, exif=first_directory(tag, text)
        )
        for kind in ("PNG", "WEBP", "JPEG")
        for tag in (ExifTags.Base.ImageDescription, ExifTags.Base.UserComment)
    },
    "PNG, XMP": lambda text: named("XML:com.adobe.xmp", xmp(text).decode()),
    "WEBP, XMP": lambda text: saved("WEBP", xmp=xmp(text)),
    "JPEG, XMP": lambda text: saved("JPEG", xmp=xmp(text)),
    "JPEG, COM": lambda text: saved("JPEG", comment=text.encode()),
    "PNG, ImageMagick's profile": lambda text: png(
        packed(
            "Raw profile type exif",
            b"\nexif\n%8d\n" % len(exif(text.encode()))
            + exif(text.encode()).hex().encode()
            + b"\n",
        )
    ),
}
"""Those without a name."""
