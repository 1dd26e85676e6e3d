"""Jobs that are calls of a platform, over HTTP, with the platform in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.api import ApiOptions, create_app, create_refusal
from shared.api.call_jobs import LOST, CallJobs
from shared.backends.modal.methods import Methods
from shared.backends.modal.records import Records
from shared.checkpoints import ON_A_GPU
from shared.contract import Event, GenerationRequest, ImageReady, parse_request
from shared.errors import BackendUnavailable, OutOfMemory
from shared.images import read_recipe
from shared.prices import Machine
from shared.store import Terms
from tests.api.conftest import HeldBackend
from tests.modal.conftest import Deploy, MemoryTable, TaskCalls, serving

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer one-key"}


@dataclass
class Deployment:
    """What the containers share, and a web container in front of it."""

    backend: HeldBackend
    records: Records
    calls: TaskCalls
    client: httpx.AsyncClient

    async def post(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"prompt": "a fox", "steps": 2, "seed": 7} | fields
        return await self.client.post("/v1/jobs", json=body, headers=headers)

    async def events(self, job: str, after: int = 0) -> list[tuple[int, str, Any]]:
        """All that a reader gets who has seen `after`, to the end of the stream."""
        headers = {"Last-Event-ID": str(after)}
        answer = await self.client.get(f"/v1/jobs/{job}/events", headers=headers)
        return [read(block) for block in answer.text.split("\n\n") if block.startswith("id")]


def read(block: str) -> tuple[int, str, Any]:
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return int(fields["id"]), fields["event"], json.loads(fields["data"])


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def deployment(clock: Clock) -> AsyncIterator[Deployment]:
    async with deployed("cygnet-tiny", clock) as one:
        yield one


@contextlib.asynccontextmanager
async def deployed(checkpoint: str, clock: Clock) -> AsyncIterator[Deployment]:
    backend = HeldBackend()
    records = Records(MemoryTable(), MemoryTable(), clock)
    calls = TaskCalls.of(Methods(backend, checkpoint, Machine(2, 4)), records)
    options = ApiOptions(keys=("one-key", "another-key"), max_queued=8)
    async with (
        serving(create_app(CallJobs("modal", calls, records, checkpoint, options), options)) as url,
        httpx.AsyncClient(base_url=url, timeout=30, headers=KEY) as client,
    ):
        yield Deployment(backend, records, calls, client)


async def test_a_job_is_told_from_the_queue_to_the_picture(deployment: Deployment) -> None:
    deployment.backend.go.set()
    answer = await deployment.post()
    assert answer.status_code == 202
    job = answer.json()["id"]
    events = await deployment.events(job)
    assert [kind for _, kind, _ in events] == [
        "queued", "starting", "step", "step", "image", "done",
    ]  # fmt: skip
    assert [number for number, _, _ in events] == [1, 2, 3, 4, 5, 6]
    now = (await deployment.client.get(f"/v1/jobs/{job}")).json()
    assert now["status"] == "succeeded"
    assert now["result"]["backend"] == "modal"
    assert now["result"]["cost_usd"] is not None
    picture = (await deployment.client.get(now["images"][0]["url"])).content
    assert read_recipe(picture).fields["seed"] == 7


async def test_where_a_machine_runs_none_is_said_to_start(deployment: Deployment) -> None:
    deployment.calls.machines = 1
    deployment.backend.go.set()
    job = (await deployment.post()).json()["id"]
    assert "starting" not in [kind for _, kind, _ in await deployment.events(job)]


async def test_a_stream_goes_on_after_the_last_event_seen(deployment: Deployment) -> None:
    deployment.backend.go.set()
    job = (await deployment.post()).json()["id"]
    whole = await deployment.events(job)
    for seen in range(len(whole) + 1):
        assert await deployment.events(job, seen) == whole[seen:]


async def test_a_job_is_queued_then_runs_then_stops_when_it_is_cancelled(
    deployment: Deployment,
) -> None:
    job = (await deployment.post()).json()["id"]
    async with deployment.client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        async for line in stream.aiter_lines():
            if line == "event: starting":
                break
    now = await deployment.client.delete(f"/v1/jobs/{job}")
    assert now.json()["status"] == "cancelled"
    assert deployment.backend.stopped == ["a fox"]
    assert (await deployment.events(job))[-1][2]["code"] == "cancelled"
    again = await deployment.client.delete(f"/v1/jobs/{job}")
    assert again.json()["status"] == "cancelled"


async def test_a_job_that_was_cancelled_is_not_drawn_by_a_machine_that_gets_it_later(
    deployment: Deployment,
) -> None:
    request = parse_request({"prompt": "a fox"})
    job, _ = await deployment.records.add(request, "", Terms())
    jobs = CallJobs("modal", deployment.calls, deployment.records, "cygnet-tiny", ApiOptions())
    assert (await jobs.cancel(job)).status == "cancelled"
    call = await deployment.calls.spawn(job, request)
    assert await deployment.calls.is_over(call, 5)
    assert deployment.backend.started == []


async def test_the_same_idempotency_key_is_the_same_job(deployment: Deployment) -> None:
    key = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(*(deployment.post(key) for _ in range(8)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(deployment.calls.calls) == 1
    other = await deployment.post(key, seed=8)
    assert other.status_code == 422
    another_owner = KEY | {"Authorization": "Bearer another-key"} | key
    assert (await deployment.post(another_owner)).json()["id"] != answers[0].json()["id"]


async def test_a_machine_that_dies_is_found_dead(deployment: Deployment) -> None:
    job = (await deployment.post()).json()["id"]
    deployment.calls.calls["fc-1"].cancel()
    now = (await deployment.client.get(f"/v1/jobs/{job}")).json()
    while now["status"] in ("queued", "running"):
        now = (await deployment.client.get(f"/v1/jobs/{job}")).json()
    assert now["error"]["next_step"] == "Send it again."
    listed = (await deployment.client.get("/v1/jobs")).json()["data"]
    assert [one["status"] for one in listed] == [now["status"]]


async def test_a_retry_goes_on_where_the_dead_machine_stopped() -> None:
    records = Records(MemoryTable(), MemoryTable())
    request = parse_request({"prompt": "a fox", "steps": 2, "num_images": 2})
    job, _ = await records.add(request, "", Terms())

    def die_after_an_image(event: Event) -> None:
        if isinstance(event, ImageReady) and event.index == 1:
            raise SystemError("the machine is gone")

    first = Methods(HeldBackend(die_after_an_image), "cygnet-tiny", Machine(1, 1))
    second = Methods(HeldBackend(), "cygnet-tiny", Machine(1, 1))
    for methods in (first, second):
        assert isinstance(methods._backend, HeldBackend)
        methods._backend.go.set()
    with pytest.raises(SystemError):
        await first.run_job(records, job, request.model_dump(mode="json"))
    await second.run_job(records, job, request.model_dump(mode="json"))

    calls = TaskCalls(lambda *_: asyncio.sleep(0))
    jobs = CallJobs("modal", calls, records, "cygnet-tiny", ApiOptions())
    events = [event async for event in jobs.events(job) if event]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert [event.data["index"] for event in events if event.type == "image"] == [0, 1]
    assert events[-1].type == "done"
    now = await jobs.job(job)
    assert (now.status, now.attempts, len(now.images)) == ("succeeded", 2, 2)


async def test_an_image_that_was_kept_and_not_told_is_told_by_the_retry() -> None:
    class Broken(MemoryTable):
        works = False

        async def put_new(self, key: str, row: Any) -> bool:
            if not self.works and "image" in [event["type"] for event in row]:
                raise SystemError("the machine is gone")
            return await super().put_new(key, row)

    table = Broken()
    records = Records(MemoryTable(), table)
    request = parse_request({"prompt": "a fox", "steps": 2, "num_images": 2})
    job, _ = await records.add(request, "", Terms())
    backend = HeldBackend()
    backend.go.set()
    machine = Methods(backend, "cygnet-tiny", Machine(1, 1))
    with pytest.raises(SystemError):
        await machine.run_job(records, job, request.model_dump(mode="json"))
    kept = (await records.job(job)).images
    assert [image.number for image in kept][:1] == [0]
    table.works = True
    await machine.run_job(records, job, request.model_dump(mode="json"))

    jobs = CallJobs("modal", TaskCalls.of(machine, records), records, "cygnet-tiny", ApiOptions())
    events = [event async for event in jobs.events(job) if event]
    assert [event.data["index"] for event in events if event.type == "image"] == [0, 1]
    assert events[-1].type == "done"
    assert (await records.job(job)).images[: len(kept)] == kept


async def test_two_machines_on_one_job_lose_none_of_each_others_events() -> None:
    records = Records(MemoryTable(), MemoryTable())
    request = parse_request({"prompt": "a fox", "steps": 3})
    job, _ = await records.add(request, "", Terms())
    backend = HeldBackend()
    backend.go.set()
    machines = [Methods(backend, "cygnet-tiny", Machine(1, 1)) for _ in range(2)]
    asked = request.model_dump(mode="json")
    await asyncio.gather(*(machine.run_job(records, job, asked) for machine in machines))
    calls = TaskCalls(lambda *_: asyncio.sleep(0))
    jobs = CallJobs("modal", calls, records, "cygnet-tiny", ApiOptions())
    kinds = [event.type async for event in jobs.events(job) if event]
    assert kinds.count("step") == 6
    assert (kinds.count("done"), kinds[-1]) == (1, "done")
    assert (await jobs.job(job)).status == "succeeded"


async def test_an_error_of_ours_ends_the_job_and_is_not_retried(deployment: Deployment) -> None:
    def no_memory(event: Event) -> None:
        if isinstance(event, ImageReady):
            raise OutOfMemory("Too large.", "Ask for less.")

    deployment.backend._before_event = no_memory
    deployment.backend.go.set()
    job = (await deployment.post()).json()["id"]
    _, kind, told = (await deployment.events(job))[-1]
    assert kind == "error" and told["code"] == "out_of_memory"
    assert (await deployment.client.get(f"/v1/jobs/{job}")).json()["status"] == "failed"


async def test_a_job_whose_server_died_before_its_call_is_given_up_after_a_while(
    deployment: Deployment, clock: Clock
) -> None:
    job, _ = await deployment.records.add(parse_request({"prompt": "a fox"}), "", Terms())
    jobs = CallJobs("modal", deployment.calls, deployment.records, "cygnet-tiny", ApiOptions())
    assert (await jobs.job(job)).status == "queued"
    clock.now += LOST
    assert (await jobs.job(job)).status == "failed"


async def test_jobs_are_listed_newest_first_page_by_page_and_by_owner(
    deployment: Deployment,
) -> None:
    deployment.backend.go.set()
    ids = [(await deployment.post(seed=seed)).json()["id"] for seed in range(5)]
    for job in ids:
        await deployment.events(job)
    stranger = {"Authorization": "Bearer another-key"}
    assert (await deployment.client.get("/v1/jobs", headers=stranger)).json()["data"] == []
    assert (await deployment.client.get(f"/v1/jobs/{ids[0]}", headers=stranger)).status_code == 404
    page = (await deployment.client.get("/v1/jobs?limit=2")).json()
    assert [job["id"] for job in page["data"]] == ids[:2:-1] and page["has_more"]
    rest = (await deployment.client.get(f"/v1/jobs?after={ids[3]}&status=succeeded")).json()
    assert [job["id"] for job in rest["data"]] == ids[2::-1] and not rest["has_more"]
    assert (await deployment.client.get("/v1/jobs?status=failed")).json()["data"] == []


@pytest.mark.parametrize("job", ["0" * 32, "x", "..", "0" * 32 + "-0"])
async def test_what_is_not_there_is_not_found(deployment: Deployment, job: str) -> None:
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", f"/v1/images/{job}"):
        assert (await deployment.client.get(path)).status_code == 404


async def test_a_full_queue_says_so_and_starts_nothing(deployment: Deployment) -> None:
    deployment.calls.waiting = 8
    answer = await deployment.post()
    assert answer.status_code == 429 and answer.json()["waiting"] == 8
    assert int(answer.headers["Retry-After"]) > 0
    assert not deployment.calls.calls


async def test_a_repeat_finds_its_job_where_the_queue_is_full(deployment: Deployment) -> None:
    key = {"Idempotency-Key": "k"}
    job = (await deployment.post(key)).json()["id"]
    deployment.calls.waiting = 8
    again = await deployment.post(key)
    assert (again.status_code, again.json()["id"]) == (202, job)
    assert (await deployment.post(key, seed=8)).status_code == 422


async def test_a_job_without_a_call_is_forgotten_and_its_key_with_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def fail(job: str, request: GenerationRequest) -> str:
        tried.append(job)
        raise BackendUnavailable("Modal does not answer.", "Try again in a moment.")

    key = {"Idempotency-Key": "k"}
    with monkeypatch.context() as silence:
        silence.setattr(deployment.calls, "spawn", fail)
        answer = await deployment.post(key)
    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    assert (await deployment.client.get("/v1/jobs")).json()["data"] == []
    assert await deployment.records.open(tried[0]) is None  # should the call be there after all
    again = await deployment.post(key)
    assert again.status_code == 202 and again.json()["id"] not in tried
    assert len(deployment.calls.calls) == 1


async def test_to_cancel_again_stops_a_call_that_could_not_be_reached(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(call: str) -> None:
        raise BackendUnavailable("Modal does not answer.", "Try again in a moment.")

    job = (await deployment.post()).json()["id"]
    with monkeypatch.context() as silence:
        silence.setattr(deployment.calls, "cancel", fail)
        assert (await deployment.client.delete(f"/v1/jobs/{job}")).status_code == 503
    again = await deployment.client.delete(f"/v1/jobs/{job}")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    assert deployment.calls.calls["fc-1"].cancelled()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"checkpoint": "wan2.1-14b"}, "Ask for checkpoint cygnet-tiny."),
        ({"steps": 500}, "steps=100"),
        ({"webhook": "https://swan.example"}, "events"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_a_machine_starts(
    deployment: Deployment, fields: dict[str, Any], named: str
) -> None:
    answer = await deployment.post(**fields)
    assert answer.status_code == 422
    assert named in answer.json()["next_step"]
    assert not deployment.calls.calls


async def test_a_command_without_a_checkpoint_draws_on_the_default_deployment(
    clock: Clock, folder: Path, deploy: Deploy
) -> None:
    async with deployed(deploy().CHECKPOINT, clock) as deployment:
        deployment.backend.go.set()
        command = ("generate", "a fox", "--backend", "modal", "--steps", "1", "--out", "fox.png")
        address = {
            "CYGNET_MODAL_URL": str(deployment.client.base_url),
            "CYGNET_MODAL_KEY": "one-key",
        }
        ran = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shared.cli", *command),
            env=os.environ | address | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(ran.communicate(), 60)
    assert ran.returncode == 0, said.decode()
    assert read_recipe(Path("fox.png")).fields["checkpoint"] == ON_A_GPU


async def test_nothing_starts_without_a_key(deployment: Deployment) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
        assert (await deployment.post(headers)).status_code == 401
    assert not deployment.calls.calls


async def test_to_ask_how_it_is_starts_no_machine(deployment: Deployment) -> None:
    assert (await deployment.client.get("/healthz")).status_code == 200
    ready = await deployment.client.get("/readyz")
    assert ready.status_code == 503 and "starts one" in ready.json()["detail"]
    deployment.calls.machines = 1
    assert (await deployment.client.get("/readyz")).status_code == 200
    models = (await deployment.client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["cygnet-tiny"]
    assert not deployment.calls.calls


async def test_openais_route_draws_too_and_hanging_up_cancels(deployment: Deployment) -> None:
    deployment.backend.go.set()
    body = {"prompt": "a fox", "steps": 2, "seed": 7}
    answer = await deployment.client.post("/v1/images/generations", json=body)
    assert answer.status_code == 200 and answer.json()["data"][0]["seed"] == 7

    deployment.backend.go.clear()
    waiting = asyncio.ensure_future(
        deployment.client.post("/v1/images/generations", json=body | {"prompt": "an owl"})
    )
    while "an owl" not in deployment.backend.started:
        await asyncio.sleep(0)
    waiting.cancel()
    while not deployment.backend.stopped:
        await asyncio.sleep(0.01)
    assert deployment.backend.stopped == ["an owl"]


async def test_a_deployment_without_a_key_refuses_everything_with_the_command_to_make_one() -> None:
    refusal = create_refusal("No key.", "modal secret create ...")
    transport = httpx.ASGITransport(refusal)
    async with httpx.AsyncClient(transport=transport, base_url="http://swan.example") as client:
        for path in ("/healthz", "/v1/jobs", "/"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert answer.json()["next_step"] == "modal secret create ..."
