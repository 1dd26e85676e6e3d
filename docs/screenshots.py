"""Takes the pictures of the page that docs/page.md shows: `python -m docs.screenshots [FOLDER]`.

The page is served by `cygnet serve` over cygnet-tiny, and driven in Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
PROMPTS = (
    "a strawberry, sticker, on a white background",
    "a guitar, 3d render, on a purple background",
    "a tulip, flat design, on a pink background",
    "a rocket, 3d render, on a dark blue background",
)
FOX = "a red fox, 3d render, on a sky blue background"


@contextmanager
def serving() -> Iterator[str]:
    """A server with nothing in its history."""
    with tempfile.TemporaryDirectory() as data:
        server = subprocess.Popen(
            [sys.executable, "-m", "shared.cli", "serve", "--port", "0"],
            env=os.environ | {"CYGNET_DATA_DIR": data, "GRADIO_ANALYTICS_ENABLED": "False"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            server.wait()


def open_page(
    browser: Browser, url: str, scheme: Literal["light", "dark"], width: int, height: int
) -> Page:
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    tab = context.new_page()
    tab.goto(url)
    tab.wait_for_function(
        "document.querySelector('#seed input')?.value && localStorage.getItem('cygnet')"
    )
    tab.wait_for_selector("#draw:enabled")
    return tab


def draw(tab: Page, prompt: str, seed: int) -> None:
    tab.fill("#prompt textarea", prompt)
    tab.fill("#seed input", str(seed))
    tab.check("#lock input")
    tab.keyboard.press("Control+Enter")
    tab.locator(".stage[data-phase=done] .settings", has_text=str(seed)).wait_for()
    tab.wait_for_selector("#draw:visible")


def choose(tab: Page, label: str, option: str) -> None:
    """In a list that Gradio lets one type into."""
    tab.get_by_label(label, exact=True).click()
    tab.locator("ul[role=listbox]:visible").get_by_role("option", name=option).last.click()


def save(tab: Page, folder: Path, name: str) -> None:
    """In all its colours: with 256 the pictures on the page have bands. WebP where PNG is large."""
    tab.wait_for_function("[...document.images].every((image) => image.complete)")
    with Image.open(BytesIO(tab.screenshot())) as image:
        image.convert("RGB").save(folder / name, optimize=True, quality=90)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = open_page(browser, url, "light", 1280, 940)
        for seed, prompt in enumerate(PROMPTS, 1):
            draw(tab, prompt, seed)
        draw(tab, FOX, 7)
        tab.locator("#strip .thumb").nth(4).wait_for()
        save(tab, folder, "page-light.png")

        tab = open_page(browser, url, "dark", 1280, 940)
        draw(tab, "a red fox, on a sky blue background", 7)
        tab.get_by_role("tab", name="Grid").click()
        choose(tab, "Columns", "Style")
        choose(tab, "Rows", "Steps")
        tab.get_by_label("Values of the rows").fill("4, 20")
        tab.click("#draw-grid")
        tab.get_by_role("link", name="Download the contact sheet").wait_for(timeout=120_000)
        save(tab, folder, "page-dark.webp")

        tab = open_page(browser, url, "light", 390, 844)
        draw(tab, FOX, 7)
        tab.locator("#stage").scroll_into_view_if_needed()
        tab.evaluate("document.querySelector('#prompt').scrollIntoView()")
        save(tab, folder, "page-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
