"""`.local()` runs of the class and of the web door, with the embedded checkpoint and without Modal."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

from shared.api import logs
from shared.backends.local import LocalBackend
from shared.backends.modal import platform
from shared.backends.modal.records import Records
from shared.backends.modal.wire import as_event
from shared.backends.modal.worker import Worker
from shared.checkpoints import get_checkpoint
from shared.contract import Done, Step, collect, parse_request
from shared.engine import loading
from shared.errors import CheckpointMissing
from shared.prices import Machine
from tests.modal.conftest import Deploy, MemoryTable, TaskCalls

pytestmark = [
    pytest.mark.anyio,
    # True, and meant: the embedded checkpoint is not in the Volume.
    pytest.mark.filterwarnings("ignore:The .* function is executing locally:UserWarning"),
]

ASKED = {"prompt": "a red fox, 3d render", "checkpoint": "cygnet-tiny", "steps": 2, "seed": 7}


@pytest.fixture(autouse=True)
def the_logs_stay_pytests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "log_to_stderr", lambda: None)


@pytest.fixture
def tiny(deploy: Deploy) -> ModuleType:
    return deploy(CYGNET_CHECKPOINT="cygnet-tiny", CYGNET_API_KEY="one-key")


@pytest.fixture
async def generator(tiny: ModuleType) -> AsyncIterator[Any]:
    """The class as its container has it, when both hooks have run."""
    instance = tiny.generator()
    instance._enter()  # what .local() does by itself, but for async methods it leaves it out
    yield instance
    await instance.worker.aclose()


async def local_picture() -> bytes:
    backend = LocalBackend()
    try:
        return (await collect(backend.generate(parse_request(ASKED))))[1][0]
    finally:
        await backend.aclose()


async def test_the_class_draws_the_local_backends_picture(generator: Any) -> None:
    image, done = await generator.run.local(ASKED)
    assert base64.b64decode(image["image"]) == await local_picture()
    result = done["result"]
    assert (result["backend"], result["device"]) == ("modal", "cpu")
    assert result["timings"]["total"] > 0 and result["cost_usd"] > 0

    events = [as_event(told) async for told in generator.worker.stream(ASKED)]
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2]
    assert isinstance(events[-1], Done)

    [error] = await generator.run.local({"prompt": ""})
    assert (error["type"], error["code"]) == ("error", "invalid_request")
    [error] = await generator.run.local(ASKED | {"checkpoint": "wan2.1-1.3b"})
    assert error["next_step"] == "Ask for checkpoint cygnet-tiny."


async def test_the_web_door_draws_the_local_backends_picture(
    tiny: ModuleType, generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(MemoryTable(), MemoryTable())
    monkeypatch.setattr(tiny, "records", lambda: records)
    monkeypatch.setattr(
        platform, "MethodCalls", lambda _: TaskCalls(lambda *job: generator.run_job.local(*job))
    )
    app = tiny.web.local()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://swan.example",
            headers={"Authorization": "Bearer one-key"},
        ) as client,
    ):
        job = (await client.post("/v1/jobs", json=ASKED)).json()
        await client.get(job["events_url"])  # to its end
        images = (await client.get(f"/v1/jobs/{job['id']}")).json()["images"]
        picture = (await client.get(images[0]["url"])).content
    assert picture == await local_picture()


async def test_requests_of_one_container_share_batches(generator: Any) -> None:
    asked = [ASKED | {"seed": seed, "steps": 8} for seed in range(4)]
    streams = [generator.worker.stream(one) for one in asked]

    async def steps(stream: Any) -> list[Step]:
        events = [as_event(told) async for told in stream]
        return [event for event in events if isinstance(event, Step)]

    drawn = await asyncio.gather(*map(steps, streams))
    assert max(step.batch or 0 for steps in drawn for step in steps) > 1


async def test_two_machines_restored_from_one_memory_draw_different_seeds(generator: Any) -> None:
    unseeded = {name: value for name, value in ASKED.items() if name != "seed"}
    seeds = []
    for _ in range(2):
        random.seed(0)  # what a snapshot does to every generator in the process
        [_, done] = await generator.run.local(unseeded)
        seeds.append(done["result"]["request"]["seed"])
    assert seeds[0] != seeds[1]


def test_a_deployment_without_a_key_serves_nobody(deploy: Deploy) -> None:
    app = deploy(CYGNET_CHECKPOINT="cygnet-tiny")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app.web.local())
        async with httpx.AsyncClient(transport=transport, base_url="http://swan.example") as client:
            return await client.get("/v1/models")

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    assert answer.json()["next_step"] == app.MAKE_A_KEY
    assert app.MAKE_A_KEY in (app.__doc__ or "")


def test_weights_that_were_not_downloaded_are_an_error_with_the_command_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_there(*_: object, **__: object) -> None:
        raise FileNotFoundError("no such snapshot")

    monkeypatch.setattr(loading, "snapshot_download", not_there)
    worker = Worker("wan2.1-1.3b-fast", Machine(1, 1), has_gpu=True, snapshot="cpu")
    with pytest.raises(CheckpointMissing, match="download_weights"):
        worker.load()


def test_weights_are_downloaded_at_their_revision_and_nothing_beside_them(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched = []

    def fetch(repository: str, revision: str, allow_patterns: list[str]) -> str:
        fetched.append((repository, revision, allow_patterns))
        return str(tmp_path / revision)

    monkeypatch.setattr(loading, "snapshot_download", fetch)
    app = deploy()
    committed = []
    monkeypatch.setattr(app, "weights", SimpleNamespace(commit=lambda: committed.append(True)))
    app.download_weights.local()
    checkpoint = get_checkpoint(app.CHECKPOINT)
    assert fetched == [(checkpoint.repository, checkpoint.revision, loading.FILES)]
    assert committed
