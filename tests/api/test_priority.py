"""Who goes first, and who must not be forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from shared.backends.api_client import ApiBackend
from shared.contract import collect, parse_request
from tests.api.conftest import HeldBackend, Serve, Server

pytestmark = pytest.mark.anyio


async def post(server: Server, prompt: str, priority: str) -> dict[str, Any]:
    answer = await server.client.post(
        "/v1/jobs", json={"prompt": prompt, "steps": 1}, headers={"Priority": priority}
    )
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_interactive_jobs_go_first_and_batch_jobs_get_every_fourth_turn(
    serve: Serve, backend: HeldBackend
) -> None:
    async with serve(backend, concurrency=1) as server:
        first = await server.post(prompt="first")
        waiting = [await post(server, f"batch {n}", "u=7") for n in range(3)]
        waiting += [await post(server, f"interactive {n}", "u=1, i") for n in range(8)]
        backend.go.set()
        for job in (first, *waiting):
            assert (await server.ended(job["id"]))["status"] == "succeeded"
    interactive = iter(f"interactive {n}" for n in range(8))
    expected = ["first", next(interactive), next(interactive), "batch 0"]
    expected += [next(interactive), next(interactive), next(interactive), "batch 1"]
    expected += [*interactive, "batch 2"]
    assert backend.started == expected


async def test_batch_jobs_leave_a_place_for_who_waits(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, concurrency=4, grace=0) as server:
        jobs = [await post(server, f"batch {n}", "u=5") for n in range(6)]
        assert [job["status"] for job in jobs] == ["running"] * 3 + ["queued"] * 3
        assert (await server.post())["status"] == "running"


async def test_batch_jobs_leave_room_in_the_queue(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, concurrency=1, max_queued=4, grace=0) as server:
        for n in range(4):
            await post(server, f"batch {n}", "u=6")
        refused = await server.client.post(
            "/v1/jobs", json={"prompt": "one more"}, headers={"Priority": "u=6"}
        )
        assert (refused.status_code, refused.json()["waiting"]) == (429, 3)
        assert (await server.post())["status"] == "queued"


@pytest.mark.parametrize(
    ("priority", "batch"),
    [
        ("", False),
        ("u=4", False),
        ("u=5", True),
        ("i,u=7;x", True),
        ("u=70", False),
        ("u=é", False),
    ],
)
async def test_the_header_is_that_of_rfc_9218(server: Server, priority: str, batch: bool) -> None:
    headers = {b"Priority": priority.encode("latin-1")}
    answer = await server.client.post("/v1/jobs", json={"prompt": "a"}, headers=headers)
    assert server.runner.store.job(answer.json()["id"]).batch is batch


async def test_the_backend_of_an_api_sends_its_priority(
    server: Server, backend: HeldBackend
) -> None:
    backend.go.set()
    client = ApiBackend(server.url, priority=6)
    await collect(client.generate(parse_request({"prompt": "a fox", "steps": 1})))
    await client.aclose()
    assert [job.batch for job in server.runner.store.jobs("")] == [True]
