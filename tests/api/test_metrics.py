"""What `/metrics` tells, read with Prometheus' own parser."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shared.backends.fake import FakeBackend
from shared.contract import BackendStatus, Event, GenerationRequest, Step
from shared.errors import OutOfMemory
from tests.api.conftest import HeldBackend, Serve, Server
from tests.test_docs import code

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs/api.md"


async def numbers(client: httpx.AsyncClient) -> dict[str, float]:
    """Every sample, under its name with its labels."""
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        " ".join(
            (sample.name, *(value for _, value in sorted(sample.labels.items())))
        ): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_jobs_are_counted_by_how_they_ended(serve: Serve) -> None:
    def no_memory(event: Event) -> None:
        if isinstance(event, Step) and event.steps == 3:
            raise OutOfMemory("Too large.", "Ask for less.")

    async with serve(FakeBackend(no_memory)) as server:
        for steps in (1, 2, 3):
            await server.ended((await server.post(steps=steps))["id"])
        told = await numbers(server.client)
    assert told["cygnet_jobs_total  succeeded"] == 2
    assert told["cygnet_jobs_total out_of_memory failed"] == 1


async def test_no_number_says_when_another_began(serve: Serve) -> None:
    async with serve(FakeBackend()) as server:
        await server.ended((await server.post())["id"])
        told = (await server.client.get("/metrics")).text
    assert "cygnet_jobs_total" in told
    assert "_created" not in told


async def test_every_number_that_the_docs_name_is_told(serve: Serve) -> None:
    named = set(re.findall(r"`((?:cygnet|process)_[a-z_]+)`", PAGE.read_text()))
    assert len(named) > 5
    async with serve(FakeBackend()) as server:
        await server.ended((await server.post())["id"])
        told = (await server.client.get("/metrics")).text
    if sys.platform != "linux":
        named.discard("process_resident_memory_bytes")
    assert {name for name in named if f"# TYPE {name} " not in told} == set()


def test_what_the_docs_give_prometheus_is_a_job_that_finds_the_server() -> None:
    [block] = code(PAGE, "yaml")
    [job] = yaml.safe_load(block)["scrape_configs"]
    assert job.pop("job_name") == "cygnet"
    assert job.pop("authorization").keys() == {"credentials_file"}
    [[target]] = [static["targets"] for static in job.pop("static_configs")]
    assert f"http://{target}" in PAGE.read_text()
    assert not job  # its path is Prometheus' own default, /metrics


async def test_the_queue_is_told_as_it_is(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, concurrency=1, grace=0) as server:
        jobs = [await server.post() for _ in range(3)]
        told = await numbers(server.client)
        assert (told["cygnet_jobs_running"], told["cygnet_queue_depth"]) == (1, 2)
        await server.client.delete(f"/v1/jobs/{jobs[2]['id']}")
        told = await numbers(server.client)
        assert told["cygnet_queue_depth"] == 1
        assert told["cygnet_jobs_total cancelled cancelled"] == 1


async def test_steps_and_phases_are_those_of_the_events(serve: Serve) -> None:
    class Measured(FakeBackend):
        async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
            async for event in super().generate(request):
                if isinstance(event, Step):
                    event = event.model_copy(update={"batch": 4, "seconds": 0.5})
                yield event

        async def status(self) -> BackendStatus:
            return (await super().status()).model_copy(update={"memory_bytes": 7})

    async with serve(Measured()) as server:
        await server.ended((await server.post(steps=3))["id"])
        told = await numbers(server.client)
    assert (told["cygnet_batch_size_count"], told["cygnet_batch_size_sum"]) == (3, 12)
    assert (told["cygnet_step_seconds_count"], told["cygnet_step_seconds_sum"]) == (3, 1.5)
    for phase in ("queued", "loading", "encoding", "denoising", "decoding", "total"):
        assert told[f"cygnet_phase_seconds_count {phase}"] == 1
    assert told["cygnet_device_memory_bytes"] == 7
    if sys.platform == "linux":
        assert told["process_resident_memory_bytes"] > 2**20


async def test_calls_are_counted_by_route_and_answer_and_not_by_what_was_made_up(
    server: Server,
) -> None:
    for path in ("/healthz", "/v1/jobs/x", "/v1/jobs/y", "/a", "/b"):
        await server.client.get(path)
    await server.client.request("BREW", "/healthz")
    told = await numbers(server.client)
    calls = {name: n for name, n in told.items() if name.startswith("cygnet_http_requests_total ")}
    assert calls == {
        "cygnet_http_requests_total GET /healthz 200": 1,
        "cygnet_http_requests_total GET /v1/jobs/{job} 404": 2,
        "cygnet_http_requests_total GET other 404": 2,
        "cygnet_http_requests_total other /healthz 405": 1,
    }


async def test_numbers_need_a_key_where_there_is_one(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=("a-key",)) as server:
        assert (await server.client.get("/metrics")).status_code == 401
        headers = {"Authorization": "Bearer a-key"}
        assert (await server.client.get("/metrics", headers=headers)).status_code == 200
