"""What a result remarks is said at every door that shows a result, and in no log."""

from __future__ import annotations

import asyncio
import csv
import json
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from gradio_client import Client

from shared import cli
from shared.api.deliverer import message
from shared.backends.api_client import ApiBackend
from shared.backends.fake import FakeBackend
from shared.backends.modal.wire import as_event
from shared.cli import batch, generate
from shared.contract import Done, Event, GenerationRequest, collect, parse_request
from shared.gallery import Gallery
from shared.mcp.jobs import Jobs
from shared.mcp.replies import PARTLY, job_answer
from shared.store import Store
from space.page import grid
from space.page.files import Limits, PageFiles
from space.page.markup import notice
from space.page.stage import Stage
from space.page.workshop import Workshop
from tests.mcp.conftest import data, routed, words
from tests.space.conftest import Serve

SAID = "2 of 5 tokens of the prompt are unknown to this checkpoint: \U0001f98a, \u732b."
ASKED = {"prompt": "a fox", "steps": 1, "seed": 7}
REQUEST = parse_request(ASKED)

Capture = pytest.CaptureFixture[str]
Draw = Callable[..., int]


class RemarkingBackend(FakeBackend):
    """Has something to say of every prompt."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        async for event in super().generate(request):
            if isinstance(event, Done):
                event = Done(result=event.result.model_copy(update={"remarks": (SAID,)}))
            yield event


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Runs `cygnet` in an empty folder, over that backend."""
    for door in (generate, batch):
        monkeypatch.setattr(door, "find_backend", lambda *_, **__: RemarkingBackend)

    def run(*argv: str) -> int:
        return cli.main([*argv])

    return run


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--json",)], ids=str)
def test_the_command_line_says_it_beside_what_it_prints(
    command: Draw, capsys: Capture, options: tuple[str, ...]
) -> None:
    assert command("generate", "a fox", "--steps", "1", *options) == 0
    printed = capsys.readouterr()
    assert SAID in printed.err.splitlines()
    if options == ("--json",):
        assert json.loads(printed.out)["result"]["remarks"] == [SAID]
    else:
        assert SAID not in printed.out


