"""One rule for the API, the page and MCP: which web pages may call, by what a browser says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Page

from shared.api import ApiOptions, create_app
from shared.api.call_jobs import CallJobs
from shared.backends.fake import FakeBackend
from shared.gallery import Gallery
from shared.mcp.http import HttpOptions, mcp_app
from shared.site import create_site
from tests.mcp.conftest import routed
from tests.space.browser import browser, context, draw, drawn, ready, tab
from tests.space.conftest import Serve
from tests.space.routes import METHODS, routes

__all__ = ["browser", "context", "tab"]

pytestmark = pytest.mark.anyio

OWN = "http://127.0.0.1:8000"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPTIONS: dict[str, dict[str, Any]] = {
    "this machine": {"hosts": LOOPBACK},
    "keys": {"keys": ("right",)},
    "open to all": {},
    "with an origin": {"keys": ("right",), "origins": ("https://page.example",)},
}

ELSEWHERE = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:8888"},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:80"},
    {"Origin": "http://127.0.0.1:8000.evil.example"},
    {"Origin": "http://127.0.0.1:8000@evil.example"},
    {"Origin": "http://evil.example#127.0.0.1:8000"},
    {"Origin": "http://x@127.0.0.1:8000"},
    {"Origin": "http://127.0.0.1:99999999"},
    {"Origin": "http://[::1"},
    {"Origin": "https://page.example.evil.example"},
    {"Origin": "file://127.0.0.1:8000"},
    {"Origin": "http://evil.example", "X-Forwarded-Proto": "https"},
    {"Origin": OWN, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "something-new"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
]
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SIMPLE = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(app: Any, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=OWN, headers=headers, timeout=60)


def site(folder: Path, name: str) -> FastAPI:
    return create_site(routed(FakeBackend()), folder, ApiOptions(**OPTIONS[name]))


@pytest.mark.parametrize("name", OPTIONS)
async def test_a_page_elsewhere_may_call_no_route_of_a_site(tmp_path: Path, name: str) -> None:
    app = site(tmp_path, name)
    paths = sorted({*routes(app), "/", "/nothing", "/v1/nothing"})
    assert {"/v1/jobs", "/mcp", "/config", "/gradio_api/upload", "/docs"} < set(paths)
    async with client(app, Authorization="Bearer right") as http:
        for path in paths:
            for method in METHODS:
                few = path not in ("/", "/v1/jobs", "/mcp", "/gradio_api/upload")
                for headers in ELSEWHERE[:: 6 if few else 1]:
                    answer = await http.request(method, path, headers=headers)
                    assert answer.status_code == 403, (method, path, headers, answer.text)
                    assert "access-control-allow-origin" not in answer.headers
            for method in ("POST", "PUT", "PATCH", "DELETE"):  # a form sent from elsewhere
                assert (await http.request(method, path, headers=LINK)).status_code == 403


@pytest.mark.parametrize("kind", SIMPLE)
async def test_what_a_page_may_send_unasked_is_refused(tmp_path: Path, kind: str) -> None:
    app = site(tmp_path, "this machine")
    async with client(app) as http:
        for path in sorted(set(routes(app))):
            for headers in ELSEWHERE[::6]:
                sent = headers | {"Content-Type": kind}
                assert (await http.post(path, content=b"x", headers=sent)).status_code == 403


async def test_a_page_elsewhere_is_given_no_leave_to_ask(tmp_path: Path) -> None:
    for name in OPTIONS:
        app = site(tmp_path / name, name)
        async with client(app) as http:
            for path in ("/", "/config", "/v1/jobs", "/mcp", "/gradio_api/upload"):
                asked = {"Access-Control-Request-Method": "POST", "Origin": "http://localhost:8888"}
                answer = await http.options(path, headers=asked)
                assert answer.status_code >= 400
                assert "access-control-allow-origin" not in answer.headers
                assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "[::1", ""])
async def test_no_route_answers_to_a_name_that_is_not_the_servers(
    tmp_path: Path, host: str
) -> None:
    app = site(tmp_path, "this machine")
    async with client(app, Host=host) as http:
        for path in sorted(set(routes(app))):
            for method in ("GET", "POST"):
                assert (await http.request(method, path)).status_code == 421


async def test_modals_door_and_mcp_alone_have_the_same_rule(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "gallery")
    options = ApiOptions(keys=("right",))
    nothing: Any = None
    jobs = CallJobs("modal", nothing, nothing, "cygnet-tiny", options)
    doors = (
        (create_app(jobs, options), ("/v1/jobs", "/healthz", "/docs", "/openapi.json")),
        (mcp_app(routed(FakeBackend()), gallery), ("/mcp", "/mcp/images/x.png")),
        (mcp_app(routed(FakeBackend()), gallery, HttpOptions(keys=("right",))), ("/mcp",)),
    )
    for app, paths in doors:
        async with client(app, Authorization="Bearer right") as http:
            for path in paths:
                for headers in ELSEWHERE:
                    for method in ("GET", "POST"):
                        answer = await http.request(method, path, headers=headers)
                        assert answer.status_code == 403, (method, path, headers)
    gallery.close()


PROGRAMS = [
    {},
    {"Sec-Fetch-Mode": "cors"},  # Node's fetch
    {"Origin": OWN},
    {"Origin": OWN, "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
]
BEHIND_A_PROXY = [
    # Spaces and Modal hand the outer name on, and say that TLS was there.
    {"Host": "swan-cygnet.hf.space", "X-Forwarded-Proto": "https"},
    {"Host": "swan-cygnet.hf.space"},
    {"Host": "swan-cygnet.hf.space:443", "X-Forwarded-Proto": "https"},
    {"Host": "10.0.0.7:7860", "X-Forwarded-Host": "swan-cygnet.hf.space"},
    {
        "Host": "10.0.0.7:7860",
        "X-Forwarded-Host": "swan-cygnet.hf.space, 10.1.1.1",
        "X-Forwarded-Proto": "https, http",
    },
]


@pytest.mark.parametrize("name", OPTIONS)
async def test_programs_and_the_servers_own_page_may_call(tmp_path: Path, name: str) -> None:
    async with client(site(tmp_path, name), Authorization="Bearer right") as http:
        for headers in PROGRAMS:
            for path in ("/", "/config", "/v1/models", "/docs"):
                answer = await http.get(path, headers=headers)
                assert answer.status_code == 200, (path, headers, answer.text)
            sent = await http.post("/gradio_api/reset", json={}, headers=headers)
            assert sent.status_code == 422  # Gradio's own, for an empty body


@pytest.mark.parametrize("name", ["keys", "open to all"])
@pytest.mark.parametrize("proxy", BEHIND_A_PROXY)
async def test_behind_a_proxy_the_page_may_call(
    tmp_path: Path, name: str, proxy: dict[str, str]
) -> None:
    page = {"Origin": "https://swan-cygnet.hf.space", "Sec-Fetch-Site": "same-origin"}
    async with client(site(tmp_path, name), Authorization="Bearer right", **proxy) as http:
        assert (await http.get("/config", headers=page)).status_code == 200
        assert (await http.post("/gradio_api/reset", json={}, headers=page)).status_code == 422
        for other in ("https://huggingface.co", "https://other.hf.space"):
            assert (await http.get("/config", headers=page | {"Origin": other})).status_code == 403


@pytest.mark.parametrize("name", OPTIONS)
async def test_a_link_from_elsewhere_opens_the_page(tmp_path: Path, name: str) -> None:
    async with client(site(tmp_path, name), Authorization="Bearer right") as http:
        assert (await http.get("/", headers=LINK)).status_code == 200
        assert (await http.get("/", headers=LINK | {"Origin": "null"})).status_code == 403
        # A Space is shown in a frame of huggingface.co; where no key is asked for, none may lead clicks.
        framed = (await http.get("/", headers=LINK | {"Sec-Fetch-Dest": "iframe"})).status_code
        assert framed == (403 if name == "this machine" else 200)


async def test_a_configured_page_may_call_every_part(tmp_path: Path) -> None:
    page = {"Origin": "https://page.example", "Sec-Fetch-Site": "cross-site"}
    async with client(site(tmp_path, "with an origin"), Authorization="Bearer right") as http:
        for path in ("/config", "/v1/models", "/docs"):
            answer = await http.get(path, headers=page)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == page["Origin"]
        asked = page | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, mcp-protocol-version",
        }
        for path in ("/v1/jobs", "/mcp", "/gradio_api/call/generate"):
            allowed = await http.options(path, headers=asked)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == page["Origin"]
            assert "access-control-allow-credentials" not in allowed.headers


async def test_an_origin_may_be_written_as_an_address(tmp_path: Path) -> None:
    options = ApiOptions(keys=("right",), origins=("HTTPS://Page.example/",))
    app = create_site(routed(FakeBackend()), tmp_path, options)
    async with client(app, Authorization="Bearer right") as http:
        answer = await http.get("/v1/models", headers={"Origin": "https://page.example"})
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


def test_a_page_at_another_port_of_this_machine_reads_and_stores_nothing(
    serve: Serve, tab: Page, tmp_path: Path
) -> None:
    here = ("127.0.0.1", "localhost")
    with (
        serve(FakeBackend(), hosts=here) as url,
        serve(FakeBackend(), hosts=here, folder=tmp_path / "b") as evil,
    ):
        tab.goto(f"{evil}/docs")
        read = "url => fetch(url).then(answer => answer.text()).catch(() => 'nothing')"
        assert tab.evaluate(read, f"{url}/config") == "nothing"
        store = """url => {
            const form = new FormData();
            form.append('files', new Blob(['x'.repeat(1000)]), 'x.bin');
            return fetch(url, {method: 'POST', mode: 'no-cors', body: form}).then(() => 'sent');
        }"""
        assert tab.evaluate(store, f"{url}/gradio_api/upload") == "sent"
        assert not list((tmp_path / "data/page").iterdir())
        tab.goto(url)
        draw(ready(tab))
        drawn(tab)


def test_a_link_on_another_page_opens_this_one(serve: Serve, tab: Page) -> None:
    with serve(FakeBackend(), hosts=("127.0.0.1", "localhost")) as url:
        tab.goto(f"{url.replace('127.0.0.1', 'localhost')}/healthz")  # which is another site
        tab.evaluate("url => document.body.innerHTML = `<a href=${url}>here</a>`", url)
        tab.click("a")
        draw(ready(tab))
        drawn(tab)
