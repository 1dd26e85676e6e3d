"""Settings back from a picture's file: whose pictures are understood, and at what cost."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from shared.backends.fake import FakeBackend
from shared.errors import NoRecipeInImage, RateLimited
from space.page import restore
from tests.images.forms import FORMS, PROMPT
from tests.images.places import exif, named, saved
from tests.space.browser import browser, context, drop, tab, visit
from tests.space.conftest import Serve

__all__ = ["browser", "context", "tab"]


class Counter:
    """In place of the workshop: counts, and refuses after so many."""

    def __init__(self, most: int = 1000) -> None:
        self.counted, self._most = 0, most

    def count(self, _browser: Any) -> None:
        self.counted += 1
        if self.counted > self._most:
            raise RateLimited("Too many.", "Wait.")


def restored(counter: Counter, times: int) -> list[list[Any]]:
    """The answers to so many calls at once."""

    async def calls() -> list[list[Any]]:
        handler = restore.restoring(counter)  # type: ignore[arg-type]
        found = SimpleNamespace(uploads=[Path("any.png")])  # by the guard
        browser: Any = SimpleNamespace(state=found)
        return await asyncio.gather(*(handler(browser, None) for _ in range(times)))

    return asyncio.run(calls())


def test_few_pictures_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    def read(_path: Path) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        raise NoRecipeInImage("There is none.", "Choose another.")

    monkeypatch.setattr(restore, "read_recipe", read)
    answers = restored(Counter(), 12)
    assert most == restore.AT_ONCE
    assert all("There is none." in str(answer[0]) for answer in answers)


def test_each_picture_counts_as_a_request_and_the_last_is_refused() -> None:
    counter = Counter(most=2)
    answers = [str(answer[0]) for answer in restored(counter, 3)]
    assert counter.counted == 3
    assert sum("Too many." in answer for answer in answers) == 1


def test_the_page_waits_in_a_queue_of_its_own_for_a_picture_to_be_read(serve: Serve) -> None:
    with serve(FakeBackend()) as url:
        config = httpx.get(f"{url}/config").json()
    [upload] = [
        one for one in config["dependencies"] if "upload" in [event for _, event in one["targets"]]
    ]
    assert upload["queue"]


@pytest.mark.parametrize("form", ["SwarmUI", "Fooocus", "InvokeAI", "ComfyUI, WanVideo"])
def test_a_dropped_picture_of_another_program_fills_the_form(
    serve: Serve, tab: Page, form: str
) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        drop(tab, named("parameters", FORMS[form][1]))
        expect(tab.locator("#prompt textarea")).to_have_value(PROMPT)
        expect(tab.locator("#seed input")).to_have_value("7")
        expect(tab.locator(".notice")).to_contain_text("width: 512")


def test_a_dropped_screenshot_leaves_the_form_as_it_is(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.fill("#prompt textarea", "mine")
        drop(tab, saved("JPEG", exif=exif(b"ASCII\0\0\0Screenshot")))
        expect(tab.get_by_role("alert")).to_contain_text("does not say how it was made")
        expect(tab.locator("#prompt textarea")).to_have_value("mine")


def test_a_key_that_restores_too_often_is_told_so(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend(), requests_per_minute=1) as url:
        visit(tab, url)
        drop(tab, named("parameters", FORMS["A1111"][1]))
        expect(tab.locator("#prompt textarea")).to_have_value(PROMPT)
        drop(tab, named("parameters", FORMS["A1111"][1]))
        expect(tab.get_by_role("alert")).to_contain_text("requests a minute")
