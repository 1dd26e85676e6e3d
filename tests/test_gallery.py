"""Pictures kept on disk, found by their words, by several processes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL.PngImagePlugin import PngInfo

from shared.backends.fake import draw
from shared.contract import GenerationResult, Timings, parse_request
from shared.errors import DataUnusable, NotFound, UnreadableImage
from shared.gallery import Gallery
from shared.images import encode_image

ROOT = Path(__file__).parents[1]


def picture(prompt: str = "a red fox", seed: int = 7, **fields: object) -> bytes:
    request = parse_request({"prompt": prompt, "seed": seed, **fields})
    return encode_image(draw(seed, 64, 64), request, None)


def result(prompt: str = "a red fox") -> GenerationResult:
    return GenerationResult(
        request=parse_request({"prompt": prompt, "seed": 7}),
        seeds=(7,),
        timings=Timings(total=1.5),
        device="cpu",
        backend="local",
        cost_usd=0.25,
    )


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    kept = Gallery(tmp_path / "gallery")
    yield kept
    kept.close()


def test_a_picture_is_kept_as_its_file_with_what_is_known_of_it(gallery: Gallery) -> None:
    image = picture(output_format="webp")
    kept = gallery.add(image, result())
    assert gallery.read(kept) == image == kept.path.read_bytes()
    assert kept.path.suffix == ".webp"
    assert (kept.seed, kept.request["prompt"]) == (7, "a red fox")
    assert (kept.backend, kept.device, kept.seconds, kept.cost_usd) == ("local", "cpu", 1.5, 0.25)
    assert gallery.picture(kept.id) == kept


def test_the_same_picture_is_kept_once_and_what_is_known_later_is_added(gallery: Gallery) -> None:
    first = gallery.add(picture())
    again = gallery.add(picture(), result())
    assert (first.id, first.backend, again.backend) == (again.id, "", "local")
    assert gallery.add(picture()).backend == "local"
    assert len(gallery.search()) == 1


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("", [3, 2, 1]),
        ("FOX", [2, 1]),
        ("red fox", [1]),
        ("fox red", [1]),
        ("straße", [3]),
        ("STRASSE", [3]),
        ("100%", [3]),
        ("cygnet-tiny 2", [2]),
        ("%", [3]),
        ("_", []),
        ("' OR 1 --", []),
        ("zebra", []),
    ],
)
def test_a_search_finds_what_has_every_word_newest_first(
    gallery: Gallery, text: str, seeds: list[int]
) -> None:
    gallery.add(picture("a red fox", 1))
    gallery.add(picture("an arctic fox", 2))
    gallery.add(picture("eine Straße, 100% rain", 3))
    assert [found.seed for found in gallery.search(text)] == seeds


def test_a_search_goes_on_after_the_last_of_a_page(gallery: Gallery) -> None:
    for seed in range(5):
        gallery.add(picture(seed=seed))
    page = gallery.search(limit=2)
    rest = gallery.search(limit=10, after=page[-1].id)
    assert [found.seed for found in page + rest] == [4, 3, 2, 1, 0]


def test_an_owner_sees_only_their_own_pictures(gallery: Gallery) -> None:
    kept = gallery.add(picture(), owner="ada")
    assert gallery.search(owner="bob") == [] == gallery.search()
    for look in (gallery.picture, gallery.remove):
        with pytest.raises(NotFound):
            look(kept.id, "bob")
    assert gallery.picture(kept.id, "ada") == kept


def test_a_file_that_two_owners_have_goes_with_the_last(gallery: Gallery) -> None:
    kept = gallery.add(picture(), owner="ada")
    gallery.add(picture(), owner="bob")
    gallery.remove(kept.id, "ada")
    assert kept.path.exists()
    gallery.remove(kept.id, "bob")
    assert not kept.path.exists()


def test_a_prompt_outlives_its_picture(gallery: Gallery) -> None:
    kept = gallery.add(picture("a lost fox"))
    kept.path.unlink()
    [found] = gallery.search("lost")
    assert found.request["prompt"] == "a lost fox"
    with pytest.raises(NotFound):
        gallery.read(found)


def test_the_oldest_go_when_there_is_no_room_and_never_the_newest(tmp_path: Path) -> None:
    images = [picture(seed=seed) for seed in range(4)]
    small = Gallery(tmp_path, keep_bytes=len(images[2]) + len(images[3]))
    kept = [small.add(image) for image in images]
    assert [found.seed for found in small.search()] == [3, 2]
    assert [one.path.exists() for one in kept] == [False, False, True, True]
    small.close()
    tiny = Gallery(tmp_path, keep_bytes=1)
    assert tiny.add(picture(seed=9)).path.exists()
    tiny.close()


def claims(**fields: object) -> bytes:
    """A whole PNG whose settings are ours in form, and anything in content."""
    request = parse_request({"prompt": "a", "seed": 1}).model_dump() | fields
    chunks = PngInfo()
    chunks.add_text("cygnet", json.dumps({"version": 1, "request": request, "revision": None}))
    file = BytesIO()
    draw(1, 64, 64).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"no picture",
        picture()[:100],
        claims(output_format="../../escaped"),
        claims(output_format=["png"]),
        claims(seed="1; DROP TABLE pictures"),
        claims(prompt=None),
    ],
)
def test_what_is_no_picture_of_ours_is_refused_and_not_kept(gallery: Gallery, image: bytes) -> None:
    with pytest.raises(UnreadableImage):
        gallery.add(image)
    assert gallery.search() == []


def test_several_processes_use_one_folder_at_once(gallery: Gallery, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from shared.gallery import Gallery
from tests.test_gallery import picture
gallery = Gallery(Path(sys.argv[1]))
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    gallery.add(picture(seed=seed))
"""
    folder = str(tmp_path / "gallery")
    others = [
        subprocess.Popen([sys.executable, "-c", program, folder, str(start)], cwd=ROOT)
        for start in (0, 20)
    ]
    assert [other.wait(timeout=120) for other in others] == [0, 0]
    assert sorted(found.seed for found in gallery.search(limit=100)) == list(range(40))


def test_an_index_that_is_damaged_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "gallery.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(DataUnusable):
        Gallery(tmp_path)
