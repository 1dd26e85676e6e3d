"""MCP beside the API and the page, in one process, over one backend and one gallery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import MCPError

from shared.api import ApiOptions
from shared.api.security import key_digest
from shared.api.server import Server, listen
from shared.backends import Backend
from shared.backends.fake import FakeBackend
from shared.gallery import Gallery
from shared.settings import settings
from shared.site import create_site
from tests.api.conftest import HeldBackend
from tests.mcp.conftest import ERAS, data, http_client, routed, words

pytestmark = pytest.mark.anyio

FOX = {"prompt": "a fox", "steps": 1, "seed": 7}


@contextlib.asynccontextmanager
async def site(
    folder: Path, backend: Backend, name: str = "fake", **options: Any
) -> AsyncIterator[str]:
    server = Server(create_site(routed(backend, name), folder, ApiOptions(**options)))
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.mark.parametrize("mode", ERAS)
async def test_one_process_serves_mcp_the_api_and_the_page(tmp_path: Path, mode: str) -> None:
    async with site(tmp_path, FakeBackend(), hosts=("127.0.0.1",)) as url:
        async with http_client(f"{url}/mcp", mode) as client:
            [made] = data(await client.call_tool("generate_image", FOX))["pictures"]
            assert len(data(await client.call_tool("list_images"))["pictures"]) == 1
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            assert (await http.get(made["original"])).content.startswith(b"\x89PNG")
            assert (await http.get("/v1/models")).status_code == 200
            assert "Cygnet" in (await http.get("/")).text


async def test_the_keys_of_the_site_open_it(tmp_path: Path) -> None:
    async with site(tmp_path, FakeBackend(), keys=("right",)) as url:
        async with http_client(f"{url}/mcp", key="right") as client:
            assert data(await client.call_tool("generate_image", FOX))["status"] == "succeeded"
        with contextlib.closing(Gallery(tmp_path / "gallery")) as pages:  # the page's, for that key
            assert len(pages.search(owner=key_digest("right"))) == 1
        with pytest.raises((ExceptionGroup, MCPError)):
            async with http_client(f"{url}/mcp", key="wrong"):
                pass


async def test_a_site_that_is_open_to_strangers_does_not_let_them_search(tmp_path: Path) -> None:
    async with site(tmp_path, FakeBackend()) as url, http_client(f"{url}/mcp") as client:
        [made] = data(await client.call_tool("generate_image", FOX))["pictures"]
        searched = await client.call_tool("list_images")
        assert searched.is_error and "error code: unauthorised" in words(searched)
        assert not (await client.call_tool("show_image", {"id": made["id"]})).is_error


async def test_callers_of_a_site_draw_where_it_does_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_MODAL_URL", "https://modal.example")  # which its owner pays for
    settings.cache_clear()
    async with site(tmp_path, FakeBackend()) as url, http_client(f"{url}/mcp") as client:
        [tool] = [one for one in (await client.list_tools()).tools if one.name == "generate_image"]
        assert tool.input_schema["properties"]["backend"]["enum"] == ["fake"]
        for other in ("modal", "auto"):
            refused = await client.call_tool("generate_image", FOX | {"backend": other})
            assert refused.is_error and "Choose one of fake." in words(refused)
        listed = data(await client.call_tool("list_backends"))["backends"]
        assert [row["name"] for row in listed] == ["fake"]
    async with site(tmp_path, FakeBackend(), "auto") as url, http_client(f"{url}/mcp") as client:
        made = await client.call_tool("generate_image", FOX | {"backend": "modal"})
        assert data(made)["backend"] == "modal"


async def test_the_rate_limit_of_a_site_counts_the_calls_of_mcp_too(tmp_path: Path) -> None:
    options = {"keys": ("one", "two"), "requests_per_minute": 2}
    async with site(tmp_path, FakeBackend(), **options) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            headers = {"Authorization": "Bearer one"}
            sent = await http.post("/v1/jobs", json=FOX, headers=headers)
            assert sent.status_code == 202
        async with http_client(f"{url}/mcp", key="one") as one:
            assert not (await one.call_tool("generate_image", FOX)).is_error
            refused = await one.call_tool("generate_image", FOX)
            assert refused.is_error and "error code: rate_limited" in words(refused)
            assert not (await one.call_tool("list_checkpoints")).is_error
        async with http_client(f"{url}/mcp", key="two") as two:
            assert not (await two.call_tool("generate_image", FOX)).is_error


async def test_a_site_that_stops_ends_the_calls_of_mcp(tmp_path: Path, held: HeldBackend) -> None:
    async def call(url: str) -> str:
        async with http_client(f"{url}/mcp") as client:
            await client.list_tools()
            return data(await client.call_tool("generate_image", FOX))["status"]

    async with site(tmp_path, held, hosts=("127.0.0.1",), grace=0) as url:
        calling = asyncio.create_task(call(url))
        async with asyncio.timeout(30):
            while not held.started:
                await asyncio.sleep(0.005)
    async with asyncio.timeout(30):
        assert await calling == "cancelled"
    assert held.stopped == ["a fox"] and held.closed
