"""What the page keeps on the disk: how much, how long, for whom, and who else may look."""

from __future__ import annotations

import functools
import shutil
import stat
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect

from shared.api.rate_limit import RateLimit
from shared.backends.fake import FakeBackend
from shared.errors import InvalidCall, NotFound, RateLimited
from space.page import login
from space.page.files import STRANGERS, Limits, PageFiles
from tests.space.browser import browser, context, draw, drawn, tab, visit
from tests.space.conftest import Serve

__all__ = ["browser", "context", "tab"]

LIMITS = Limits(keep_bytes=800)  # of which uploads have 400, and one visitor's 200
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path, clock: Clock) -> PageFiles:
    return PageFiles(tmp_path / "page", LIMITS, clock)


def upload(files: PageFiles, size: int, visitor: str, counted_to: str = "") -> str:
    with files.room_for_upload(size, counted_to or visitor):
        return files.add_upload(BytesIO(b"x" * size), visitor, counted_to or visitor)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_visitor_keeps_so_much_and_others_still_upload(files: PageFiles) -> None:
    for _ in range(2):
        upload(files, 90, "one")
    with pytest.raises(RateLimited) as refused:
        upload(files, 90, "one")
    assert refused.value.retry_after == 600
    upload(files, 90, "two")
    assert on_disk(files.folder) == 270


def test_all_together_keep_so_much_however_many_they_say_they_are(files: PageFiles) -> None:
    for visitor in "abcdefgh":
        try:
            upload(files, 90, visitor)
        except RateLimited:
            continue
    assert on_disk(files.folder) == 360


def test_those_who_never_opened_the_page_share_what_one_visitor_has(files: PageFiles) -> None:
    for visitor in "ab":
        upload(files, 90, visitor, STRANGERS)
    with pytest.raises(RateLimited):
        upload(files, 90, "c", STRANGERS)
    upload(files, 90, "d")


def test_what_is_on_its_way_is_counted(files: PageFiles) -> None:
    with files.room_for_upload(150, "one"), pytest.raises(RateLimited):
        upload(files, 60, "one")
    upload(files, 60, "one")
    with pytest.raises(InvalidCall) as refused:
        upload(files, 201, "one")
    assert refused.value.status == 413


def test_uploads_have_a_rate(files: PageFiles, clock: Clock) -> None:
    for _ in range(20):
        upload(files, 1, "one")
    with pytest.raises(RateLimited):
        upload(files, 1, "one")
    upload(files, 1, "two")
    clock.now += 3
    upload(files, 1, "one")
    with pytest.raises(RateLimited):
        for number in range(500):
            upload(files, 0, str(number))


def test_an_upload_has_its_time_and_goes_with_its_page(files: PageFiles, clock: Clock) -> None:
    mine, theirs = upload(files, 9, "one"), upload(files, 9, "two")
    assert files.upload(mine, "one").read_bytes() == b"x" * 9
    files.forget_uploads("one")
    with pytest.raises(NotFound):
        files.upload(mine, "one")
    clock.now = 599
    files.sweep()
    assert files.upload(theirs, "two").exists()
    clock.now = 600
    files.sweep()
    assert not list(files.folder.iterdir())


@pytest.mark.parametrize("end", ["", "/", "/x", "/../upload", "/upload/", "//upload", "/Upload"])
def test_an_upload_has_one_name_and_one_owner(files: PageFiles, end: str) -> None:
    key = upload(files, 9, "one").partition("/")[0]
    for name, owner in ((f"{key}{end}", "one"), (f"{key}/upload", "two"), (f"{key}/upload", "")):
        with pytest.raises(NotFound):
            files.upload(name, owner)
        with pytest.raises(NotFound):
            files.find(name, owner)


def test_pictures_make_room_for_new_ones_and_have_their_time(
    files: PageFiles, clock: Clock
) -> None:
    first, *_, last = [files.add(b"x" * 150, "a.png", "one") for _ in range(4)]
    assert not files.has(first) and files.has(last)
    assert on_disk(files.folder) <= LIMITS.pictures
    with pytest.raises(NotFound):
        files.find(last, "two")
    huge = files.add(b"x" * 1000, "a.png", "one")
    assert files.find(huge, "one").stat().st_size == 1000  # the newest is never the one to go
    clock.now = LIMITS.picture_seconds
    files.sweep()
    assert not list(files.folder.iterdir())


def test_what_somebody_else_deleted_is_not_there(files: PageFiles) -> None:
    picture, mine = files.add(b"x", "a.png", "one"), upload(files, 1, "one")
    for path in files.folder.iterdir():
        shutil.rmtree(path)
    assert not files.has(picture)
    for find, address in ((files.find, picture), (files.upload, mine)):
        with pytest.raises(NotFound):
            find(address, "one")


def test_what_a_killed_server_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    before = PageFiles(folder, LIMITS)
    before.add(b"x", "a.png", "")
    (folder / "mine.txt").touch()
    after = PageFiles(folder, LIMITS)
    assert [path.name for path in after.folder.iterdir()] == ["mine.txt"]


def test_many_at_once_keep_to_the_limits(files: PageFiles) -> None:
    def work() -> None:
        for _ in range(40):
            files.add(b"x" * 30, "a.png", "one")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert on_disk(files.folder) <= LIMITS.pictures
    files.clear()
    assert not list(files.folder.iterdir())


# Over HTTP


