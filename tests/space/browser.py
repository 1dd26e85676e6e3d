"""The page as a person has it: a real Chromium."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser, BrowserContext, Page

from tests.chromium import browser

__all__ = ["browser"]


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """One person's browser, in a large window or as the test says it.

    What it shows at the end is kept in the folder SCREENSHOTS, if there is one.
    """
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}} | getattr(
        request, "param", {}
    )
    context = browser.new_context(**options)
    # The first picture imports torch, on a machine that may be busy.
    context.set_default_timeout(60_000)
    yield context
    if folder := os.environ.get("SCREENSHOTS"):
        for number, tab in enumerate(context.pages, start=1):
            tab.screenshot(path=Path(folder) / f"{request.node.name[:100]}-{number}.png")
    context.close()


@pytest.fixture
def tab(context: BrowserContext) -> Page:
    return context.new_page()


def visit(tab: Page, url: str) -> Page:
    """The page, once it can be used."""
    tab.goto(url)
    return ready(tab)


def ready(tab: Page) -> Page:
    """The same where the page is on its way: it has its seed then, and the browser its token."""
    tab.wait_for_function(
        "document.querySelector('#seed input')?.value && localStorage.getItem('cygnet')"
    )
    tab.wait_for_selector("#draw:enabled")
    return tab


def draw(tab: Page, prompt: str = "a fox") -> None:
    """Ask for a picture, and do not wait."""
    tab.fill("#prompt textarea", prompt)
    tab.keyboard.press("Control+Enter")


def drawn(tab: Page) -> None:
    """Wait for what was asked for."""
    tab.wait_for_selector(".stage[data-phase=done] figure img")
    tab.wait_for_selector("#draw:visible")


def drop(tab: Page, data: bytes, name: str = "picture.png") -> None:
    """Let a file fall onto the page."""
    transfer = tab.evaluate_handle(
        """([data, name]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: 'image/png'}));
            return transfer;
        }""",
        [base64.b64encode(data).decode(), name],
    )
    tab.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    tab.dispatch_event("body", "drop", {"dataTransfer": transfer})


def watch_previews(tab: Page) -> None:
    """Note each preview that is shown from here on."""
    tab.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                const preview = document.querySelector('.preview');
                if (preview) window.seen.add(preview.src);
            }).observe(document.querySelector('#stage'),
                       {subtree: true, childList: true, attributes: true});
        }"""
    )


def previews_seen(tab: Page) -> int:
    """How many different ones there were."""
    return tab.evaluate("window.seen.size")


def brightness(tab: Page) -> float:
    """Of the page's ground, as it is seen, from 0 to 255."""
    corner = tab.screenshot(clip={"x": 0, "y": 0, "width": 8, "height": 8})
    return ImageStat.Stat(Image.open(BytesIO(corner)).convert("L")).mean[0]
