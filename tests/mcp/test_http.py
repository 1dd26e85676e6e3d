"""Streamable HTTP: keys, host names, origins, bodies, and the originals beside it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from mcp import MCPError
from mcp.types import CallToolResult

from tests.api.conftest import HeldBackend
from tests.mcp.conftest import ERAS, Serve, data, http_client, words

pytestmark = pytest.mark.anyio

FOX = {"prompt": "a fox", "steps": 1, "seed": 7}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ASKED = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


@pytest.mark.parametrize("mode", ERAS)
async def test_both_eras_of_the_protocol_draw(serve: Serve, mode: str) -> None:
    async with serve() as url, http_client(url, mode) as client:
        assert client.protocol_version == {"legacy": "2025-11-25"}.get(mode, "2026-07-28")
        told = data(await client.call_tool("generate_image", FOX))
    assert told["status"] == "succeeded"


async def test_the_original_is_at_an_address_under_the_same_key(serve: Serve) -> None:
    async with serve(keys=("one", "two"), hosts=()) as url, httpx.AsyncClient() as http:
        async with http_client(url, key="one") as client:
            [made] = data(await client.call_tool("generate_image", FOX))["pictures"]
        assert made["original"] == f"{url}/images/{made['id']}.png"

        async def get(key: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return await http.get(made["original"], headers=headers)

        mine, other, nobody = [await get(key) for key in ("one", "two", "")]
    assert (mine.status_code, mine.headers["content-type"]) == (200, "image/png")
    assert mine.content.startswith(b"\x89PNG")
    assert other.status_code == 404
    assert nobody.status_code == 401
    assert "Authorization: Bearer KEY" in nobody.json()["error_description"]


@pytest.mark.parametrize("name", ["x", "%2e%2e%2fgallery.sqlite3", "a%00b", "ü" * 500])
async def test_what_is_no_picture_is_not_found(serve: Serve, name: str) -> None:
    async with serve() as url, httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/images/{name}")).status_code == 404


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("key", ["", "wrong", "ünicode"])
async def test_without_a_key_that_is_known_nobody_gets_in(
    serve: Serve, mode: str, key: str
) -> None:
    async with serve(keys=("right",), hosts=()) as url:
        async with httpx.AsyncClient() as http:
            given = ASKED | ({"Authorization": f"Bearer {key}"} if key else {})
            refused = await http.post(url, json=PING, headers=httpx.Headers(given, "latin-1"))
        assert refused.status_code == 401
        for said in (refused.json()["error_description"], refused.headers["www-authenticate"]):
            assert "asks for a key" in said and "Authorization: Bearer KEY" in said
        assert refused.headers["www-authenticate"].startswith("Bearer")
        with pytest.raises((ExceptionGroup, MCPError)):
            async with http_client(url, mode, "wrong" if key else ""):
                pass


@pytest.mark.parametrize("mode", ERAS)
async def test_jobs_and_pictures_belong_to_the_key_that_made_them(
    serve: Serve, held: HeldBackend, mode: str
) -> None:
    async with (
        serve(held, keys=("one", "two"), hosts=()) as url,
        http_client(url, mode, "one") as one,
        http_client(url, mode, "two") as two,
    ):
        job = data(await one.call_tool("generate_image", FOX | {"wait_seconds": 0}))["job_id"]
        for tool in ("get_job", "cancel_job"):
            refused = await two.call_tool(tool, {"job_id": job})
            assert refused.is_error and "error code: not_found" in words(refused)
        held.go.set()
        [made] = data(await one.call_tool("get_job", {"job_id": job}))["pictures"]
        assert data(await two.call_tool("list_images"))["pictures"] == []
        assert len(data(await one.call_tool("list_images"))["pictures"]) == 1
        with pytest.raises(MCPError, match="no such picture"):
            await two.read_resource(made["uri"])
        assert (await two.call_tool("show_image", {"id": made["id"]})).is_error


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 400),
    ],
)
async def test_a_web_page_elsewhere_cannot_call(
    serve: Serve, version: str, header: dict[str, str], status: int
) -> None:
    async with serve() as url, httpx.AsyncClient() as http:
        headers = ASKED | {"MCP-Protocol-Version": version} | header
        assert (await http.post(url, json=PING, headers=headers)).status_code == status
        if status != 400:
            assert (await http.get(f"{url}/images/x.png", headers=header)).status_code == status


async def test_a_web_page_that_is_allowed_may_call(serve: Serve) -> None:
    origin = "https://client.example"
    async with serve(origins=(origin,)) as url, httpx.AsyncClient() as http:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        allowed = await http.options(url, headers=asked)
        assert allowed.headers["access-control-allow-origin"] == origin
        called = await http.post(url, json=initialize(), headers=ASKED | {"Origin": origin})
        assert called.status_code == 200
        assert "mcp-session-id" in called.headers["access-control-expose-headers"].lower()


def initialize() -> dict[str, Any]:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"x" * 2**21, {413}),
        (b"[" * 100_000, {400}),
        (b"\xff\xfe{}", {400}),
        (b'{"jsonrpc": "2.0", "id": ' + b"9" * 5000 + b', "method": "ping"}', {200, 400}),
        (b"[]", {400}),
        (b"", {400}),
    ],
    ids=["2 MiB", "deep", "no UTF-8", "long number", "array", "empty"],
)
async def test_a_hostile_body_is_refused_and_the_server_goes_on(
    serve: Serve, version: str, body: bytes, statuses: set[int]
) -> None:
    async with serve() as url, httpx.AsyncClient(timeout=20) as http:
        headers = ASKED | {"MCP-Protocol-Version": version, "Content-Type": "application/json"}
        answer = await http.post(url, content=body, headers=headers)
        assert answer.status_code in statuses
        assert "Traceback" not in answer.text
        async with http_client(url) as client:
            assert (await client.list_tools()).tools


async def test_a_server_that_stops_ends_its_calls_first(serve: Serve, held: HeldBackend) -> None:
    async def call(url: str) -> CallToolResult:
        async with http_client(url) as client:
            await client.list_tools()  # asked for the schema of the answer otherwise, too late
            return await client.call_tool("generate_image", FOX)

    async with serve(held) as url:
        calling = asyncio.create_task(call(url))
        async with asyncio.timeout(20):
            while not held.started:
                await asyncio.sleep(0.005)
    async with asyncio.timeout(20):
        await asyncio.wait([calling])
    assert held.stopped == ["a fox"]
    assert data(calling.result())["status"] == "cancelled"
