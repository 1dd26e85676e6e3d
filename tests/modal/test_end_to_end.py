"""The whole road on the offline stand-in: deployed, snapshotted, restored, called, killed, run.

The containers are processes of an interpreter in which the project is not installed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from shared.backends import find_backend
from shared.backends.local import LocalBackend
from shared.contract import collect, parse_request
from shared.images import read_recipe
from shared.settings import settings
from tests.modal.stand_in import LOCAL_MODAL, ROOT, container_python, environment

pytestmark = pytest.mark.slow

ASKED = {"prompt": "a red fox, 3d render", "checkpoint": "cygnet-tiny", "steps": 3, "seed": 7}
LONG = ASKED | {"steps": 100, "num_images": 16}


@dataclass
class Stand:
    """The stand-in with the app deployed on it."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    """What a program needs to find it."""
    client: httpx.Client
    timeline: Path

    def post(self, **fields: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/jobs", json=ASKED | fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def events(self, job: str, after: int = 0) -> Iterator[tuple[int, str, Any]]:
        headers = {"Last-Event-ID": str(after)}
        with self.client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
            fields: dict[str, str] = {}
            for line in stream.iter_lines():
                if not line and "data" in fields:
                    yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                    fields = {}
                elif ": " in line:
                    name, value = line.split(": ", 1)
                    fields[name] = value

    def generators(self) -> list[psutil.Process]:
        """The processes of the containers that draw, which are the snapshotted ones."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if child.environ().get("LOCAL_MODAL_PHASE") == "snapshot":
                    found.append(child)
            except psutil.Error:  # it has gone meanwhile
                continue
        return found

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "modal", "run", *command],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    tiny = environment(CYGNET_CHECKPOINT="cygnet-tiny")
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"  # sums round alike there and here
    options = {
        "--secret": "cygnet:CYGNET_API_KEY=one-key",
        "--container-python": container_python(folder / "python"),
        "--env": threads,
        "--idle": 60,
        "--json": folder / "timeline.json",
    }
    words = [str(word) for option in options.items() for word in option]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*LOCAL_MODAL, "up", ROOT / "modal_app.py", *words],
            env=tiny,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout
        exported = {}
        for line in process.stdout:
            name, _, value = line.removeprefix("export ").strip().partition("=")
            exported[name] = value.strip("'")
            if name == "LOCAL_MODAL_URL_WEB":
                break
        assert "LOCAL_MODAL_URL_WEB" in exported, (folder / "log").read_text()
        key = {"Authorization": "Bearer one-key"}
        with httpx.Client(
            base_url=exported["LOCAL_MODAL_URL_WEB"], headers=key, timeout=120
        ) as client:
            yield Stand(process, tiny | exported, client, folder / "timeline.json")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def first(stand: Stand) -> dict[str, Any]:
    """The first job of a deployment that nobody has called: what was seen before it, and of it."""
    seen = {
        "health": stand.client.get("/healthz").status_code,
        "ready": stand.client.get("/readyz").status_code,
        "stranger": stand.client.post("/v1/jobs", json=ASKED, headers={"Authorization": ""}),
        "wrong": stand.client.post("/v1/jobs", json=ASKED | {"steps": 500}),
    }
    seen["woken"] = stand.generators()
    seen["job"] = stand.post()["id"]
    seen["events"] = list(stand.events(seen["job"]))
    return seen


def test_a_machine_starts_for_a_job_and_for_nothing_less(first: dict[str, Any]) -> None:
    assert (first["health"], first["ready"]) == (200, 503)
    assert first["stranger"].status_code == 401
    assert first["wrong"].status_code == 422
    assert first["woken"] == []


def test_the_stream_of_a_cold_start_says_queued_starting_and_each_step(
    first: dict[str, Any], stand: Stand
) -> None:
    kinds = [kind for _, kind, _ in first["events"]]
    assert kinds == ["queued", "starting", "step", "step", "step", "image", "done"]
    seen = first["events"][3][0]
    assert list(stand.events(first["job"], seen)) == first["events"][4:]
    assert stand.client.get("/readyz").json()["ready"]


def test_the_picture_is_the_local_backends(first: dict[str, Any], stand: Stand) -> None:
    async def draw() -> bytes:
        backend = LocalBackend()
        try:
            return (await collect(backend.generate(parse_request(ASKED))))[1][0]
        finally:
            await backend.aclose()

    job = stand.client.get(f"/v1/jobs/{first['job']}").json()
    assert job["status"] == "succeeded"
    assert (job["result"]["backend"], job["result"]["cost_usd"] > 0) == ("modal", True)
    picture = stand.client.get(job["images"][0]["url"]).content
    assert read_recipe(picture).fields["seed"] == 7
    assert picture == asyncio.run(draw())


