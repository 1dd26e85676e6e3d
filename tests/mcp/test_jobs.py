"""Waiting, job handles, progress and cancelling, in memory and over real HTTP, in both eras."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator

import pytest
from mcp import Client

from shared.backends.fake import FakeBackend
from shared.contract import Event, GenerationRequest, Queued
from shared.gallery import Gallery
from shared.mcp import jobs
from tests.api.conftest import HeldBackend
from tests.mcp.conftest import ERAS, Make, Serve, data, http_client, images, words

pytestmark = pytest.mark.anyio

FOX = {"prompt": "a fox", "steps": 4, "seed": 7}


class Queue(FakeBackend):
    """Has others before each request: more than a number near 1 can be halved towards it."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        for position in range(80, -1, -1):
            yield Queued(position=position)
            await asyncio.sleep(0)
        async for event in super().generate(request):
            yield event


async def until(client: Client, job: str, status: str) -> None:
    while data(await client.call_tool("get_job", {"job_id": job}))["status"] != status:
        pass


async def test_what_is_not_done_in_time_goes_on_as_a_job(make: Make, held: HeldBackend) -> None:
    async with Client(make(held)) as client:
        started = data(await client.call_tool("generate_image", FOX | {"wait_seconds": 0}))
        assert started["status"] in ("queued", "running")
        assert "get_job" in started["message"]
        assert started["progress"] == {"ahead": 0, "step": 0, "steps": 4}
        held.go.set()
        answer = await client.call_tool("get_job", {"job_id": started["job_id"]})
    assert data(answer)["status"] == "succeeded"
    assert [picture["seed"] for picture in data(answer)["pictures"]] == [7]
    assert len(images(answer)) == 1


async def test_progress_has_the_place_in_the_queue_and_never_goes_back(make: Make) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    async with Client(make(Queue())) as client:
        await client.call_tool("generate_image", FOX, progress_callback=note)
    numbers = [progress for progress, _, _ in told]
    assert all(one < next_one for one, next_one in itertools.pairwise(numbers))
    assert sum(number < 1 for number in numbers) > 60
    assert {total for _, total, _ in told} == {4}
    said = [message or "" for _, _, message in told]
    assert any(message.startswith("Waiting behind") for message in said)
    assert any(message.startswith("Step") for message in said)


async def test_a_job_is_cancelled_before_its_next_step(make: Make, held: HeldBackend) -> None:
    async with Client(make(held)) as client:
        job = data(await client.call_tool("generate_image", FOX | {"wait_seconds": 0}))["job_id"]
        await started(held)
        ended = data(await client.call_tool("cancel_job", {"job_id": job}))
        again = data(await client.call_tool("cancel_job", {"job_id": job}))
    assert ended["status"] == "cancelled" == again["status"]
    assert held.stopped == ["a fox"]


async def test_to_stop_waiting_for_a_job_does_not_stop_the_job(
    make: Make, held: HeldBackend
) -> None:
    async with Client(make(held)) as client:
        job = data(await client.call_tool("generate_image", FOX | {"wait_seconds": 0}))["job_id"]
        waiting = asyncio.create_task(client.call_tool("get_job", {"job_id": job}))
        await started(held)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        held.go.set()
        await until(client, job, "succeeded")


async def started(held: HeldBackend, count: int = 1) -> None:
    async with asyncio.timeout(20):
        while len(held.started) < count:
            await asyncio.sleep(0.005)


async def stopped(held: HeldBackend) -> None:
    async with asyncio.timeout(20):
        while not held.stopped:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("road", ["memory", "http"])
async def test_a_cancelled_call_stops_its_work(
    make: Make, serve: Serve, held: HeldBackend, road: str, mode: str
) -> None:
    async def call(client: Client) -> None:
        calling = asyncio.create_task(client.call_tool("generate_image", FOX))
        await started(held)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        await stopped(held)

    if road == "memory":
        async with Client(make(held), mode=mode) as client:
            await call(client)
    else:
        async with serve(held) as url, http_client(url, mode) as client:
            await call(client)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_vanishes_stops_its_work(
    serve: Serve, held: HeldBackend, mode: str
) -> None:
    """Its connections break, and nobody says goodbye."""
    async with serve(held) as url:
        # A process of its own, killed while it waits.
        program = (
            "import asyncio, sys\nfrom mcp import Client\n"
            "async def main():\n"
            "    async with Client(sys.argv[1], mode=sys.argv[2]) as client:\n"
            "        await client.call_tool('generate_image', {'prompt': 'a fox'})\n"
            "asyncio.run(main())"
        )
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, mode)
        await started(held)
        client.kill()
        await client.wait()
        await stopped(held)


async def test_jobs_end_with_the_session(make: Make, held: HeldBackend) -> None:
    async with Client(make(held)) as client:
        await client.call_tool("generate_image", FOX | {"wait_seconds": 0})
        await started(held)
    assert held.stopped == ["a fox"]


async def test_too_many_jobs_at_once_are_refused(
    make: Make, held: HeldBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_RUNNING", 2)
    async with Client(make(held)) as client:
        for _ in range(2):
            data(await client.call_tool("generate_image", FOX | {"wait_seconds": 0}))
        refused = await client.call_tool("generate_image", FOX)
    assert refused.is_error
    assert "error code: queue_full" in words(refused)


async def test_only_the_last_jobs_are_remembered(
    make: Make, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_KEPT", 2)
    async with Client(make()) as client:
        made = [
            data(await client.call_tool("generate_image", FOX | {"seed": seed}))["job_id"]
            for seed in range(4)
        ]
        first = await client.call_tool("get_job", {"job_id": made[0]})
        last = await client.call_tool("get_job", {"job_id": made[-1]})
    assert first.is_error and "list_images" in words(first)
    assert data(last)["status"] == "succeeded"
    assert len(gallery.search()) == 4


async def test_a_hundred_calls_at_once_each_get_their_own_picture(serve: Serve) -> None:
    async with serve() as url, http_client(url) as client:
        answers = await asyncio.gather(
            *(client.call_tool("generate_image", FOX | {"seed": seed}) for seed in range(100))
        )
    assert [data(answer)["pictures"][0]["seed"] for answer in answers] == list(range(100))
