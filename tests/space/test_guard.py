"""Who may reach the page: the rules are the API's."""

from __future__ import annotations

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect

from shared.api.unknown_calls import OPENAI_ROUTE
from shared.backends.fake import FakeBackend
from tests.space.browser import browser, context, draw, drawn, ready, tab
from tests.space.conftest import Serve

__all__ = ["browser", "context", "tab"]

KEYS = ("first-key", "second; key, with ünusual=parts")

DOORS = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/gradio_api/info"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/call/generate"),
    ("POST", "/gradio_api/upload"),
    ("GET", "/gradio_api/queue/data?session_hash=x"),
    ("GET", "/gradio_api/file=/etc/passwd"),
]


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_no_door_of_the_page_opens_without_a_key(serve: Serve, method: str, path: str) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "cygnet-key=wrong"}):
            answer = httpx.request(method, url + path, headers=headers, json={})
            assert answer.status_code == 401
            assert answer.json()["code"] == "unauthorised"


def test_a_person_is_asked_for_a_key_once(serve: Serve, browser: Browser) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(url)
        tab.get_by_label("Key").fill("wrong")
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("alert")).to_contain_text("none of this server's keys")
        tab.get_by_label("Key").fill(KEYS[1])
        tab.keyboard.press("Enter")
        draw(ready(tab))
        drawn(tab)
        [cookie] = context.cookies()
        assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Lax")
        context.close()


def test_a_link_with_settings_survives_the_login(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        tab.goto(f"{url}/?prompt=a+fox+%26+a+hen&seed=77")
        for key in ("wrong", KEYS[0]):
            tab.get_by_label("Key").fill(key)
            tab.keyboard.press("Enter")
        expect(ready(tab).locator("#prompt textarea")).to_have_value("a fox & a hen")
        expect(tab.locator("#seed input")).to_have_value("77")


@pytest.mark.parametrize(
    "link", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", ""]
)
def test_a_login_leads_nowhere_else(serve: Serve, link: str) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        answer = httpx.post(f"{url}/login", params={"next": link}, data={"key": KEYS[0]})
        assert answer.next_request and answer.next_request.url.host == "127.0.0.1"


def test_inside_another_site_it_opens_in_a_tab_of_its_own(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        tab.goto(f"{url.replace('127.0.0.1', 'localhost')}/login")  # which is another site
        tab.evaluate("url => document.body.innerHTML = `<iframe src=${url} height=500>`", url)
        frame = tab.frame_locator("iframe")
        expect(frame.get_by_text("opens in a tab of its own")).to_be_visible()
        frame.get_by_label("Key").fill(KEYS[0])
        with tab.expect_popup() as popup:
            frame.get_by_role("button", name="Open").click()
        draw(ready(popup.value))
        drawn(popup.value)


def test_a_key_owns_its_pictures_in_any_browser(serve: Serve, browser: Browser) -> None:
    def enter(url: str, key: str) -> Page:
        tab = browser.new_context().new_page()
        tab.goto(url)
        tab.get_by_label("Key").fill(key)
        tab.keyboard.press("Enter")
        return ready(tab)

    with serve(FakeBackend(), keys=KEYS) as url:
        mine = enter(url, KEYS[0])
        draw(mine)
        drawn(mine)
        expect(enter(url, KEYS[0]).locator("#strip .thumb")).to_have_count(1)
        theirs = enter(url, KEYS[1])
        theirs.get_by_role("tab", name="History").click()
        expect(theirs.locator(".none")).to_be_visible()
        for context in browser.contexts:
            context.close()


def test_a_program_sends_its_key_as_to_the_api(serve: Serve) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        client = Client(url, headers={"Authorization": f"Bearer {KEYS[0]}"}, verbose=False)
        assert client.predict("a fox", api_name="/generate")["type"] == "done"


def test_it_answers_to_its_own_name_only(serve: Serve) -> None:
    with serve(FakeBackend(), hosts=("127.0.0.1",)) as url:
        assert httpx.get(url).status_code == 200
        for path in ("/", "/gradio_api/info", "/v1/models"):
            answer = httpx.get(url + path, headers={"Host": "evil.example"})
            assert answer.status_code == 421


def test_an_address_without_v1_comes_to_the_api_and_not_to_the_page(serve: Serve) -> None:
    with serve(FakeBackend()) as url:
        for path in (
            "/images/generations",
            "/models",
            "/chat/completions",
            "/v1",
            "/openai/v1/models",
        ):
            for method in ("GET", "POST"):
                answer = httpx.request(method, url + path, json={})
                assert answer.status_code == 404
                assert f"POST {OPENAI_ROUTE}" in answer.json()["error"]["message"]
                assert path == "/v1" or f"{url}/v1" in answer.json()["error"]["message"]
        for path in ("/", "/config", "/gradio_api/info"):
            assert httpx.get(url + path).status_code == 200


def test_a_body_has_a_sane_size(serve: Serve) -> None:
    with serve(FakeBackend(), max_body=1000) as url:
        long = httpx.post(f"{url}/gradio_api/queue/join", content=b"x" * 1001)
        assert (long.status_code, long.json()["code"]) == (413, "invalid_call")
        unsaid = httpx.post(f"{url}/gradio_api/queue/join", content=iter([b"x"]))
        assert unsaid.status_code == 411


@pytest.mark.parametrize(
    "path", ["/login", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/predict"]
)
def test_a_body_is_no_longer_than_it_says(serve: Serve, path: str) -> None:
    with serve(FakeBackend(), keys=KEYS) as url:
        headers = {"Authorization": f"Bearer {KEYS[0]}", "Content-Length": "10"}
        headers |= {"Transfer-Encoding": "chunked"}  # which goes before the length
        answer = httpx.post(url + path, headers=headers, content=iter([b"x" * 100]))
        assert (answer.status_code, answer.json()["code"]) == (411, "invalid_call")


def test_a_path_of_the_api_that_is_not_there_is_the_apis_to_refuse(serve: Serve) -> None:
    with serve(FakeBackend()) as url:
        answer = httpx.get(f"{url}/v1/nothing")
        assert (answer.status_code, answer.json()["code"]) == (404, "invalid_call")
