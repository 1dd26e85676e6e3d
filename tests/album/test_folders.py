"""`cygnet gallery`: what of a folder is shown, and what it writes."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from shared import cli
from shared.album.pictures import read_folder
from shared.album.sheet import sheets
from shared.batch.manifest import Failure
from tests.album.conftest import line, put
from tests.images.forms import FORMS, PROMPT
from tests.images.places import exif, named, saved

Capture = pytest.CaptureFixture[str]


def run(*argv: str) -> int:
    return cli.main(["gallery", *argv])


def shown(folder: Path) -> list[str]:
    return [picture.path for picture in read_folder(folder).pictures]


def test_a_batch_is_shown_in_its_order_with_what_its_manifest_says(folder: Path) -> None:
    for name in ("a", "b/c"):
        put(folder, name)
    failure = Failure(code="out_of_memory", message="Too large.", next_step="Ask for less.")
    (folder / "manifest.jsonl").write_text(
        line(1, "b/c.png", template={"prompt": "a {fox}"}, cost_usd=0.0125)
        + line(2, "a.png")
        + line(3, None, status="failed", error=failure)
    )
    contents = read_folder(folder)
    assert [picture.path for picture in contents.pictures] == ["b/c.png", "a.png"]
    settings = contents.pictures[0].settings
    assert settings["Template"] == "a {fox}" and settings["Cost"] == "$0.0125"
    assert settings["Guidance"] == "3" and settings["Size"] == "256 × 256"
    assert [entry.number for entry in contents.failures] == [3]


def test_without_a_manifest_the_recipes_inside_the_pictures_are_shown(
    folder: Path, capsys: Capture
) -> None:
    for name, kind in [("b", "png"), ("c", "webp"), ("sub/a", "jpeg")]:
        put(folder / "out", name, prompt=f"picture {name}", output_format=kind)
    Image.new("RGB", (8, 8)).save(folder / "out/plain.png")
    (folder / "out/broken.png").write_bytes(b"\x89PNG no more")
    (folder / "out/notes.txt").write_text("no picture")
    for _ in range(2):  # the second time our own contact sheet lies there as well
        assert run("out") == 0
        said = capsys.readouterr()
        assert said.out.splitlines() == ["out/gallery.html", "out/contact-sheet.png"]
        assert said.err.startswith("Left out: 2 that cannot be shown")
    assert shown(folder / "out") == ["b.png", "c.webp", "sub/a.jpg"]
    assert read_folder(folder / "out").pictures[0].prompt == "picture b"


def test_a_manifest_leads_to_nothing_outside_its_folder(folder: Path) -> None:
    put(folder, "secret")
    put(folder / "out", "mine")
    (folder / "out/link.png").symlink_to(folder / "secret.png")
    names = ["../secret.png", str(folder / "secret.png"), "link.png", "x" * 5000, "a\0b", "", "."]
    lines = [line(number, name) for number, name in enumerate([*names, "mine.png"], 1)]
    (folder / "out/manifest.jsonl").write_text("".join(lines))
    contents = read_folder(folder / "out")
    assert [picture.path for picture in contents.pictures] == ["mine.png"]
    assert contents.left_out == len(names)


def test_a_file_of_someone_else_is_not_replaced(folder: Path, capsys: Capture) -> None:
    put(folder / "out", "fox")
    (folder / "out/gallery.html").write_text("<p>mine")
    assert run("out") == 2
    assert "out/gallery.html exists and is not ours" in capsys.readouterr().err
    assert (folder / "out/gallery.html").read_text() == "<p>mine"
    (folder / "out/gallery.html").unlink()
    (folder / "out/gallery.html").mkdir()
    assert run("out") == 2
    assert "out/gallery.html exists and is not ours" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing", "empty", "file.png", "x" * 5000])
def test_a_folder_with_nothing_to_show_is_refused(folder: Path, capsys: Capture, name: str) -> None:
    (folder / "empty").mkdir()
    put(folder, "file")
    assert run(name) == 2
    assert "error[invalid_request]" in capsys.readouterr().err


def pixels(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        return image.convert("RGB")


def test_the_contact_sheet_has_every_picture_and_a_label_under_it(folder: Path) -> None:
    for seed in range(7):
        put(folder, f"{seed}", seed=seed, prompt="an owl in the snow" * seed or "x")
    [sheet] = sheets(folder, read_folder(folder))
    image = pixels(sheet)
    paper = image.getpixel((0, 0))
    used = [image.getpixel((x, y)) != paper for x in (140, 400, 600) for y in (200, 500, 800)]
    assert sum(used) == 7
    label = image.crop((36, 36 + 78 + 208, 36 + 208, 36 + 78 + 208 + 62))
    assert len(label.getcolors() or []) > 5


def test_many_pictures_take_several_sheets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("shared.album.sheet.ROWS", 1)
    path = put(folder / "out", "00")
    for number in range(1, 20):
        os.link(path, folder / f"out/{number:02d}.png")
    assert run("out") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [
        "out/contact-sheet.png",
        "out/contact-sheet-2.png",
        "out/contact-sheet-3.png",
    ]
    for number in range(8, 20):
        (folder / f"out/{number:02d}.png").unlink()
    (folder / "out/contact-sheet-3.png").write_bytes(b"somebody else's")
    assert run("out") == 0
    assert not (folder / "out/contact-sheet-2.png").exists()
    assert (folder / "out/contact-sheet-3.png").exists()


@pytest.mark.parametrize("prompt", ["狐", "\u202eabc", "a" * 2000, "\u0301" * 50, "🦊 fox"])
def test_a_prompt_in_any_script_makes_a_sheet(folder: Path, prompt: str) -> None:
    put(folder, "fox", prompt=prompt)
    [sheet] = sheets(folder, read_folder(folder))
    assert pixels(sheet).width < 500


def test_wide_and_high_pictures_keep_their_shape(folder: Path) -> None:
    put(folder, "wide", checkpoint="wan2.1-1.3b", width=832, height=480)
    put(folder, "high", checkpoint="wan2.1-1.3b", width=480, height=832)
    [sheet] = sheets(folder, read_folder(folder))
    image = pixels(sheet)
    frame = image.getpixel((36 + 2, 36 + 78 + 2))  # beside the high one, which comes first
    assert frame == image.getpixel((36 + 206, 36 + 78 + 206))


def test_a_picture_that_breaks_after_it_was_listed_leaves_its_place_empty(folder: Path) -> None:
    path = put(folder, "fox")
    contents = read_folder(folder)
    path.write_bytes(path.read_bytes()[:900])
    assert len(list(sheets(folder, contents))) == 1
    assert contents.not_unpacked == ["fox.png"]


def test_a_picture_that_cannot_be_shown_small_is_named(folder: Path, capsys: Capture) -> None:
    put(folder / "out", "whole")
    data = put(folder / "out", "damaged").read_bytes()
    pixels = data.index(b"IDAT") + 4
    (folder / "out/damaged.png").write_bytes(data[:pixels] + b"\0" * 9 + data[pixels + 9 :])
    large = Image.new("RGB", (4096, 4096))
    text = "a fox\nSteps: 20, Sampler: Euler, Seed: 7"
    large.save(folder / "out/large.webp", exif=exif(b"ASCII\0\0\0" + text.encode()))
    assert run("out") == 0
    said = capsys.readouterr().err
    assert said == "Empty on the sheet, damaged or too large: damaged.png, large.webp.\n"
    assert shown(folder / "out") == ["damaged.png", "large.webp", "whole.png"]


def test_pictures_of_other_programs_are_shown_and_other_texts_left_out(
    folder: Path, capsys: Capture
) -> None:
    (folder / "out").mkdir()
    for number, (_, text, _) in enumerate(FORMS.values()):
        (folder / f"out/{number:02}.png").write_bytes(named("parameters", text))
    camera = saved("JPEG", exif=exif(b"ASCII\0\0\0Hisilicon K3"))
    (folder / "out/camera.jpg").write_bytes(camera)
    assert run("out") == 0
    assert capsys.readouterr().err.startswith("Left out: 1 that cannot be shown")
    assert {picture.prompt for picture in read_folder(folder / "out").pictures} == {PROMPT}