def send(client: httpx.Client, size: int) -> httpx.Response:
    return client.post("/gradio_api/upload", files={"files": ("x.bin", b"x" * size)})


@pytest.mark.parametrize("options", [{"hosts": ("127.0.0.1",)}, {"keys": ("right",)}, {}])
def test_the_page_keeps_no_more_uploads_than_the_operator_allows(
    serve: Serve, tmp_path: Path, options: dict[str, Any]
) -> None:
    headers = {"Authorization": "Bearer right"} if "keys" in options else {}
    with serve(FakeBackend(), keep_bytes=800_000, **options) as url:
        answers: list[httpx.Response] = []
        for _ in range(3):  # browsers that nobody has seen
            with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
                answers += [send(client, 10_000) for _ in range(8)]
        refused = answers[-1]
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) > 0
        assert on_disk(tmp_path / "data/page") <= 100_000
    assert not list((tmp_path / "data/page").iterdir())


def test_an_upload_goes_when_its_page_is_closed(
    serve: Serve, tab: Page, tmp_path: Path, browser: Any
) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.set_input_files("#draw-tab input[type=file]", files=[
            {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"}
        ])  # fmt: skip
        expect(tab.get_by_role("alert")).to_be_visible()
        assert list((tmp_path / "data/page").glob("*/upload"))
        tab.goto("about:blank")
        while list((tmp_path / "data/page").glob("*/upload")):
            tab.wait_for_timeout(50)  # that it never goes is left to the time limit


def test_remove_removes_every_copy(serve: Serve, tab: Page, tmp_path: Path) -> None:
    def copies() -> list[str]:
        kept = (tmp_path / "data").rglob("*.*g")
        return sorted(path.name for path in kept if path.suffix in (".png", ".jpg"))

    with serve(FakeBackend(), hosts=("127.0.0.1",)) as url:
        visit(tab, url)
        draw(tab, "a fox")
        drawn(tab)
        expect(tab.locator("#strip .thumb")).to_have_count(1)
        assert len(copies()) == 3  # the gallery's, the page's, and the small one
        tab.locator("#strip .thumb").click()
        tab.get_by_role("button", name="Remove").click()
        expect(tab.locator("#strip .thumb")).to_have_count(0)
        assert copies() == []


@pytest.mark.parametrize("before", ["new", "old"])
def test_only_its_user_may_look_into_the_data_folder(
    serve: Serve, tmp_path: Path, before: str
) -> None:
    folder = tmp_path / "data"
    if before == "old":  # as an earlier version or another program left it
        for name in ("gallery", "images", "page"):
            (folder / name).mkdir(mode=0o755, parents=True)
        folder.chmod(0o755)
        for name in ("jobs.sqlite3", "gallery/gallery.sqlite3"):
            (folder / name).touch(0o644)
    with serve(FakeBackend(), hosts=("127.0.0.1",)) as url:
        client: Any = Client(url, verbose=False)
        job = client.submit("a fox", api_name="/generate")
        job.result(timeout=60)
        with httpx.Client(base_url=url, timeout=60) as http:
            send(http, 100)
            http.post("/v1/images/generations", json={"prompt": "a fox"}).raise_for_status()
        paths = [folder, *folder.rglob("*")]
        assert len([path for path in paths if path.is_file()]) >= 7
        assert [path for path in paths if path.stat().st_mode & OTHERS] == []


def test_a_folder_with_other_things_in_it_stays_open_and_ours_in_it_does_not(
    serve: Serve, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o755)
    (folder / "thesis.txt").touch(0o644)
    with serve(FakeBackend()):
        assert folder.stat().st_mode & OTHERS == 0o055
        assert (folder / "thesis.txt").stat().st_mode & OTHERS == 0o044
        assert not (folder / "jobs.sqlite3").stat().st_mode & OTHERS
        assert not (folder / "page").stat().st_mode & OTHERS


def test_two_sites_in_one_process_keep_their_files_apart(serve: Serve, tmp_path: Path) -> None:
    with serve(FakeBackend()) as one, serve(FakeBackend(), folder=tmp_path / "two") as two:
        for url, folder in ((one, "data"), (two, "two"), (one, "data")):
            client: Any = Client(url, verbose=False)
            job = client.submit("a fox", api_name="/generate")
            job.result(timeout=60)
            assert list((tmp_path / folder / "page").glob("*/a-fox-*.png"))
        assert len(list((tmp_path / "two/page").iterdir())) == 1


# Guesses


def guess(url: str, key: str, address: str = "127.0.0.1") -> int:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=60) as client:
        return client.post(f"{url}/login", data={"key": key}).status_code


def test_keys_cannot_be_guessed_at_any_speed_and_nobody_else_is_locked_out(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "RateLimit", functools.partial(RateLimit, now=clock))
    with serve(FakeBackend(), keys=("right",)) as url:
        answers = [guess(url, f"wrong {number}") for number in range(25)]
        assert set(answers[:20]) == {401} and answers[-1] == 429
        assert guess(url, "right") == 429  # or guessing would go on
        assert guess(url, "right", "127.0.0.2") == 303
        headers = {"Authorization": "Bearer right"}
        assert httpx.get(f"{url}/config", headers=headers).status_code == 200
        refused = httpx.post(f"{url}/login", data={"key": "right"})
        assert refused.headers["retry-after"] == "3" and "Wait a minute" in refused.text
