"""Light, dark, on a phone, with a keyboard, with a screen reader."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from shared.backends.fake import FakeBackend
from tests.space.browser import brightness, browser, context, draw, drawn, tab, visit
from tests.space.conftest import Serve

__all__ = ["browser", "context", "tab"]


def serious(tab: Page) -> list[str]:
    """What axe finds of weight, as it says it."""
    found = Axe().run(tab).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state(
    serve: Serve, browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    context = browser.new_context(color_scheme=scheme)
    with serve(FakeBackend()) as url:
        tab = visit(context.new_page(), url)
        tab.click("#more > button")
        assert serious(tab) == []
        tab.fill("#pictures input", "99")
        draw(tab)
        expect(tab.get_by_role("alert")).to_be_visible()
        tab.fill("#pictures input", "2")
        draw(tab)
        drawn(tab)
        expect(tab.locator("#strip .thumb")).to_have_count(2)
        assert serious(tab) == []
        tab.get_by_role("tab", name="Grid").click()
        tab.get_by_label("Values", exact=True).fill("2, 3")
        tab.click("#draw-grid")
        expect(tab.get_by_role("link", name="Download the contact sheet")).to_be_visible()
        assert serious(tab) == []
        tab.get_by_role("tab", name="History").click()
        expect(tab.locator("#wall .thumb")).to_have_count(4)
        assert serious(tab) == []
    context.close()


def test_it_is_as_dark_as_the_system_wants_or_the_reader_says(
    serve: Serve, browser: Browser
) -> None:
    context = browser.new_context(color_scheme="dark")
    with serve(FakeBackend()) as url:
        tab = visit(context.new_page(), url)
        assert brightness(tab) < 60
        tab.get_by_role("button", name="Light or dark").click()
        assert brightness(tab) > 200
        visit(tab, url)
        assert brightness(tab) > 200
    context.close()


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    serve: Serve, browser: Browser, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=True)
    with serve(FakeBackend()) as url:
        tab = visit(context.new_page(), url)
        draw(tab)
        drawn(tab)
        for name in ("Draw", "Grid", "History"):
            tab.get_by_role("tab", name=name).click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.get_by_role("tab", name="Draw").click()
        down_the_page = ("#prompt", "#draw", "#stage", "#size", "#restore")
        boxes = [tab.locator(part).bounding_box() or {} for part in down_the_page]
        assert all(one["y"] + one["height"] <= below["y"] for one, below in pairwise(boxes))
    context.close()


def test_it_can_be_used_without_a_mouse(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.focus("#prompt textarea")
        tab.keyboard.type("a fox")
        tab.keyboard.press("Tab")
        expect(tab.locator("#draw")).to_be_focused()
        tab.keyboard.press("Enter")
        drawn(tab)
        expect(tab.get_by_role("status").filter(has_text="The picture is ready.")).to_be_attached()
        tab.locator("figure [data-act=seed]").focus()
        tab.keyboard.press("Enter")
        expect(tab.locator("#lock input")).to_be_checked()


def test_ctrl_enter_draws_from_wherever_the_focus_is_and_changes_nothing(
    serve: Serve, tab: Page
) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.fill("#prompt textarea", "a fox")
        tab.check("#lock input")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        expect(tab.locator("#lock input")).to_be_checked()
        expect(tab.locator("#stop")).to_be_hidden()
