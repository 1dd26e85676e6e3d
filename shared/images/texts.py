"""Every text of a file that may say how the picture was made, wherever programs put them.

PNG has texts under names, in three kinds of chunks. All three formats may have EXIF and XMP, JPEG plain
comments as well. A text is unpacked no further than its limit, and one that nobody needs may be anything.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree

from shared.images import exif
from shared.images.container import Container, Part, body, read_container
from shared.images.limits import MAX_JSON, MAX_TEXT

OURS = "cygnet"
OURS_IN_EXIF = b"Cygnet\0"

NAMES = (
    "parameters",
    "invokeai_metadata",
    "sd-metadata",
    "Dream",
    "generation_data",
    "Comment",
    "Description",
    "prompt",
)
"""PNG's names under which programs write recipes, the surest first. `workflow` is a drawing of the graph in
`prompt`."""

OF_ANYTHING = ("Comment", "Description")
"""Those of them that are in pictures of every kind, where what cannot be read is likely to be nothing of
ours."""

_MOST_OTHERS = 64
_MOST_EXIF = 4 * MAX_JSON
_MOST_XMP = 2**18
_MOST_COMMENTS = 16
_MOST_HEAD = 512  # of a chunk, before its text: two names and a language
_XMP = ("XML:com.adobe.xmp", "Raw profile type xmp")
_EXIF_PROFILES = ("Raw profile type exif", "Raw profile type APP1")  # as ImageMagick writes it
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_TEXTS = {"UserComment", "description", "ImageDescription", "parameters"}
_DAMAGED = "its settings are damaged"
_PREFIXED = re.compile(r"\s*(?:prompt|parameters)\s*:", re.I)


@dataclass
class Texts:
    """What was found."""

    ours: str | None = None
    """Our own JSON."""
    named: dict[str, str] = field(default_factory=dict)
    """By PNG's names for them, those of `NAMES` first."""
    loose: list[str] = field(default_factory=list)
    """Comments and descriptions of EXIF, XMP and JPEG."""
    faults: list[str] = field(default_factory=list)
    """Of texts that may be recipes but cannot be read."""
    ours_fault: str = ""


def read_texts(file: BinaryIO) -> Texts:
    """Raises `UnreadableImage` if the file is no whole picture."""
    container = read_container(file)
    texts = Texts()
    match container.facts.format:
        case "png":
            _png(file, container, texts)
        case "webp":
            _exif(_first(file, container, b"EXIF", _MOST_EXIF), texts)
            _xmp(_first(file, container, b"XMP ", _MOST_XMP), texts)
        case "jpeg":
            _jpeg(file, container, texts)
    return texts


def _first(file: BinaryIO, container: Container, kind: bytes, most: int) -> bytes:
    """The first bytes of the first part of that kind, if there is one."""
    return next((body(file, part, most) for part in container.parts if part.kind == kind), b"")


# PNG


def _png(file: BinaryIO, container: Container, texts: Texts) -> None:
    chunks: dict[str, Part] = {}
    for part in container.parts:
        if part.kind in (b"tEXt", b"zTXt", b"iTXt"):
            name = body(file, part, 80).split(b"\0")[0].decode("latin-1")
            chunks.setdefault(name, part)
    if OURS in chunks:
        texts.ours, texts.ours_fault = _chunk(file, chunks.pop(OURS), MAX_TEXT, ours=True)
    surest = [name for name in (*NAMES, *_XMP, *_EXIF_PROFILES) if name in chunks]
    others = [name for name in chunks if name not in surest and name != "workflow"]
    for name in (*surest, *others[:_MOST_OTHERS]):
        text, fault = _chunk(file, chunks[name], MAX_JSON if name in surest else MAX_TEXT)
        if name in _XMP:
            _xmp(_profile(text) if name.startswith("Raw") else text.encode(), texts)
        elif name in _EXIF_PROFILES:
            _exif(_profile(text), texts)
        elif text:
            texts.named[name] = text
        if fault and name in NAMES and name not in OF_ANYTHING:
            texts.faults.append(fault)
    _exif(_first(file, container, b"eXIf", _MOST_EXIF), texts)


def _chunk(file: BinaryIO, part: Part, most: int, *, ours: bool = False) -> tuple[str, str]:
    """The text of a chunk, or what is wrong with it. Where it has to be Latin-1, others write UTF-8."""
    data = body(file, part, most + _MOST_HEAD)
    if len(data) < part.length:
        return "", _too_long(most)
    if zlib.crc32(part.kind + data) != _checksum(file, part):
        return "", _DAMAGED
    try:
        raw = _unpacked(part.kind, data, most)
    except (ValueError, IndexError, zlib.error):
        return "", _DAMAGED
    if len(raw) > most:
        return "", _too_long(most)
    if part.kind == b"iTXt":
        return raw.decode(errors="replace"), ""
    return raw.decode("latin-1") if ours else decoded(raw), ""


def _too_long(most: int) -> str:
    return f"its settings are longer than {most // 2**10} KiB"


def _checksum(file: BinaryIO, part: Part) -> int:
    file.seek(part.body + part.length)
    return int.from_bytes(file.read(4), "big")


