"""The view that clients render: in a real browser, in a sandbox, over a real server in memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from mcp import Client
from mcp.types import CallToolResult, TextResourceContents
from playwright.async_api import Browser, FrameLocator, Page, async_playwright, expect

from shared.backends.fake import FakeBackend
from shared.contract import Event, Step
from shared.errors import OutOfMemory
from shared.mcp.server import VIEW
from tests.chromium import launch_options
from tests.mcp.conftest import Make

pytestmark = pytest.mark.anyio

HOST = Path(__file__).parent / "host.html"

# The policy that hosts apply where a view asks for no domains.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
FOX = {"prompt": "a fox <img src=x onerror=alert(1)>", "steps": 2, "seed": 7, "num_images": 2}
ALL = {"serverTools": {}, "updateModelContext": {"text": {}}}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    options = launch_options()
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(**options)
        yield opened
        await opened.close()


def as_json(answer: CallToolResult) -> dict[str, Any]:
    return answer.model_dump(mode="json", by_alias=True, exclude_none=True)


class Screen:
    """The host's page, and the view in its frame."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.view: FrameLocator = page.frame_locator("#view")
        self.faults: list[str] = []
        page.on("pageerror", lambda fault: self.faults.append(str(fault)))
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("dialog", lambda dialog: self.faults.append(dialog.message))

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        await self.page.evaluate("post", {"method": f"ui/notifications/{method}", "params": params})

    async def seen(self, method: str) -> None:
        await self.page.wait_for_function(f"seen.includes({method!r})")


@contextlib.asynccontextmanager
async def shown(
    browser: Browser,
    client: Client,
    theme: str = "light",
    width: int = 760,
    abilities: dict[str, Any] | None = None,
) -> AsyncIterator[Screen]:
    [document] = (await client.read_resource(VIEW)).contents
    assert isinstance(document, TextResourceContents)
    policy = f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    page = await browser.new_page(viewport={"width": width, "height": 900})
    screen = Screen(page)

    async def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return as_json(await client.call_tool(name, arguments))

    await page.expose_function("callTool", call)
    await page.set_content(HOST.read_text())
    html = document.text.replace("<head>", policy)
    given = ALL if abilities is None else abilities
    await page.evaluate("start", {"html": html, "theme": theme, "abilities": given})
    await screen.seen("ui/notifications/initialized")
    yield screen
    await page.close()
    assert screen.faults == []


async def test_it_shows_the_picture_and_its_settings_as_text(browser: Browser, make: Make) -> None:
    async with Client(make()) as client, shown(browser, client) as screen:
        await screen.tell("tool-input", {"arguments": FOX})
        await expect(screen.view.get_by_role("heading")).to_have_text(FOX["prompt"])
        await screen.tell("tool-result", as_json(await client.call_tool("generate_image", FOX)))
        picture = screen.view.get_by_role("img", name=f"Drawn from: {FOX['prompt']}")
        await expect(picture).to_be_visible()
        assert await picture.evaluate("image => image.naturalWidth") == 256
        for name, value in (("Steps", "2"), ("Checkpoint", "cygnet-tiny"), ("Backend", "fake")):
            row = screen.view.locator(f"dt:has-text('{name}') + dd")
            await expect(row).to_have_text(value)
        await screen.view.get_by_role("button", name="Seed 8").click()
        await expect(screen.view.get_by_label("Seed", exact=True)).to_have_value("8")


async def test_the_dice_and_again_draw_another_picture(browser: Browser, make: Make) -> None:
    async with Client(make()) as client, shown(browser, client) as screen:
        await screen.tell("tool-result", as_json(await client.call_tool("generate_image", FOX)))
        picture = screen.view.get_by_role("img", name="Drawn from")
        before = await picture.get_attribute("src")
        await screen.view.get_by_role("button", name="Roll another seed").click()
        seed = screen.view.get_by_label("Seed", exact=True)
        await expect(seed).not_to_have_value("7")
        rolled = await seed.input_value()
        await screen.view.get_by_role("button", name="Again").click()
        await screen.seen("ui/update-model-context")
        assert await picture.get_attribute("src") != before
        await expect(screen.view.get_by_role("button", name=f"Seed {rolled}")).to_be_visible()


async def test_a_seed_that_is_none_and_a_failure_are_said(browser: Browser, make: Make) -> None:
    drawn = 0

    def fail(event: Event) -> None:
        nonlocal drawn
        drawn += isinstance(event, Step)
        if drawn > 4:
            raise OutOfMemory("The device is full.", "Ask for a smaller size.")

    async with Client(make(FakeBackend(fail))) as client, shown(browser, client) as screen:
        await screen.tell("tool-result", as_json(await client.call_tool("generate_image", FOX)))
        await screen.view.get_by_label("Seed", exact=True).fill("-1")
        await screen.view.get_by_role("button", name="Again").click()
        await expect(screen.view.get_by_role("status")).to_contain_text("A seed is a whole number")
        await screen.view.get_by_label("Seed", exact=True).fill("9")
        await screen.view.get_by_label("Seed", exact=True).press("Enter")
        await expect(screen.view.get_by_role("status")).to_contain_text("Ask for a smaller size.")
        await expect(screen.view.get_by_role("button", name="Again")).to_be_enabled()


async def test_a_host_that_lets_no_tool_be_called_gets_no_buttons(
    browser: Browser, make: Make
) -> None:
    async with Client(make()) as client, shown(browser, client, abilities={}) as screen:
        await screen.tell("tool-result", as_json(await client.call_tool("generate_image", FOX)))
        await expect(screen.view.get_by_role("img", name="Drawn from")).to_be_visible()
        await expect(screen.view.get_by_role("button", name="Again")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [760, 360])
async def test_it_is_readable_light_and_dark_wide_and_narrow(
    browser: Browser, make: Make, tmp_path: Path, theme: str, width: int
) -> None:
    async with Client(make()) as client, shown(browser, client, theme, width) as screen:
        await screen.tell("tool-result", as_json(await client.call_tool("generate_image", FOX)))
        await expect(screen.view.get_by_role("img", name="Drawn from")).to_be_visible()
        await screen.page.screenshot(path=tmp_path / f"view-{theme}-{width}.png")
        frame = screen.page.frames[1]
        found = await Axe().run(frame, options={"runOnly": ["wcag2a", "wcag2aa"]})
        assert found.response["violations"] == []
        assert await frame.evaluate("document.body.scrollWidth <= innerWidth")
        background = await frame.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (brightness > 128) == (theme == "light")