@pytest.mark.parametrize("options", [(), ("--quiet",)], ids=str)
def test_a_batch_says_it_of_the_row_and_in_the_manifest(
    folder: Path, command: Draw, capsys: Capture, options: tuple[str, ...]
) -> None:
    (folder / "p.txt").write_text("\n".join(f"fox {number}" for number in range(30)))
    assert command("batch", "p.txt", "--out", "out", "--steps", "1", *options) == 0
    lines = capsys.readouterr().err.splitlines()
    assert f"picture 1, line 1: {SAID}" in lines
    assert sum(SAID in line for line in lines) == 20, "a long batch does not scroll away"
    assert any("more pictures" in line for line in lines)
    told = (folder / "out/manifest.jsonl").read_text().splitlines()
    assert all(json.loads(line)["remarks"] == [SAID] for line in told)
    with (folder / "out/manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {row["remarks"] for row in csv.DictReader(file)} == {SAID}


def test_a_manifest_from_before_there_were_remarks_goes_on(folder: Path, command: Draw) -> None:
    (folder / "p.txt").write_text("a fox")
    assert command("batch", "p.txt", "--out", "out", "--steps", "1") == 0
    manifest = folder / "out/manifest.jsonl"
    old = {
        key: value for key, value in json.loads(manifest.read_text()).items() if key != "remarks"
    }
    manifest.write_text(json.dumps(old) + "\n")
    assert command("batch", "p.txt", "--out", "out", "--steps", "1") == 0
    assert len(manifest.read_text().splitlines()) == 1


def test_jobs_events_openai_and_gradio_answer_with_it_and_no_log_has_it(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "shared")
    with serve(RemarkingBackend()) as url:
        body = ASKED | {"model": "cygnet-tiny"}
        answer = httpx.post(f"{url}/v1/images/generations", json=body, timeout=60).json()
        assert answer["cygnet"]["result"]["remarks"] == [SAID]
        streamed = httpx.post(
            f"{url}/v1/images/generations", json=body | {"stream": True}, timeout=60
        )
        last = json.loads(streamed.text.strip().splitlines()[-1].removeprefix("data: "))
        assert last["cygnet"]["result"]["remarks"] == [SAID]

        job = httpx.post(f"{url}/v1/jobs", json=ASKED).json()["id"]
        events = httpx.get(f"{url}/v1/jobs/{job}/events", timeout=60).text
        done = json.loads(events.strip().splitlines()[-1].removeprefix("data: "))
        assert done["result"]["remarks"] == [SAID]
        stored = httpx.get(f"{url}/v1/jobs/{job}").json()
        assert stored["result"]["remarks"] == [SAID]

        async def follow() -> Any:
            backend = ApiBackend(url)
            try:
                return await collect(backend.generate(REQUEST))
            finally:
                await backend.aclose()

        assert asyncio.run(follow())[0].remarks == (SAID,)

        called: Any = Client(url, verbose=False).submit(**ASKED, api_name="/generate")
        called.result(timeout=60)
        [done] = [event for event in called.outputs() if event["type"] == "done"]
        assert done["result"]["remarks"] == [SAID]
    logged = " ".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "unknown to this checkpoint" not in logged


def test_a_webhook_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for backend, said in ((RemarkingBackend(), [SAID]), (FakeBackend(), None)):
        store.add(REQUEST)
        job = store.take()
        assert job
        result, _ = asyncio.run(collect(backend.generate(REQUEST)))
        store.record(job.id, Done(result=result))
        assert json.loads(message(store.job(job.id)))["data"].get("remarks") == said
    store.close()


def test_an_agent_is_told_in_words_and_in_data(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path)

    async def ask() -> Any:
        jobs = Jobs(routed(RemarkingBackend()), gallery)
        job = jobs.start(REQUEST, "fake", "")
        while not job.ended:
            await job.change(1)
        return await job_answer(job, gallery, lambda picture: picture.id, 1_000_000)

    answer = asyncio.run(ask())
    gallery.close()
    assert data(answer)["remarks"] == [SAID]
    assert PARTLY in words(answer)
    assert SAID in json.loads(answer.content[1].text)["remarks"]
    assert SAID not in words(answer), "what quotes a prompt is no sentence of ours to an agent"


def test_the_page_shows_it_under_the_picture(tmp_path: Path) -> None:
    stage = Stage(REQUEST)
    for remarks in ((), (SAID, "<b>More.</b>")):
        result, _ = asyncio.run(collect(FakeBackend().generate(REQUEST)))
        stage.follow(Done(result=result.model_copy(update={"remarks": remarks})))
        assert ('class="notice' in stage.html()) == bool(remarks)
    assert f"{SAID} &lt;b&gt;More.&lt;/b&gt;" in stage.html()


def test_modal_and_the_page_of_another_machine_pass_it_on() -> None:
    result, _ = asyncio.run(collect(RemarkingBackend().generate(REQUEST)))
    event = as_event(Done(result=result).model_dump(mode="json"))
    assert isinstance(event, Done) and event.result.remarks == (SAID,)


def test_a_grid_says_once_what_is_true_of_all_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    planned = grid.plan(dict(ASKED), ("Seed", "1, 2, 3"))
    monkeypatch.setattr(grid, "_read", lambda values: planned)
    gallery = Gallery(tmp_path)
    sheet: Any = grid.Grid.__new__(grid.Grid)  # without the parts of a page around it
    files = PageFiles(tmp_path / "page", Limits(keep_bytes=2**26))
    sheet._workshop = Workshop(RemarkingBackend(), gallery, files, lambda key: None)
    browser: Any = SimpleNamespace(state=SimpleNamespace(owner="me"))

    async def draw() -> list[Any]:
        return [shown async for shown in sheet.draw(browser, "")]

    shown = asyncio.run(draw())
    gallery.close()
    assert shown[-1][1] == notice(SAID)