def _unpacked(kind: bytes, data: bytes, most: int) -> bytes:
    """The bytes of a text, of one that is too long at least one too many."""
    _, rest = data.split(b"\0", 1)
    if kind == b"tEXt":
        return rest
    packed = kind == b"zTXt" or rest[0] == 1
    if kind == b"zTXt":
        rest = rest[1:]
    else:
        _language, _translated, rest = rest[2:].split(b"\0", 2)
    if not packed:
        return rest
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(rest, most + 1)
    if len(raw) <= most and not unpacker.eof:
        raise ValueError("it is cut off")
    return raw


def _profile(text: str) -> bytes:
    """The bytes that ImageMagick wrote in hexadecimal, behind a name and a length."""
    with contextlib.suppress(ValueError):
        return bytes.fromhex("".join(text.strip().split("\n")[2:]))
    return b""


# JPEG


def _jpeg(file: BinaryIO, container: Container, texts: Texts) -> None:
    block = b""
    packets = 0
    for part in container.parts:
        if part.kind == b"\xfe" and len(texts.loose) < _MOST_COMMENTS:
            texts.loose.append(decoded(body(file, part, 2**16)))
        if part.kind != b"\xe1":
            continue
        data = body(file, part, 2**16)
        if data.startswith(_XMP_HEAD) and not packets:
            packets = 1
            _xmp(data.removeprefix(_XMP_HEAD), texts)
        elif data.startswith(exif.PREFIX) and len(block) < _MOST_EXIF:
            block += data.removeprefix(
                exif.PREFIX
            )  # one too long for a segment goes on in the next
    _exif(block, texts)


# EXIF and XMP, wherever they lie


def _exif(block: bytes, texts: Texts) -> None:
    tags = exif.read_tags(block)
    note = tags.get(exif.MAKER_NOTE, b"")
    if texts.ours is None and note.startswith(OURS_IN_EXIF):
        ours = note.removeprefix(OURS_IN_EXIF)
        if len(ours) > MAX_TEXT:
            texts.ours_fault = _too_long(MAX_TEXT)
        texts.ours = ours.decode(errors="replace")
    for tag in (exif.COMMENT, exif.XP_COMMENT, exif.DESCRIPTION, exif.MODEL, exif.MAKE):
        text = _comment(tags[tag]) if tag in tags else ""
        # A camera writes its name and its maker's; ComfyUI writes there what it has, with a word before it.
        if text and (tag not in (exif.MODEL, exif.MAKE) or _PREFIXED.match(text)):
            texts.loose.append(text)


def _comment(value: bytes) -> str:
    """The text of a comment, whose first eight bytes may name its letters' code."""
    code, rest = value[:8].rstrip(b"\0 ").upper(), value[8:]
    if code == b"JIS":
        with contextlib.suppress(UnicodeDecodeError):
            return rest.decode("iso2022_jp").strip("\0 ")
    if code in (b"ASCII", b"UNICODE", b"JIS") or not value[:8].strip(b"\0"):
        return decoded(rest, wide=code == b"UNICODE")
    return decoded(value)


def _xmp(data: bytes, texts: Texts) -> None:
    """Add the comments and descriptions of an XMP packet. One that declares entities is not read."""
    text = decoded(data).strip()
    if "<!DOCTYPE" in text or "<!ENTITY" in text or len(data) == _MOST_XMP:
        return
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return
    found = itertools.islice(_xmp_texts(tree), _MOST_COMMENTS)
    texts.loose += [text for text in found if text.strip()]


def _xmp_texts(tree: ElementTree.Element) -> Iterator[str]:
    for element in tree.iter():
        if element.tag.rpartition("}")[2] in _XMP_TEXTS:
            yield "".join(element.itertext())
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in _XMP_TEXTS:
                yield value


def decoded(raw: bytes, *, wide: bool = False) -> str:
    """The text of bytes that do not reliably say in which code their letters are.

    `wide` if they claim to be UTF-16. Else that is known by its mark, or by the zero bytes of Latin letters.
    What is not UTF-16 is UTF-8 where that works; else Latin-1, with Windows' letters in place of controls.
    """
    raw = raw.rstrip(b"\0")
    if len(raw) % 2 and b"\0" in raw:
        raw += b"\0"  # half of the last letter
    if raw.startswith((b"\xfe\xff", b"\xff\xfe")):
        return raw.decode("utf-16", errors="replace")
    zeros = raw.count(0)
    if zeros > len(raw) // 8 or (wide and (zeros or not _is_utf8(raw))):
        return raw.decode(_byte_order(raw), errors="replace")
    if _is_utf8(raw):
        return raw.decode("utf-8-sig")
    with contextlib.suppress(UnicodeDecodeError):  # a few bytes are no letter of Windows' either
        return raw.decode("cp1252")
    return raw.decode("latin-1")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _byte_order(raw: bytes) -> str:
    """The order in which a recipe's own words appear or, without one, most zero bytes are high ones."""
    for order in ("utf-16-be", "utf-16-le"):
        text = raw.decode(order, errors="replace")
        if any(word in text for word in ("Steps:", '":', '" :')):
            return order
    return "utf-16-be" if raw[::2].count(0) >= raw[1::2].count(0) else "utf-16-le"
