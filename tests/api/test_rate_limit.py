"""How many requests for pictures a key may send."""

from __future__ import annotations

import openai
import pytest

from shared.api.rate_limit import RateLimit
from shared.backends.fake import FakeBackend
from shared.errors import RateLimited
from tests.api.conftest import Serve

pytestmark = pytest.mark.anyio

WANTED = {"prompt": "a fox", "steps": 1}


async def test_a_key_that_has_sent_too_many_is_told_when_to_come_back(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=("one", "two"), requests_per_minute=2) as server:
        one, two = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
        for _ in range(2):
            answer = await server.client.post("/v1/jobs", json=WANTED, headers=one)
            assert answer.status_code == 202
        refused = await server.client.post("/v1/jobs", json=WANTED, headers=one)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 30
        assert len((await server.client.get("/v1/jobs", headers=one)).json()["data"]) == 2
        other = await server.client.post("/v1/jobs", json=WANTED, headers=two)
        assert other.status_code == 202


async def test_openais_client_sees_its_own_error(serve: Serve) -> None:
    async with serve(FakeBackend(), requests_per_minute=1) as server:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0) as client:
            await client.images.generate(prompt="a fox")
            with pytest.raises(openai.RateLimitError) as refusal:
                await client.images.generate(prompt="a fox")
    assert (refusal.value.code, refusal.value.type) == ("rate_limited", "rate_limit_error")
    assert int(refusal.value.response.headers["retry-after"]) > 0


def test_the_minute_may_be_used_at_once_or_evenly() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    for _ in range(60):
        limit.take("a")
    with pytest.raises(RateLimited) as refusal:
        limit.take("a")
    assert refusal.value.retry_after == 1
    for _ in range(100):
        now += 1
        limit.take("a")
    with pytest.raises(RateLimited):
        limit.take("a")


def test_where_no_limit_is_set_there_is_none() -> None:
    limit = RateLimit(0)
    for _ in range(1000):
        limit.take("a")
