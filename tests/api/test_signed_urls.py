"""Addresses of images that open without a key, for a while."""

from __future__ import annotations

import time
from typing import Any

import httpx
import openai
import pytest

from shared.api import signed_urls
from shared.backends.fake import FakeBackend
from shared.images import read_recipe
from tests.api.conftest import Serve, Server

pytestmark = pytest.mark.anyio

KEYS = ("first-key", "second-key")


async def url_of(server: Server) -> str:
    """The address of an image that OpenAI's client was told."""
    url, key = f"{server.url}/v1", KEYS[-1]
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
        answer = await client.images.generate(prompt="a fox", response_format="url")
    assert answer.data and answer.data[0].url
    assert not any(key in answer.data[0].url for key in KEYS)
    return answer.data[0].url


def changed(url: str, **query: str) -> httpx.URL:
    return httpx.URL(url).copy_merge_params(query)


async def test_the_address_of_an_image_opens_without_a_key_in_any_size(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        url = await url_of(server)
        whole = await server.client.get(url)
        assert read_recipe(whole.content).fields["prompt"] == "a fox"
        assert (await server.client.get(changed(url, size="128"))).status_code == 200


async def test_a_job_tells_such_addresses_too(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        server.client.headers["Authorization"] = f"Bearer {KEYS[0]}"
        job = await server.ended((await server.post())["id"])
        del server.client.headers["Authorization"]
        assert (await server.client.get(job["images"][0]["url"])).status_code == 200


async def test_it_opens_nothing_after_its_time(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=KEYS, url_seconds=-1) as server:
        answer = await server.client.get(await url_of(server))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")


async def test_it_does_not_open_for_longer_because_the_clock_was_ahead(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        with monkeypatch.context() as ahead:
            now = time.time()
            ahead.setattr(signed_urls.time, "time", lambda: now + 31 * 24 * 60 * 60)
            url = await url_of(server)
            assert (await server.client.get(url)).status_code == 200
        assert (await server.client.get(url)).status_code == 401


@pytest.mark.parametrize(
    "query",
    [
        {"expires": "99999999999"},
        {"signature": "A" * 43},
        {"signature": ""},
        {"signature": "\xff"},
        {"signature": "€"},
    ],
)
async def test_a_changed_address_opens_nothing(serve: Serve, query: dict[str, str]) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        answer = await server.client.get(changed(await url_of(server), **query))
        assert answer.status_code == 401


@pytest.mark.parametrize("query", [{"expires": "soon"}, {"signature": "A" * 44}])
async def test_an_address_that_cannot_be_one_of_ours_is_a_bad_request(
    serve: Serve, query: dict[str, Any]
) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        answer = await server.client.get(changed(await url_of(server), **query))
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_it_opens_its_own_image_only(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        one, other = [httpx.URL(await url_of(server)) for _ in range(2)]
        assert (await server.client.get(one.copy_with(path=other.path))).status_code == 401


async def test_it_opens_as_long_as_its_key_is_one_of_the_servers(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=KEYS) as server:
        path = httpx.URL(await url_of(server)).raw_path.decode()
    for keys, status in ((KEYS[::-1], 200), (KEYS[1:], 401)):
        async with serve(FakeBackend(), keys=keys) as server:
            assert (await server.client.get(path)).status_code == status
