"""What a person does on the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from shared.backends.fake import FakeBackend
from shared.backends.fake import draw as fake_draw
from shared.backends.local import LocalBackend
from shared.contract import parse_request
from shared.errors import OutOfMemory
from shared.images import encode_image, read_recipe
from space.page import files, history
from tests.space.browser import (
    browser,
    context,
    draw,
    drawn,
    drop,
    previews_seen,
    ready,
    tab,
    visit,
    watch_previews,
)
from tests.space.conftest import HeldBackend, Serve, full

__all__ = ["browser", "context", "tab"]

ASKED = {"prompt": "a tulip", "steps": 33, "guidance_scale": 2.5, "seed": 77, "num_images": 3}


def picture(**fields: Any) -> bytes:
    """A file with settings inside."""
    request = parse_request({"prompt": "a tulip", "seed": 77} | fields)
    return encode_image(fake_draw(request.seed, request.width, request.height), request, None)


def test_a_prompt_and_ctrl_enter_draw_a_picture_that_sharpens(serve: Serve, tab: Page) -> None:
    with serve(LocalBackend(previews=True)) as url:
        visit(tab, url)
        watch_previews(tab)
        draw(tab, "a red fox, 3d render")
        drawn(tab)
        assert previews_seen(tab) > 1
        expect(tab.locator(".facts")).to_contain_text("Drawn by local")
        expect(tab.locator(".facts")).to_contain_text("denoising")
        expect(tab.get_by_role("status").filter(has_text="The picture is ready.")).to_be_attached()


def test_stop_stops_before_the_next_step_and_keeps_what_is_done(serve: Serve, tab: Page) -> None:
    backend = HeldBackend()
    with serve(backend) as url:
        visit(tab, url)
        tab.fill("#pictures input", "2")
        draw(tab)
        backend.let(21)
        tab.wait_for_selector("figure img")
        expect(tab.locator(".now")).to_contain_text("of 40 · 1 of 2 pictures")
        tab.click("#stop")
        tab.wait_for_selector("#draw:visible")
        expect(tab.locator("figure img")).to_have_count(1)
        expect(tab.locator("#prompt textarea")).to_have_value("a fox")
        assert backend.stopped.get(timeout=60) == "a fox"


def test_an_error_is_a_sentence_with_a_next_step_and_loses_nothing(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.fill("#pictures input", "99")
        draw(tab, "a fox in the snow")
        notice = tab.get_by_role("alert")
        expect(notice).to_contain_text("Pictures=99 is not a whole number from 1 to 16.")
        expect(notice).to_contain_text("Use Pictures=16.")
        expect(tab.locator("#prompt textarea")).to_have_value("a fox in the snow")
        expect(tab.locator("#draw")).to_be_visible()


def test_a_number_of_the_form_is_never_rounded(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        notice = tab.get_by_role("alert")
        tab.fill("#pictures input", "2.5")
        draw(tab, "a fox in the snow")
        expect(notice).to_contain_text("Pictures=2.5 is not a whole number from 1 to 16.")
        tab.fill("#pictures input", "2")
        tab.check("#lock input")
        tab.fill("#seed input", "99999999999999999999")
        draw(tab, "a fox in the snow")
        expect(notice).to_contain_text("seed=more than 9007199254740991 is not a whole number")
        tab.fill("#seed input", "-1")
        draw(tab, "a fox in the snow")
        tab.wait_for_selector("figure img")
        assert int(tab.input_value("#seed input")) >= 0


@pytest.mark.parametrize("fault", [OutOfMemory("No room.", "Ask for less."), ValueError("hidden")])
def test_a_failure_of_the_backend_is_told_without_a_traceback(
    serve: Serve, tab: Page, fault: Exception
) -> None:
    def fail(event: object) -> None:
        raise fault

    with serve(FakeBackend(fail)) as url:
        visit(tab, url)
        draw(tab)
        told = "No room. Ask for less." if isinstance(fault, OutOfMemory) else "Try again"
        expect(tab.get_by_role("alert")).to_contain_text(told)
        assert "Traceback" not in tab.content() and "hidden" not in tab.inner_text("body")


def test_a_dropped_picture_gives_its_settings_back(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        drop(tab, picture(**ASKED))
        expect(tab.locator("#prompt textarea")).to_have_value("a tulip")
        expect(tab.locator("#seed input")).to_have_value("77")
        expect(tab.locator("#lock input")).to_be_checked()
        expect(tab.locator("#pictures input")).to_have_value("3")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        expect(tab.locator(".settings")).to_contain_text("33")


def test_a_picture_of_another_program_says_what_was_not_used(
    serve: Serve, tab: Page, tmp_path: Path
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = "a cat\nSteps: 12, Sampler: DPM++ 2M, CFG scale: 7, Seed: 5, Size: 500x700, Clip skip: 2"
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=info)
    with serve(FakeBackend()) as url:
        visit(tab, url)
        drop(tab, (tmp_path / "theirs.png").read_bytes())
        expect(tab.locator("#prompt textarea")).to_have_value("a cat")
        expect(tab.locator("#seed input")).to_have_value("5")
        for left in ("Sampler: DPM++ 2M", "Clip skip: 2", "width: 500", "height: 700"):
            expect(tab.locator(".notice")).to_contain_text(left)


@pytest.mark.parametrize(
    "data", [b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(99), b"<svg onload=alert(1)>"]
)
def test_a_hostile_file_is_refused_in_a_sentence(serve: Serve, tab: Page, data: bytes) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.fill("#prompt textarea", "mine")
        drop(tab, data)
        expect(tab.get_by_role("alert")).to_contain_text("The picture cannot be read")
        expect(tab.locator("#prompt textarea")).to_have_value("mine")


def test_the_download_is_the_original_file(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, f"{url}/?{urlencode({'prompt': 'a tulip', 'seed': 77})}")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        with tab.expect_download() as download:
            tab.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == "a-tulip-77.png"
        assert download.value.path().read_bytes() == picture()


def test_a_link_opens_the_page_with_its_settings(serve: Serve, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    with serve(FakeBackend()) as url:
        first = visit(context.new_page(), f"{url}/?{urlencode(ASKED)}")
        expect(first.locator("#seed input")).to_have_value("77")
        first.keyboard.press("Control+Enter")
        drawn(first)
        first.get_by_role("link", name="Copy link").nth(2).click()
        expect(first.get_by_role("link", name="Copied")).to_be_visible()
        second = visit(context.new_page(), first.evaluate("navigator.clipboard.readText()"))
        expect(second.locator("#prompt textarea")).to_have_value("a tulip")
        expect(second.locator("#seed input")).to_have_value("79")
        expect(second.locator("#pictures input")).to_have_value("1")


def test_where_there_is_no_clipboard_the_link_is_followed(serve: Serve, tab: Page) -> None:
    tab.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    with serve(FakeBackend()) as url:
        visit(tab, f"{url}/?{urlencode(ASKED)}")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        with tab.expect_popup() as popup:
            tab.get_by_role("link", name="Copy link").nth(2).click()
        expect(ready(popup.value).locator("#seed input")).to_have_value("79")


def test_a_link_that_breaks_a_limit_is_refused_in_a_sentence(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, f"{url}/?{urlencode({'prompt': 'x', 'steps': 'many', 'width': 9})}")
        expect(tab.get_by_role("alert")).to_contain_text("steps='many'")
        expect(tab.locator("#prompt textarea")).to_have_value("")


def test_the_history_finds_a_picture_and_gives_its_settings_or_its_seed(
    serve: Serve, tab: Page
) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        for prompt in ("a red fox", "a blue whale"):
            draw(tab, prompt)
            expect(tab.locator(".stage .prompt")).to_have_text(prompt)
            drawn(tab)
        seed = tab.input_value("#seed input")
        tab.get_by_role("tab", name="History").click()
        expect(tab.locator("#wall .thumb")).to_have_count(2)
        tab.fill("#search textarea, #search input", "whale BLUE")
        expect(tab.locator("#wall .thumb")).to_have_count(1)
        tab.click("#wall .thumb")
        expect(tab.locator(".stage .prompt")).to_have_text("a blue whale")
        tab.fill("#prompt textarea", "a green frog")
        tab.get_by_role("button", name="Same seed").click()
        expect(tab.locator("#lock input")).to_be_checked()
        expect(tab.locator("#seed input")).to_have_value(seed)
        expect(tab.locator("#prompt textarea")).to_have_value("a green frog")
        tab.get_by_role("button", name="Use settings").click()
        expect(tab.locator("#prompt textarea")).to_have_value("a blue whale")
        tab.get_by_role("button", name="Vary").click()
        expect(tab.locator("#seed input")).not_to_have_value(seed)
        drawn(tab)
        expect(tab.locator("#strip .thumb")).to_have_count(3)
        tab.get_by_role("button", name="Remove").click()
        expect(tab.locator("#strip .thumb")).to_have_count(2)
        tab.reload()
        expect(tab.locator("#strip .thumb")).to_have_count(2)


def test_a_new_search_begins_with_its_first_page(
    serve: Serve, tab: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 2)
    with serve(FakeBackend()) as url:
        visit(tab, f"{url}/?{urlencode({'prompt': 'a fox', 'num_images': 5})}")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        tab.get_by_role("tab", name="History").click()
        expect(tab.locator("#wall .thumb")).to_have_count(2)
        for count in (4, 5):
            tab.get_by_role("button", name="Show more").click()
            expect(tab.locator("#wall .thumb")).to_have_count(count)
        expect(tab.get_by_role("button", name="Show more")).to_be_hidden()
        tab.fill("#search textarea, #search input", "fox")
        expect(tab.locator("#wall .thumb")).to_have_count(2)


def test_nothing_is_drawn_before_the_browser_has_its_token(serve: Serve, tab: Page) -> None:
    held: list[Route] = []
    tab.route("**/run/predict*", lambda route: held.append(route))
    with serve(FakeBackend()) as url:
        with tab.expect_request("**/run/predict*"):
            tab.goto(url)
        draw(tab)
        expect(tab.locator("#draw")).to_be_disabled()
        for route in held:
            route.continue_()
        tab.unroute("**/run/predict*")
        draw(ready(tab))
        drawn(tab)
        expect(tab.locator("#strip .thumb")).to_have_count(1)


def test_a_picture_without_room_on_the_disk_is_shown_and_downloaded_all_the_same(
    serve: Serve, tab: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_atomically", full)
    with serve(FakeBackend()) as url:
        visit(tab, f"{url}/?{urlencode({'prompt': 'a tulip', 'seed': 77})}")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        assert tab.evaluate("document.querySelector('figure img').naturalWidth") == 256
        with tab.expect_download() as download:
            tab.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == "a-tulip-77.png"
        assert download.value.path().read_bytes() == picture()
        tab.get_by_role("tab", name="History").click()
        expect(tab.get_by_role("alert")).to_contain_text("There is no room left")


def test_no_visitor_sees_the_pictures_of_another(serve: Serve, browser: Browser) -> None:
    with serve(FakeBackend()) as url:
        contexts = [browser.new_context() for _ in range(2)]
        mine, theirs = (visit(context.new_page(), url) for context in contexts)
        draw(mine)
        drawn(mine)
        expect(mine.locator("#strip .thumb")).to_have_count(1)
        theirs.get_by_role("tab", name="History").click()
        expect(theirs.locator(".none")).to_have_text("No pictures yet.")
        for context in contexts:
            context.close()


HOSTILE = (
    "<img src=x onerror=hacked=1>${window.hacked=1}{{constructor}}</p><script>hacked=1</script>"
)


def test_a_prompt_is_text_wherever_it_is_shown(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, f"{url}/?{urlencode({'prompt': HOSTILE})}")
        tab.keyboard.press("Control+Enter")
        drawn(tab)
        expect(tab.locator(".stage .prompt")).to_have_text(HOSTILE)
        tab.get_by_role("tab", name="History").click()
        tab.wait_for_selector("#wall .thumb")
        assert tab.evaluate("typeof window.hacked") == "undefined"


def test_an_example_is_there_at_once_with_its_settings(serve: Serve, tab: Page) -> None:
    backend = HeldBackend()
    with serve(backend) as url:
        visit(tab, url)
        tab.locator("#examples .thumb").first.click()
        expect(tab.locator(".facts")).to_have_text("Made beforehand.")
        expect(tab.locator("#prompt textarea")).to_have_value(re.compile("a red fox"))
        assert tab.evaluate("document.querySelector('figure img').naturalWidth") == 256


def test_a_grid_is_estimated_drawn_and_downloaded_as_one_sheet(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        tab.fill("#prompt textarea", "a fox")
        tab.get_by_role("tab", name="Grid").click()
        tab.get_by_label("Values", exact=True).fill("2, 3")
        expect(tab.locator("#estimate")).to_contain_text("2 pictures, 5 steps.")
        tab.click("#draw-grid")
        expect(tab.locator("table.grid img")).to_have_count(2)
        expect(tab.locator("table.grid th")).to_have_text(["Steps 2", "Steps 3"])
        with tab.expect_download() as download:
            tab.get_by_role("link", name="Download the contact sheet").click()
        assert download.value.path().read_bytes().startswith(b"\x89PNG")
        tab.get_by_role("tab", name="History").click()
        tab.locator("#wall .thumb").first.click()
        expect(tab.locator(".facts:visible")).to_contain_text("Made by fake on none in ")
        tab.get_by_role("tab", name="Grid").click()
        tab.get_by_label("Values", exact=True).fill("500")
        expect(tab.locator("#estimate")).to_contain_text("Use steps=100.")


def test_weights_in_brackets_are_explained_where_they_are_typed(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        expect(tab.locator("#no-weights")).to_be_hidden()
        tab.fill("#prompt textarea", "a (red:1.3) fox")
        expect(tab.locator("#no-weights")).to_be_visible()


def test_the_page_asks_nothing_of_the_outside(serve: Serve, tab: Page) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    with serve(FakeBackend()) as url:
        visit(tab, url)
        draw(tab)
        drawn(tab)
    outside = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
    assert asked and not outside


def test_it_recalls_the_file_from_its_address(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend()) as url:
        visit(tab, url)
        draw(tab)
        drawn(tab)
        address = tab.get_attribute("figure img", "src")
        data = tab.request.get(f"{url}/{address}").body()
        assert read_recipe(data).fields["prompt"] == "a fox"