def test_a_cancelled_job_stops_and_the_machine_serves_the_next(
    first: dict[str, Any], stand: Stand
) -> None:
    job = stand.post(**LONG)["id"]
    for _, kind, _ in stand.events(job):
        if kind == "step":
            break
    assert stand.client.get(f"/v1/jobs/{job}").json()["status"] == "running"
    assert stand.client.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"
    *_, (_, kind, told) = stand.events(job)
    assert (kind, told["code"]) == ("error", "cancelled")
    *_, (_, kind, _) = stand.events(stand.post()["id"])
    assert kind == "done"
    [newest, cancelled, *_] = stand.client.get("/v1/jobs").json()["data"]
    assert (newest["status"], cancelled["status"]) == ("succeeded", "cancelled")


def test_a_container_that_dies_in_the_middle_costs_time_and_nothing_else(
    first: dict[str, Any], stand: Stand
) -> None:
    job = stand.post(steps=60, num_images=2)["id"]
    events = stand.events(job)
    got = []
    for event in events:
        got.append(event)
        if event[1] == "step":
            break
    for process in stand.generators():
        process.kill()
    got += events
    assert [number for number, _, _ in got] == list(range(1, len(got) + 1))
    assert sorted(told["index"] for _, kind, told in got if kind == "image") == [0, 1]
    assert got[-1][1] == "done"


def test_the_backend_modal_draws_on_the_deployment(
    first: dict[str, Any], stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_MODAL_URL", str(stand.client.base_url))
    monkeypatch.setenv("CYGNET_MODAL_KEY", "one-key")
    settings.cache_clear()

    async def draw() -> tuple[Any, Any]:
        backend = find_backend("modal")()
        try:
            status = await backend.status()
            return status, await collect(backend.generate(parse_request(ASKED)))
        finally:
            await backend.aclose()

    status, (result, images) = asyncio.run(draw())
    assert status.healthy and status.checkpoints == ("cygnet-tiny",)
    assert (result.backend, result.seeds, len(images)) == ("modal", (7,), 1)


def test_modal_run_writes_one_picture(stand: Stand, tmp_path: Path) -> None:
    app = str(ROOT / "modal_app.py")
    wanted = ("--prompt", "a tulip", "--seed", "7", "--steps", "2", "--out", "tulip.webp")
    ran = stand.run(app, *wanted, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert read_recipe(tmp_path / "tulip.webp").fields["prompt"] == "a tulip"
    assert "1 picture in" in ran.stderr and "about $" in ran.stderr
    refused = stand.run(app, *wanted[:-1], "tulip.tiff", cwd=tmp_path)
    assert refused.returncode == 2
    assert "error[invalid_request]" in refused.stderr and "Traceback" not in refused.stderr


def test_modal_run_draws_a_file_of_prompts_and_goes_on_where_it_stopped(
    stand: Stand, tmp_path: Path
) -> None:
    (tmp_path / "prompts.csv").write_text('prompt,steps\n"a {fox|owl|bee}",2\na tulip,1\n')
    command = (
        f"{ROOT / 'modal_app.py'}::batch", "--prompts-file", "prompts.csv", "--out", "out"
    )  # fmt: skip
    ran = stand.run(*command, "--limit", "3", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "3 of 3" in ran.stderr
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert len(before) == 3

    ran = stand.run(*command, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert len(after) == 4 and before.items() <= after.items()
    lines = (tmp_path / "out/manifest.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["status"] for entry in entries] == ["done"] * 4
    assert all(entry["backend"] == "modal" and entry["cost_usd"] > 0 for entry in entries)


def test_each_machine_was_snapshotted_restored_and_closed_cleanly(
    first: dict[str, Any], stand: Stand
) -> None:
    stand.process.send_signal(signal.SIGINT)  # the last test: the timeline is written at the end
    stand.process.wait(60)
    machines: dict[str, dict[str, str]] = {}
    for entry in json.loads(stand.timeline.read_text()):
        if entry["function"] == "Generator.*" and entry["task"]:
            machines.setdefault(entry["task"], {}).setdefault(entry["event"], entry["detail"])
    assert machines
    for events in machines.values():
        assert list(events)[:5] == [
            "container.start", "container.snapshot", "container.restore",
            "container.ready", "input.start",
        ]  # fmt: skip
        # `modal run` gives its containers a few seconds, which a busy machine may not have.
        if events.get("container.stop") in ("shutdown", "idle"):
            assert events["container.exit"].startswith("code=0")
