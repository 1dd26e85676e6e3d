"""Whatever a file holds, it is a recipe, a picture without one, or unreadable; and it costs little memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.errors import NoRecipeInImage, UnreadableImage
from shared.images import MAX_DECODED, MAX_JSON, facts, read_recipe, small_image, thumbnail
from tests.images.forms import COMFYUI, FORMS, graph
from tests.images.places import CODES, PLACES, PNG_PLACES, chunk, exif, named, plain, png, saved

WHOLE = [
    *(put(FORMS["A1111 and its extensions"][1]) for put in PLACES.values()),
    *(
        put("prompt", json.dumps(COMFYUI["SDXL, combined and joined"]))
        for put in PNG_PLACES.values()
    ),
    *(put("Comment", FORMS["NovelAI"][1]) for put in PNG_PLACES.values()),
]


def outcome(data: bytes) -> str:
    """What becomes of a file, at each of the three things that are done with one."""
    for act in (facts, lambda data: thumbnail(data, 16)):
        try:
            act(data)
        except UnreadableImage as error:
            assert error.next_step
    try:
        return read_recipe(data).writer
    except (UnreadableImage, NoRecipeInImage) as error:
        return error.code


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_gives_one_of_three_outcomes(seed: int) -> None:
    dice = random.Random(seed)
    seen = set()
    for _ in range(400):
        data = bytearray(dice.choice(WHOLE))
        for _ in range(dice.randint(1, 6)):
            place = dice.randrange(len(data))
            match dice.randrange(4):
                case 0:
                    data[place] = dice.randrange(256)
                case 1:
                    del data[place : place + dice.randrange(20)]
                case 2:
                    data[place:place] = dice.randbytes(dice.randrange(8))
                case 3:
                    data[place : place + 4] = dice.choice(
                        [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]
                    )
            data = data or bytearray(1)
        seen.add(outcome(bytes(data)))
    assert "unreadable_image" in seen


def remade(data: bytes, dice: random.Random) -> bytes:
    """A PNG with every chunk damaged at random and its checksum set right again."""
    made, at = [data[:8]], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = bytearray(data[at + 8 : at + 8 + length])
        if body and dice.random() < 0.5:
            body[dice.randrange(len(body))] = dice.randrange(256)
        made.append(chunk(data[at + 4 : at + 8], bytes(body)))
        at += length + 12
    return b"".join(made)


@pytest.mark.parametrize("seed", range(4))
def test_damage_that_its_checksums_hide_gives_one_of_three_outcomes(seed: int) -> None:
    dice = random.Random(seed)
    paletted, buffer = Image.new("P", (9, 9)), BytesIO()
    paletted.save(buffer, "PNG", transparency=b"\0\1")
    pngs = [*(data for data in WHOLE if data.startswith(b"\x89PNG")), buffer.getvalue()]
    for _ in range(300):
        outcome(remade(dice.choice(pngs), dice))


@given(
    st.binary(), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8 "])
)
def test_any_bytes_after_a_formats_first_give_one_of_three_outcomes(
    tail: bytes, head: bytes
) -> None:
    outcome(head + tail)


@given(st.binary(max_size=200), st.sampled_from([*CODES, ""]))
def test_any_comment_gives_one_of_three_outcomes(tail: bytes, code: str) -> None:
    outcome(saved("JPEG", exif=exif((CODES[code]("") if code else b"") + tail)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "prompt",
        "seed",
        "steps",
        "image",
        "Comment",
        "uc",
        "c",
        "sampler",
        "sui_image_params",
        "software",
        "extraMetadata",
        "positive_prompt",
        "size",
        "model",
        "resolution",
        "scheduler",
        "cfg_scale",
    ]
)


@given(st.dictionaries(NAMES, VALUES))
def test_any_json_gives_one_of_three_outcomes(found: dict[str, Any]) -> None:
    outcome(named("parameters", json.dumps(found)))


LINKS = st.lists(st.sampled_from(["3", "4", "5", "6", "7", "8", 3, None]) | VALUES, max_size=3)
INPUTS = st.sampled_from(
    [
        "positive",
        "negative",
        "text",
        "seed",
        "steps",
        "noise",
        "guider",
        "sampler",
        "latent_image",
        "string_a",
        "value",
        "conditioning",
        "width",
        "cfg",
        "sampler_name",
        "text_embeds",
    ]
)


@given(st.dictionaries(st.sampled_from("345678"), st.dictionaries(INPUTS, LINKS | VALUES)))
def test_any_graph_gives_one_of_three_outcomes(nodes: dict[str, dict[str, Any]]) -> None:
    changed = {key: {"class_type": "KSampler", "inputs": inputs} for key, inputs in nodes.items()}
    outcome(named("prompt", json.dumps(graph(**changed))))


def test_a_graph_that_bites_its_tail_ends() -> None:
    node = {"class_type": "ConditioningCombine", "inputs": {"a": ["6", 0], "b": ["6", 0]}}
    assert read_recipe(named("prompt", json.dumps(graph(**{"6": node})))).fields["prompt"] == ""


def test_a_graph_whose_ways_double_at_each_node_ends() -> None:
    ways = {
        str(number): {
            "class_type": "ConditioningCombine",
            "inputs": {"a": [str(number + 1), 0], "b": [str(number + 1), 0]},
        }
        for number in range(100, 5000)
    }
    whole = graph(**ways, **{"6": {"class_type": "Reroute", "inputs": {"": ["100", 0]}}})
    assert outcome(named("prompt", json.dumps(whole))) == "comfyui"


@pytest.mark.parametrize(
    "text", ["[" * MAX_JSON, '{"a":' * (MAX_JSON // 5), '{"prompt": ' + "9" * 9999]
)
def test_json_that_is_hard_to_read_is_no_recipe(text: str) -> None:
    assert outcome(named("prompt", text)) in ("no_recipe_in_image", "unreadable_image")


def test_a_damaged_palette_is_a_damaged_picture() -> None:
    """Pillow raises an AssertionError for it."""
    whole = saved("PNG")
    header = chunk(b"IHDR", whole[16:25].replace(b"\x08\x02", b"\x08\x03") + whole[25:29])
    pixels = chunk(b"IDAT", zlib.compress(bytes(17) * 8)) + chunk(b"IEND", b"")
    odd = whole[:8] + header + chunk(b"tRNS", b"\0\1") + pixels
    with pytest.raises(UnreadableImage, match="it is damaged"):
        small_image(odd, 16)


@pytest.mark.parametrize(
    "fault",
    [AssertionError, MemoryError, OverflowError, SyntaxError, ZeroDivisionError, UserWarning],
)
def test_whatever_pillow_raises_the_file_is_at_fault(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise fault("of some kind")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImage, match="it is damaged"):
        thumbnail(saved("PNG"), 16)


def test_texts_that_nobody_needs_do_not_keep_a_picture_from_being_shown() -> None:
    bomb = chunk(b"zTXt", b"notes\0\0" + zlib.compress(bytes(2**24)))
    profile = chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(2**24)))
    for extra in (
        bomb,
        profile,
        plain("a", b"x" * 2**21),
        chunk(b"acTL", b""),
        chunk(b"eXIf", b"MM"),
    ):
        assert small_image(png(extra), 16).size == (16, 8)
    for file_format in ("WEBP", "JPEG"):
        whole = saved(file_format, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", icc_profile=b"none")
        assert small_image(whole, 16).size == (16, 8)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG"])
def test_a_picture_larger_than_any_that_is_drawn_is_not_unpacked(file_format: str) -> None:
    side = int(MAX_DECODED**0.5)
    for width, height in ((side, side), (side + 1, side)):
        buffer = BytesIO()
        Image.new("RGB", (width, height)).save(buffer, file_format)
        if width * height <= MAX_DECODED:
            assert small_image(buffer.getvalue(), 8).size == (8, 8)
        else:
            with pytest.raises(UnreadableImage, match="too many to be shown small"):
                small_image(buffer.getvalue(), 8)


def single_colour_webp(side: int) -> bytes:
    """A lossless WebP of one colour: every Huffman code has one symbol, so that no pixel takes a bit."""
    bits, length = 0, 0
    for value, count in ((0x2F, 8), (side - 1, 14), (side - 1, 14), (0, 4), (0, 1), (0, 1), (0, 1)):
        bits |= value << length
        length += count
    for _ in range(5):  # a simple code of one symbol of one bit, which is 0
        bits |= 0b0001 << length
        length += 4
    body = bits.to_bytes((length + 7) // 8 + 1, "little")
    body += bytes(len(body) % 2)
    data = b"WEBPVP8L" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + len(data).to_bytes(4, "little") + data


def claiming_jpeg(side: int) -> bytes:
    """A small JPEG that says it is a large one."""
    small = saved("JPEG")
    frame = small.index(b"\xff\xc0")
    sides = side.to_bytes(2, "big") * 2
    return small[: frame + 5] + sides + small[frame + 9 :]


def exif_bomb() -> bytes:
    """Entries by the thousand that all claim the whole block."""
    size, count = 2**20, 60_000
    entries = b"".join(
        number.to_bytes(2, "big") + b"\0\7" + size.to_bytes(4, "big") + bytes(4)
        for number in range(count)
    )
    return b"MM\0*\0\0\0\x08" + count.to_bytes(2, "big") + entries + bytes(size)


BOMBS: dict[str, Callable[[], bytes]] = {
    "a WebP of a few bytes": lambda: single_colour_webp(8192),
    "a JPEG that claims much": lambda: claiming_jpeg(8192),
    "a packed text": lambda: png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(2**27)))),
    "a packed text in UTF-8": lambda: png(
        chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(bytes(2**27)))
    ),
    "packed texts": lambda: png(
        *(chunk(b"zTXt", b"n%d\0\0" % n + zlib.compress(bytes(2**16))) for n in range(2000))
    ),
    "a colour profile": lambda: png(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**27)))),
    "EXIF in a PNG": lambda: png(chunk(b"eXIf", exif_bomb())),
    "EXIF in a WebP": lambda: saved("WEBP", exif=exif_bomb()),
    "empty objects": lambda: named("prompt", '{"a":[' + "{}," * (MAX_JSON // 3 - 9) + "{}]}"),
    "XMP of many depths": lambda: named(
        "XML:com.adobe.xmp", "<description>" * 8000 + "x" * 9999 + "</description>" * 8000
    ),
    "XMP of many entities": lambda: named(
        "XML:com.adobe.xmp",
        '<!DOCTYPE x [<!ENTITY a "' + "a" * 999 + '">'
        + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(8))
        + "]><description>&i;</description>",
    ),
}  # fmt: skip
MOST_MIB = 100

PROGRAM = """
import resource, sys, threading
from pathlib import Path
from PIL import Image
from shared.errors import NoRecipeInImage, UnreadableImage
from shared.images import facts, read_recipe, thumbnail

Image.init()
data = Path(sys.argv[1]).read_bytes()

def use():
    for act in (facts, read_recipe, lambda data: thumbnail(data, 256)):
        try:
            act(data)
        except (NoRecipeInImage, UnreadableImage):
            pass

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
uses = [threading.Thread(target=use) for _ in range(6)]
for one in uses:
    one.start()
for one in uses:
    one.join()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_does_not_become_a_large_one_in_memory(bomb: str, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(BOMBS[bomb]())
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "bomb"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) < MOST_MIB


def test_the_bombs_are_what_they_claim_to_be() -> None:
    for name in ("a WebP of a few bytes", "a JPEG that claims much"):
        data = BOMBS[name]()
        assert len(data) < 2000
        assert (facts(data).width, facts(data).height) == (8192, 8192)
    with Image.open(BytesIO(single_colour_webp(64))) as image:  # as small a one can be looked at
        assert image.convert("RGB").getcolors() is not None
