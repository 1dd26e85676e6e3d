"""A picture's file carries its request, and a hostile file does no harm."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, JpegImagePlugin
from PIL.PngImagePlugin import PngImageFile, PngInfo

from shared.backends.fake import draw
from shared.checkpoints import SAMPLER_NAMES, SchedulerName
from shared.contract import GenerationRequest, OutputFormat, parse_request
from shared.errors import CygnetError, InvalidRequest, NoRecipeInImage, UnreadableImage
from shared.images import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    MAX_TEXT,
    Recipe,
    a1111_text,
    encode_image,
    parse_a1111,
    preview_jpeg,
    read_recipe,
    recompress,
    thumbnail,
)

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
PICTURE = draw(1, 64, 64)
HARD_PROMPTS = (
    "a red fox",
    "un renard très rusé",
    "狐狸 in 雪 🦊👩‍👩‍👧",
    'a "quoted" \\ prompt, Steps: 20, Seed: 3, Size: 1x1',
    "Negative prompt: nothing",
    "lines\u2028and\u2029paragraphs",
)
A1111 = """a castle on a hill,
(masterpiece:1.2)
Negative prompt: blurry,
low quality
Steps: 28, Sampler: Euler, Schedule type: Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, \
Model hash: abcdef, Model: dream, Lora hashes: "a: 1, b: 2", Version: v1.9"""


def request(**fields: Any) -> GenerationRequest:
    return parse_request({"prompt": "a fox", "seed": 1} | fields)


def read_a1111(text: str) -> Recipe:
    recipe = parse_a1111(text)
    assert recipe
    return recipe


def with_text(**chunks: str) -> bytes:
    info = PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    buffer = BytesIO()
    PICTURE.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def with_comment(comment: bytes, file_format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    buffer = BytesIO()
    PICTURE.save(buffer, file_format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("prompt", HARD_PROMPTS)
def test_a_file_gives_back_the_request_that_made_it(prompt: str, output_format: str) -> None:
    asked = request(prompt=prompt, negative_prompt=prompt, output_format=output_format)
    recipe = read_recipe(encode_image(PICTURE, asked, "abc123"))
    assert (recipe.writer, recipe.revision, recipe.ignored) == ("cygnet", "abc123", {})
    assert parse_request(recipe.fields) == asked


@given(st.text(), st.text(), st.sampled_from(FORMATS), st.none() | st.text())
def test_any_text_survives_the_journey(
    prompt: str, negative: str, output_format: str, revision: str | None
) -> None:
    asked = request(prompt=f"a{prompt}", negative_prompt=negative, output_format=output_format)
    revision = revision and revision.encode(errors="replace").decode()
    recipe = read_recipe(encode_image(PICTURE, asked, revision))
    assert parse_request(recipe.fields) == asked
    assert recipe.revision == revision


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_longest_request_fits(output_format: str) -> None:
    longest = "🦊" * 2000
    asked = request(prompt=longest, negative_prompt=longest, output_format=output_format)
    assert parse_request(read_recipe(encode_image(PICTURE, asked, None)).fields) == asked


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_same_picture_and_request_give_the_same_bytes(output_format: str) -> None:
    asked = request(output_format=output_format)
    first, second = (encode_image(draw(1, 64, 64), asked, None) for _ in range(2))
    assert first == second
    with Image.open(BytesIO(first)) as image:
        assert image.format == output_format.upper()
        assert image.size == (64, 64)


def test_a_png_keeps_every_pixel() -> None:
    with Image.open(BytesIO(encode_image(PICTURE, request(), None))) as image:
        assert image.tobytes() == PICTURE.tobytes()


def test_a_jpeg_keeps_its_colours_at_full_resolution() -> None:
    data = encode_image(PICTURE, request(output_format="jpeg"), None)
    with Image.open(BytesIO(data)) as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


def test_other_programs_find_the_text_where_they_look_for_it() -> None:
    asked = request(prompt="a fox 🦊", negative_prompt="cats")
    expected = a1111_text(asked)
    with Image.open(BytesIO(encode_image(PICTURE, asked, None))) as image:
        assert isinstance(image, PngImageFile)
        assert image.text["parameters"] == expected
    for output_format in ("webp", "jpeg"):
        data = encode_image(
            PICTURE, asked.model_copy(update={"output_format": output_format}), None
        )
        with Image.open(BytesIO(data)) as image:
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert comment == b"UNICODE\0" + expected.encode("utf-16-be")


def test_our_a1111_text_reads_as_a1111_writes_it() -> None:
    assert a1111_text(request(negative_prompt="cats")).split(", Version")[0] == (
        "a fox\nNegative prompt: cats\nSteps: 20, Sampler: UniPC, CFG scale: 3.0, Seed: 1, "
        "Size: 256x256, Model: cygnet-tiny"
    )


@given(
    st.sampled_from(get_args(SchedulerName)),
    st.integers(1, 100),
    st.floats(0, 20),
    st.integers(0, 2**53 - 1),
    st.sampled_from(["wan2.1-14b", "cygnet-tiny"]),
)
def test_our_a1111_text_gives_back_what_it_can_say(
    scheduler: str, steps: int, guidance_scale: float, seed: int, checkpoint: str
) -> None:
    asked = request(
        scheduler=scheduler,
        steps=steps,
        guidance_scale=guidance_scale,
        seed=seed,
        checkpoint=checkpoint,
        negative_prompt="cats",
    )
    assert parse_request(read_a1111(a1111_text(asked)).fields) == asked


def test_a_picture_of_a1111_is_read_and_what_we_lack_is_reported() -> None:
    recipe = read_recipe(with_text(parameters=A1111))
    assert recipe.writer == "a1111"
    assert recipe.fields == {
        "prompt": "a castle on a hill,\n(masterpiece:1.2)",
        "negative_prompt": "blurry,\nlow quality",
        "steps": 28,
        "scheduler": "euler",
        "guidance_scale": 6.5,
        "seed": 42,
        "width": 512,
        "height": 768,
    }
    assert recipe.ignored == {
        "Schedule type": "Karras",
        "Model hash": "abcdef",
        "Model": "dream",
        "Lora hashes": "a: 1, b: 2",
        "Version": "v1.9",
    }
    assert parse_request(recipe.fields | {"checkpoint": "wan2.1-1.3b"}).height == 768


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras", "DDIM"])
def test_a_sampler_that_we_lack_is_left_out(sampler: str) -> None:
    recipe = read_a1111(f"a\nSteps: 2, Sampler: {sampler}, Seed: 3")
    assert "scheduler" not in recipe.fields
    assert recipe.ignored == {"Sampler": sampler}


def test_every_scheduler_has_a_name_that_a1111_knows() -> None:
    assert set(SAMPLER_NAMES) == set(get_args(SchedulerName))


def test_values_beyond_our_limits_are_refused_by_the_request_and_not_lost() -> None:
    recipe = read_a1111("a\nSteps: 150, Seed: -5, CFG scale: nan, Size: 100x100")
    with pytest.raises(InvalidRequest) as refusal:
        parse_request(recipe.fields)
    assert set(refusal.value.fields) == {"steps", "seed", "guidance_scale", "width", "height"}


def test_a_text_without_settings_is_no_recipe() -> None:
    assert parse_a1111("just, a: prompt") is None


@given(st.text() | st.text('aS:,"\\ \n-/x1').map(lambda text: f"a\nSteps: 1, Seed: 2, {text}"))
def test_any_a1111_text_is_read_without_a_crash(text: str) -> None:
    recipe = parse_a1111(text)
    try:
        parse_request(recipe.fields if recipe else {})
    except CygnetError as error:
        assert error.next_step


@pytest.mark.parametrize("piece", ["a", " ", "a:", 'a:"', 'a:"\\"', "a: ,", 'a:"x"y', "\\"])
def test_the_longest_a1111_text_is_read_in_seconds_at_most(piece: str) -> None:
    started = time.process_time()
    parse_a1111(piece * (MAX_TEXT // len(piece)))
    parse_a1111("Steps: 2, Seed: 3, " + piece * (MAX_TEXT // len(piece)))
    assert time.process_time() - started < 2


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + A1111.encode("utf-16-be"),
        b"UNICODE\0" + A1111.encode("utf-16-le"),
        b"ASCII\0\0\0" + A1111.encode(),
        bytes(8) + A1111.encode(),
    ],
)
def test_comments_of_other_writers_are_read(comment: bytes, file_format: str) -> None:
    assert read_recipe(with_comment(comment, file_format)).fields["seed"] == 42


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_without_a_recipe_says_so(file_format: str) -> None:
    buffer = BytesIO()
    PICTURE.save(buffer, file_format)
    with pytest.raises(NoRecipeInImage):
        read_recipe(buffer.getvalue())


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_file_that_was_cut_off_is_refused(output_format: str) -> None:
    whole = encode_image(PICTURE, request(output_format=output_format), None)
    for length in (0, 1, len(whole) // 2, len(whole) - 40):
        with pytest.raises(UnreadableImage):
            read_recipe(whole[:length])


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_damaged_file_is_read_or_refused(
    output_format: str, damage: list[tuple[float, int]]
) -> None:
    data = bytearray(encode_image(PICTURE, request(output_format=output_format), None))
    for place, value in damage:
        data[int(place * len(data))] = value
    try:
        read_recipe(bytes(data))
    except (UnreadableImage, NoRecipeInImage) as error:
        assert error.next_step


@given(st.binary())
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        read_recipe(data)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("side", [8193, 13_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(side: int) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    assert side**2 > MAX_PIXELS
    with pytest.raises(UnreadableImage):
        read_recipe(b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b""))


def test_a_whole_picture_of_too_many_pixels_is_refused() -> None:
    buffer = BytesIO()
    Image.new("1", (8193, 8193)).save(buffer, "PNG")
    with pytest.raises(UnreadableImage, match="more than 67,108,864 pixels"):
        read_recipe(buffer.getvalue())


@pytest.mark.parametrize("name", ["cygnet", "parameters"])
def test_a_huge_text_is_refused(name: str) -> None:
    with pytest.raises(UnreadableImage, match="longer than 64 KiB"):
        read_recipe(with_text(**{name: "a" * (MAX_TEXT + 1)}))


def test_a_text_that_unpacks_to_a_huge_one_is_refused() -> None:
    info = PngInfo()
    info.add_text("parameters", "a" * 2**24, zip=True)
    buffer = BytesIO()
    PICTURE.save(buffer, "PNG", pnginfo=info)
    assert len(buffer.getvalue()) < 2**17
    with pytest.raises(UnreadableImage):
        read_recipe(buffer.getvalue())


@pytest.mark.parametrize(
    "stored",
    [
        "{",
        "[]",
        "[" * 50_000,
        '{"version": 1}',
        '{"version": 2, "request": {}, "revision": null}',
        '{"version": 1, "request": [], "revision": null}',
        '{"version": 1, "request": {}, "revision": 5}',
    ],
    ids=lambda stored: stored[:20],
)
def test_json_of_another_shape_is_refused(stored: str) -> None:
    with pytest.raises(UnreadableImage, match="damaged, or from another version"):
        read_recipe(with_text(cygnet=stored, parameters=A1111))


def test_fields_that_no_request_has_are_refused_by_the_request() -> None:
    hostile = {"version": 1, "request": {"prompt": "a", "__class__": "os"}, "revision": None}
    recipe = read_recipe(with_text(cygnet=json.dumps(hostile)))
    with pytest.raises(InvalidRequest, match="'__class__' is not a field"):
        parse_request(recipe.fields)


def test_a_file_on_disk_is_read(tmp_path: Path) -> None:
    file = tmp_path / "fox.png"
    file.write_bytes(encode_image(PICTURE, request(), None))
    assert read_recipe(file).fields["prompt"] == "a fox"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "missing.png", "x" * 300):
        with pytest.raises(UnreadableImage):
            read_recipe(tmp_path / name)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    with file.open("wb") as opened:
        opened.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UnreadableImage, match="larger than 64 MiB"):
        read_recipe(file)


def test_a_preview_is_small_and_keeps_its_shape() -> None:
    with Image.open(BytesIO(preview_jpeg(draw(1, 1280, 640)))) as image:
        assert (image.format, image.size) == ("JPEG", (256, 128))


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_thumbnail_fits_its_side_and_is_never_enlarged(output_format: OutputFormat) -> None:
    wide = encode_image(draw(1, 64, 32), request(output_format=output_format), None)
    for side, size in ((16, (16, 8)), (64, (64, 32)), (512, (64, 32))):
        with Image.open(BytesIO(thumbnail(wide, side))) as small:
            assert (small.format, small.size) == ("JPEG", size)


def test_a_thumbnail_of_a_damaged_file_is_refused() -> None:
    with pytest.raises(UnreadableImage):
        thumbnail(encode_image(PICTURE, request(), None)[:100], 16)


@pytest.mark.parametrize("output_format", ["webp", "jpeg"])
def test_a_picture_of_another_quality_keeps_its_request(output_format: OutputFormat) -> None:
    asked = request(output_format=output_format)
    best = encode_image(draw(1, 64, 64), asked, None)
    worse = recompress(best, 20)
    assert len(worse) < len(best)
    assert parse_request(read_recipe(worse).fields) == asked
