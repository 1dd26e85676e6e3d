"""`/v1/jobs`, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from shared.api import chores
from shared.backends.fake import FakeBackend
from shared.contract import Done, Event, ImageReady, Step, parse_request
from shared.errors import DiskFull, OutOfMemory
from shared.images import read_recipe
from tests.api.conftest import HeldBackend, Serve, Server

pytestmark = pytest.mark.anyio


class Message:
    """One server-sent event."""

    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.id = int(fields["id"]) if "id" in fields else None
        self.event = fields["event"]
        self.data: dict[str, Any] = json.loads(fields["data"])


async def messages(
    client: httpx.AsyncClient, job: str, after: int | None = None
) -> AsyncIterator[Message]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines: list[str] = []
        async for line in answer.aiter_lines():
            if line:
                lines.append(line)
            else:
                if lines != [": still here"]:
                    yield Message(lines)
                lines = []


async def read_all(client: httpx.AsyncClient, job: str, after: int | None = None) -> list[Message]:
    return [message async for message in messages(client, job, after)]


async def test_a_job_is_accepted_and_found_under_its_location(
    server: Server, backend: HeldBackend
) -> None:
    answer = await server.client.post("/v1/jobs", json={"prompt": "a fox", "seed": 7})
    assert answer.status_code == 202
    job = answer.json()
    assert job["status"] in ("queued", "running") and job["request"]["steps"] == 20
    assert answer.headers["location"] == f"{server.url}/v1/jobs/{job['id']}"

    backend.go.set()
    done = await server.ended(job["id"])
    assert (done["status"], done["error"], done["result"]["seeds"]) == ("succeeded", None, [7])
    [image] = done["images"]
    file = await server.client.get(image["url"])
    assert read_recipe(file.content).fields["seed"] == 7
    assert len(file.content) == image["bytes"]


async def test_the_events_of_a_job_are_those_of_its_backend(
    server: Server, backend: HeldBackend
) -> None:
    job = await server.post(num_images=2, seed=7)
    backend.go.set()
    sent = await read_all(server.client, job["id"])
    kinds = ["queued", "step", "step", "image", "step", "step", "image", "done"]
    assert [message.event for message in sent] == kinds
    assert [message.id for message in sent] == list(range(1, 9))
    steps = [Step.model_validate(one.data) for one in sent if one.event == "step"]
    assert [(step.index, step.step) for step in steps] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    image = ImageReady.model_validate(sent[-2].data)
    assert read_recipe(image.image).fields["seed"] == 8
    assert Done.model_validate(sent[-1].data).result.seeds == (7, 8)


async def test_a_stream_goes_on_after_the_last_event_that_came(
    server: Server, backend: HeldBackend
) -> None:
    job = await server.post()
    async with aclosing(messages(server.client, job["id"])) as stream:  # type: ignore[type-var]
        first = await anext(stream)
    backend.go.set()
    rest = await read_all(server.client, job["id"], first.id)
    assert [message.event for message in rest] == ["step", "step", "image", "done"]


async def test_an_ended_stream_has_nothing_left_to_send(
    server: Server, backend: HeldBackend
) -> None:
    backend.go.set()
    job = await server.post()
    last = (await read_all(server.client, job["id"]))[-1]
    headers = {"Last-Event-ID": str(last.id)}
    answer = await server.client.get(f"/v1/jobs/{job['id']}/events", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("last", ["-1", "x", "1.5", "9" * 40, "²"])
async def test_a_last_event_id_that_is_none_is_refused(server: Server, last: str) -> None:
    job = await server.post()
    headers = {b"Last-Event-ID": last.encode()}
    answer = await server.client.get(f"/v1/jobs/{job['id']}/events", headers=headers)
    assert answer.status_code == 400


async def test_a_silent_stream_says_that_it_is_there(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, heartbeat=0.01, grace=0) as server:
        job = await server.post()
        async with server.client.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
            async for line in answer.aiter_lines():
                if line == ": still here":
                    break
            else:
                pytest.fail("the stream ended")


async def test_to_cancel_a_running_job_stops_its_work(server: Server, backend: HeldBackend) -> None:
    job = await server.post(prompt="a fox")
    async with aclosing(messages(server.client, job["id"])) as stream:  # type: ignore[type-var]
        assert (await anext(stream)).event == "queued"
        answer = await server.client.delete(f"/v1/jobs/{job['id']}")
        last = await anext(stream)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert answer.json()["error"]["code"] == "cancelled"
    assert backend.stopped == ["a fox"]
    assert (last.event, last.data["code"]) == ("error", "cancelled")


async def test_a_cancelled_job_that_waited_never_starts(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, concurrency=1) as server:
        running = await server.post(prompt="first")
        waiting = await server.post(prompt="second")
        assert waiting["status"] == "queued"
        cancelled = (await server.client.delete(f"/v1/jobs/{waiting['id']}")).json()
        assert cancelled["status"] == "cancelled"
        backend.go.set()
        assert (await server.ended(running["id"]))["status"] == "succeeded"
    assert backend.started == ["first"]


async def test_a_job_that_is_cancelled_as_it_starts_ends_and_frees_its_place(
    serve: Serve, backend: HeldBackend
) -> None:
    async with serve(backend, concurrency=1) as server:
        job = await server.runner.submit(parse_request({"prompt": "a fox"}))
        assert (await server.runner.cancel(job.id)).status == "cancelled"
        backend.go.set()
        assert (await server.ended((await server.post())["id"]))["status"] == "succeeded"


async def test_to_cancel_what_has_ended_changes_nothing(
    server: Server, backend: HeldBackend
) -> None:
    backend.go.set()
    done = await server.ended((await server.post())["id"])
    assert (await server.client.delete(f"/v1/jobs/{done['id']}")).json() == done


async def test_who_waits_is_told_the_place_in_the_queue(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, concurrency=1, grace=0) as server:
        jobs = [await server.post() for _ in range(3)]
        async with aclosing(messages(server.client, jobs[2]["id"])) as stream:  # type: ignore[type-var]
            assert (await anext(stream)).data == {"type": "queued", "position": 1}


async def test_a_failure_is_told_in_the_stream_and_in_the_job(serve: Serve) -> None:
    def no_memory(event: Event) -> None:
        if isinstance(event, Step):
            raise OutOfMemory("Too large.", "Ask for less.")

    async with serve(FakeBackend(no_memory)) as server:
        job = await server.post()
        last = (await read_all(server.client, job["id"]))[-1]
        told = {"code": "out_of_memory", "message": "Too large.", "next_step": "Ask for less."}
        assert (last.event, last.data) == ("error", told)
        failed = (await server.client.get(f"/v1/jobs/{job['id']}")).json()
        assert (failed["status"], failed["error"]) == ("failed", told)


async def test_a_fault_of_the_backend_ends_its_job_alone_and_keeps_its_words(serve: Serve) -> None:
    def breaks(event: Event) -> None:
        if isinstance(event, Step) and event.steps == 3:
            raise RuntimeError("a secret")

    async with serve(FakeBackend(breaks)) as server:
        bad, good = await server.post(steps=3), await server.post(steps=2)
        failed = await server.ended(bad["id"])
        assert failed["error"]["code"] == "internal_error"
        assert "secret" not in json.dumps(failed)
        assert (await server.ended(good["id"]))["status"] == "succeeded"


async def test_a_repeat_with_the_same_idempotency_key_is_the_same_job(server: Server) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = [
        await server.client.post("/v1/jobs", json={"prompt": "a fox"}, headers=headers)
        for _ in range(2)
    ]
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    other = await server.client.post("/v1/jobs", json={"prompt": "a cat"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "invalid_call")
    bad = await server.client.post(
        "/v1/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": ""}
    )
    assert bad.status_code == 400


async def test_a_full_queue_says_how_long_it_is_and_when_to_come_back(
    serve: Serve, backend: HeldBackend
) -> None:
    async with serve(backend, concurrency=1, max_queued=2, grace=0) as server:
        for _ in range(3):
            await server.post()
        answer = await server.client.post("/v1/jobs", json={"prompt": "one more"})
        assert (answer.status_code, answer.json()["waiting"]) == (429, 2)
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["code"] == "queue_full"


async def test_jobs_are_listed_by_status_page_by_page(server: Server, backend: HeldBackend) -> None:
    jobs = [(await server.post())["id"] for _ in range(3)]
    page = (await server.client.get("/v1/jobs", params={"limit": 2})).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (jobs[:0:-1], True)
    params = {"limit": 2, "after": page["data"][-1]["id"]}
    page = (await server.client.get("/v1/jobs", params=params)).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (jobs[:1], False)
    await server.client.delete(f"/v1/jobs/{jobs[1]}")
    page = (await server.client.get("/v1/jobs", params={"status": "cancelled"})).json()
    assert [job["id"] for job in page["data"]] == [jobs[1]]
    for wrong in ({"limit": 0}, {"limit": "x"}, {"status": "lost"}):
        answer = await server.client.get("/v1/jobs", params=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_server_that_stops_lets_running_jobs_end(
    serve: Serve, backend: HeldBackend
) -> None:
    async with serve(backend, concurrency=1) as server:
        job, waiting = await server.post(), await server.post()
        reading = asyncio.create_task(read_all(server.client, job["id"]))
        stopping = asyncio.create_task(server.runner.stop())
        while not server.runner.stopping:
            await asyncio.sleep(0)
        refused = await server.client.post("/v1/jobs", json={"prompt": "late"})
        assert (refused.status_code, refused.json()["code"]) == (503, "backend_unavailable")
        backend.go.set()
        await stopping
        assert (await reading)[-1].event == "done"
        assert server.runner.store.job(job["id"]).status == "succeeded"
        assert server.runner.store.job(waiting["id"]).status == "queued"
    assert backend.closed


async def test_what_a_stopped_server_hands_back_the_next_one_runs_and_streams_on(
    serve: Serve, backend: HeldBackend
) -> None:
    async with serve(backend, grace=0) as server:
        job = await server.post()
        reading = asyncio.create_task(read_all(server.client, job["id"]))
        while not backend.started:
            await asyncio.sleep(0)
        await server.runner.stop()
        before = await reading
        assert [message.event for message in before] == ["queued"]
    async with serve(FakeBackend()) as server:
        after = await read_all(server.client, job["id"], before[-1].id)
        kinds = ["queued", "step", "step", "image", "done"]
        assert [message.event for message in after] == kinds
        done = await server.ended(job["id"])
        assert (done["status"], len(done["images"])) == ("succeeded", 1)


async def test_a_slow_reader_holds_nobody_back(server: Server, backend: HeldBackend) -> None:
    backend.go.set()
    job = await server.post(steps=100, num_images=8)
    async with server.client.stream("GET", f"/v1/jobs/{job['id']}/events"):  # never read
        assert (await server.ended(job["id"]))["status"] == "succeeded"


async def test_many_clients_that_come_and_go_lose_nothing_and_get_nothing_twice(
    serve: Serve,
) -> None:
    """64 at once; each may hang up and come back, cancel, or both, at moments drawn by lot."""

    async with serve(FakeBackend(), concurrency=4) as server:

        async def client(number: int) -> tuple[str, str]:
            dice = random.Random(number)
            job = (await server.post(seed=number, steps=1 + number % 9, num_images=2))["id"]
            seen: list[Message] = []
            while not seen or seen[-1].event not in ("done", "error"):
                limit = dice.choice((1, 3, 99))
                after = seen[-1].id if seen else None
                async with aclosing(messages(server.client, job, after)) as stream:  # type: ignore[type-var]
                    async for message in stream:
                        seen.append(message)
                        if (limit := limit - 1) == 0:
                            break
                if dice.random() < 0.2:
                    await server.client.delete(f"/v1/jobs/{job}")
            assert [message.id for message in seen] == list(range(1, len(seen) + 1))
            images = [message.data["index"] for message in seen if message.event == "image"]
            assert images == sorted(set(images))
            assert len(images) == 2 or seen[-1].event == "error"
            ends = [message for message in seen if message.event in ("done", "error")]
            assert ends == seen[-1:]
            return job, seen[-1].event

        ended = dict(await asyncio.gather(*(client(number) for number in range(64))))
        assert len(ended) == 64 and set(ended.values()) == {"done", "error"}
        for job, last in ended.items():
            status = server.runner.store.job(job).status
            assert status == ("succeeded" if last == "done" else "cancelled")
        assert await server.runner.load() == (0, 0)


async def test_many_callers_that_hang_up_leave_no_work_behind(serve: Serve) -> None:
    async with serve(FakeBackend(), concurrency=4) as server:

        async def caller(number: int) -> None:
            wanted = {"prompt": "a fox", "steps": 50, "seed": number, "stream": number % 2 == 0}
            calling = asyncio.create_task(server.client.post("/v1/images/generations", json=wanted))
            if number % 3:
                for _ in range(random.Random(number).randrange(200)):
                    await asyncio.sleep(0)
                calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert (await calling).status_code == 200

        await asyncio.gather(*(caller(number) for number in range(64)))
        jobs = server.runner.store.jobs("", limit=100)
        ended = [(await server.ended(job.id))["status"] for job in jobs]
        assert ended.count("succeeded") >= 22 and set(ended) <= {"succeeded", "cancelled"}
        assert await server.runner.load() == (0, 0)


async def test_on_a_full_disk_new_work_is_refused_and_what_runs_is_run_again(
    serve: Serve, backend: HeldBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("No room.", "Make some.")

    async with serve(backend) as server:
        job = await server.post()
        with monkeypatch.context() as disk:
            for method in ("add", "record", "fail"):
                disk.setattr(server.runner.store, method, full)
            backend.go.set()
            last = (await read_all(server.client, job["id"]))[-1]
            assert (last.event, last.data["code"], last.id) == ("error", "disk_full", None)
            with pytest.raises(DiskFull):
                await server.runner.ended(job["id"])
            refused = await server.client.post("/v1/jobs", json={"prompt": "a fox"})
            assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
            assert (await server.client.get("/healthz")).status_code == 200
    async with serve(FakeBackend()) as server:
        done = await server.ended(job["id"])
        assert (done["status"], len(done["images"])) == ("succeeded", 1)


async def test_what_a_full_disk_left_unsaid_is_recorded_when_there_is_room_again(
    serve: Serve, backend: HeldBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("No room.", "Make some.")

    monkeypatch.setattr(chores, "_PRUNE_SECONDS", 0)
    async with serve(backend) as server:
        job = await server.post()
        with monkeypatch.context() as disk:
            for method in ("record", "fail"):
                disk.setattr(server.runner.store, method, full)
            backend.go.set()
            with pytest.raises(DiskFull):
                await server.runner.ended(job["id"])
        while server.runner.store.job(job["id"]).status == "running":
            await asyncio.sleep(0)
        with pytest.raises(DiskFull):
            await server.runner.ended(job["id"])
        assert (await server.ended(job["id"]))["status"] == "failed"


async def test_a_disk_that_is_full_refuses_and_with_room_again_takes_and_has_lost_nothing(
    serve: Serve,
) -> None:
    async with serve(FakeBackend()) as server:
        kept = await server.ended((await server.post())["id"])
        with server.runner.store._db.reading() as db:  # SQLite's own limit stands for the disk
            [pages] = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages}")
        accepted: list[str] = []
        while (answer := await server.client.post("/v1/jobs", json={"prompt": "a"})).is_success:
            accepted.append(answer.json()["id"])
            await read_to_end(server, accepted[-1])
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        assert (await server.client.get(f"/v1/jobs/{kept['id']}")).json() == kept
        assert (await server.client.get(kept["images"][0]["url"])).status_code == 200
        with server.runner.store._db.reading() as db:
            db.execute("PRAGMA max_page_count = 1073741823")
        again = await server.ended((await server.post())["id"])
        assert again["status"] == "succeeded"
        for job in accepted:
            assert (await server.ended(job))["status"] in ("succeeded", "failed")


async def read_to_end(server: Server, job: str) -> None:
    async for _ in messages(server.client, job):
        pass
