"""The gallery page in a browser, from disk: it shows, finds, fits, and runs nothing of a prompt's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from shared import cli
from shared.batch.manifest import Failure
from tests.album.conftest import line, put

HOSTILE = [
    "<script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</p></li></ul><style>body{display:none}</style>",
    "javascript:document.title='owned'",
    "$title ${title} {{title}} &lt;b&gt; &#x3c;",
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of 60 pictures, some with hostile prompts and names, and a failure."""
    folder = tmp_path_factory.mktemp("a <b>batch & more")
    names = ["javascript:alert(1)", "a b#c?d%20e", "quote'\"<x>", *(f"{n:03}" for n in range(57))]
    for number, name in enumerate(names):
        put(folder, name, seed=number)
    prompts = [*HOSTILE, *(f"a fox number {number}" for number in range(55))]
    requests = [
        {"prompt": prompt, "negative_prompt": prompt, "seed": number, "steps": 20}
        for number, prompt in enumerate(prompts)
    ]
    failure = Failure(code="out_of_memory", message="<b>Too large.</b>", next_step="")
    (folder / "manifest.jsonl").write_text(
        "".join(
            line(number, f"{name}.png", request=request, template={"prompt": request["prompt"]})
            for number, (name, request) in enumerate(zip(names, requests, strict=True), 1)
        )
        + line(61, None, status="failed", error=failure)
    )
    assert cli.main(["gallery", str(folder)]) == 0
    return folder


class Visit:
    """A page that was opened, and what it did that it should not have done."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.faults: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda said: self.faults.append(said.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)


@pytest.fixture
def visit(browser: Browser, out: Path) -> Iterator[Any]:
    contexts = []

    def open_page(
        scheme: Literal["light", "dark"] = "light", width: int = 1280, **options: Any
    ) -> Visit:
        viewport: Any = {"width": width, "height": 900}
        context = browser.new_context(color_scheme=scheme, viewport=viewport, **options)
        contexts.append(context)
        return Visit(context.new_page(), (out / "gallery.html").as_uri())

    yield open_page
    for context in contexts:
        context.close()


def test_it_shows_the_pictures_from_disk_and_asks_for_nothing_else(visit: Any, out: Path) -> None:
    opened = visit()
    images = opened.page.locator("#pictures img")
    expect(images).to_have_count(60)
    expect(images.first).to_have_js_property("complete", True)
    assert images.first.evaluate("image => image.naturalWidth") == 256
    for number in (0, 1, 2):  # names with signs that mean something in addresses
        assert images.nth(number).evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert all(address.startswith(out.as_uri()) for address in opened.asked)
    assert not opened.faults


def test_pictures_far_below_wait_until_they_are_near(visit: Any) -> None:
    opened = visit()
    opened.page.wait_for_load_state("load")
    assert len(opened.asked) < 50


def test_a_hostile_prompt_is_text(visit: Any) -> None:
    opened = visit()
    expect(opened.page.locator("#pictures > li")).to_have_count(60)
    for number, prompt in enumerate(HOSTILE):
        card = opened.page.locator("#pictures > li").nth(number)
        assert card.locator("p").text_content() == prompt
        assert prompt in (card.locator("dl").text_content() or "")
    assert opened.page.locator("script").count() == 1
    assert opened.page.locator("style").count() == 1
    assert "owned" not in opened.page.title()
    assert opened.page.locator("h1 b").count() == 0
    opened.page.locator("summary").click()
    expect(opened.page.locator("footer li")).to_have_text(
        "picture 61, line 61: [out_of_memory] <b>Too large.</b>"
    )
    addresses = opened.page.locator("#pictures a").evaluate_all("all => all.map(a => a.protocol)")
    assert set(addresses) == {"file:"}


def test_the_policy_stops_what_would_get_past_the_escaping(visit: Any) -> None:
    opened = visit()
    opened.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "document.title = 'owned'";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='document.title=1'>");
            document.body.insertAdjacentHTML("beforeend", "<b style='color: red'>x</b>");
        }"""
    )
    assert opened.page.title().startswith("a <b>batch")
    assert sum("Content Security Policy" in fault for fault in opened.faults) >= 2


def test_the_search_finds_words_of_prompts_and_settings(visit: Any) -> None:
    page = visit().page
    cards = page.locator("#pictures > li:visible")
    search = page.get_by_label("Search prompts and settings")
    search.fill("NUMBER fox 41")
    expect(cards).to_have_count(2)  # the fox number 41, and the one with the seed 41
    expect(page.get_by_role("status")).to_have_text("2 of 60 pictures")
    search.fill("number nowhere")
    expect(page.get_by_text("No picture has all these words.")).to_be_visible()
    search.fill("")
    expect(cards).to_have_count(60)
    expect(page.get_by_role("status")).to_have_text("60 pictures")


def test_settings_show_under_the_mouse_and_under_the_keyboards_focus(visit: Any) -> None:
    page = visit().page
    first, second = (page.locator("#pictures > li").nth(number) for number in (0, 1))
    expect(first.locator("dl")).to_have_css("opacity", "0")
    first.hover()
    expect(first.locator("dl")).to_have_css("opacity", "1")
    page.get_by_label("Search prompts and settings").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(second.locator("a")).to_be_focused()
    expect(second.locator("dl")).to_have_css("opacity", "1")
    with page.expect_event("framenavigated") as opened:
        page.keyboard.press("Enter")
    assert opened.value.url.endswith("a%20b%23c%3Fd%2520e.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(visit: Any, scheme: str) -> None:
    page = visit(scheme, bypass_csp=True).page  # the checker brings a script of its own
    page.locator("#pictures > li").first.hover()
    found = Axe().run(page).response["violations"]
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []


def test_dark_is_dark_and_light_is_light(visit: Any) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert visit("light").page.evaluate(paper) == "rgb(250, 249, 246)"
    assert visit("dark").page.evaluate(paper) == "rgb(19, 20, 22)"


def test_a_phone_shows_one_column_with_the_settings_in_sight(visit: Any) -> None:
    page = visit(width=390, has_touch=True, is_mobile=True).page
    expect(page.locator("#pictures dl").first).to_have_css("opacity", "1")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    lefts = page.locator("#pictures > li").evaluate_all("all => all.map(li => li.offsetLeft)")
    assert len(set(lefts)) == 1


def test_without_scripts_every_picture_is_there(visit: Any) -> None:
    page = visit(java_script_enabled=False).page
    expect(page.locator("#pictures > li")).to_have_count(60)
    expect(page.locator("#search")).to_be_hidden()
