"""Gradio's own API of the page, with Gradio's own client."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from shared.backends.fake import FakeBackend
from shared.contract import GenerationRequest, collect, parse_request
from space.page import files
from tests.space.conftest import HeldBackend, Serve, full

DOCS = (Path(__file__).parents[2] / "docs/page.md").read_text()

ASKED = {"prompt": "a fox", "steps": 3, "seed": 7, "num_images": 2}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def connect(url: str) -> Any:
    """Gradio's client; its types do not know that an event is a dictionary."""
    return Client(url, verbose=False)


@pytest.mark.anyio
async def test_it_streams_every_event_and_the_original_files(serve: Serve) -> None:
    _, images = await collect(FakeBackend().generate(parse_request(ASKED)))
    with serve(FakeBackend()) as url:
        job = connect(url).submit(**ASKED, api_name="/generate")
        job.result(timeout=60)
        events = job.outputs()
    kinds = [event["type"] for event in events]
    assert kinds == ["queued", *["step"] * 3, "image", *["step"] * 3, "image", "done"]
    assert [Path(event["image"]).read_bytes() for event in events if "image" in event] == images
    assert events[-1]["result"]["request"] == parse_request(ASKED).model_dump(mode="json")


@pytest.mark.anyio
async def test_predict_returns_the_original_files_of_all_pictures(serve: Serve) -> None:
    _, images = await collect(FakeBackend().generate(parse_request(ASKED)))
    with serve(FakeBackend()) as url:
        done = connect(url).predict(**ASKED, api_name="/generate")
    assert [Path(file).read_bytes() for file in done["images"]] == images
    assert (done["type"], done["result"]["seeds"]) == ("done", [7, 8])


def test_an_error_has_our_code_what_was_wrong_and_what_to_do(serve: Serve) -> None:
    with serve(FakeBackend()) as url, pytest.raises(AppError) as refused:
        connect(url).predict("a fox", steps=500, api_name="/generate")
    assert refused.value.title == "invalid_request"
    assert "steps=500" in refused.value.message and "Next: Use steps=100." in refused.value.message


def test_its_numbers_may_be_spelt_as_other_programs_do(serve: Serve) -> None:
    with serve(FakeBackend()) as url:
        for seed, steps in ((7.0, "4"), ("7", 4.0)):
            job = connect(url).submit("a fox", seed=seed, steps=steps, api_name="/generate")
            job.result(timeout=60)
            [done] = [event for event in job.outputs() if event.get("type") == "done"]
            request = done["result"]["request"]
            assert (request["seed"], request["steps"]) == (7, 4)
        with pytest.raises(AppError, match=r"seed=7\.5 is not a whole number"):
            connect(url).predict("a fox", seed=7.5, api_name="/generate")


def test_it_counts_against_the_limit_that_its_key_has_in_the_api(serve: Serve) -> None:
    with serve(FakeBackend(), keys=("mine", "theirs"), requests_per_minute=2) as url:
        mine, theirs = (
            Client(url, headers={"Authorization": f"Bearer {key}"}, verbose=False)
            for key in ("mine", "theirs")
        )
        mine.predict("a fox", api_name="/generate")
        asked: dict[str, Any] = {"json": {"prompt": "a fox"}, "headers": mine.headers}
        assert httpx.post(f"{url}/v1/jobs", **asked).status_code == 202
        assert httpx.post(f"{url}/v1/jobs", **asked).status_code == 429
        with pytest.raises(AppError) as refused:
            mine.predict("a fox", api_name="/generate")
        assert refused.value.title == "rate_limited"
        assert theirs.predict("a fox", api_name="/generate")["type"] == "done"


def test_a_full_disk_has_its_code(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write_atomically", full)
    with serve(FakeBackend()) as url, pytest.raises(AppError) as refused:
        connect(url).predict("a fox", api_name="/generate")
    assert refused.value.title == "disk_full"


def test_to_cancel_stops_the_work_before_its_next_step(serve: Serve) -> None:
    backend = HeldBackend()
    with serve(backend) as url:
        job = connect(url).submit("a fox", api_name="/generate")
        next(iter(job))
        job.cancel()
        assert backend.stopped.get(timeout=60) == "a fox"
    assert [event["type"] for event in job.outputs()] == ["queued"]


def test_its_parameters_are_the_fields_of_a_request_and_each_is_explained(serve: Serve) -> None:
    with serve(FakeBackend()) as url:
        shown = connect(url).view_api(return_format="dict", print_info=False)
    parameters = shown["named_endpoints"]["/generate"]["parameters"]
    names = [parameter["parameter_name"] for parameter in parameters]
    assert names == list(GenerationRequest.model_fields)
    assert all(parameter["python_type"]["description"] for parameter in parameters)
    required = [one["parameter_name"] for one in parameters if not one["parameter_has_default"]]
    assert required == ["prompt"]


def test_the_example_of_the_docs_follows_a_picture(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    _, example = re.findall(r"^```python\n(.*?)^```$", DOCS, flags=re.M | re.S)
    with serve(FakeBackend()) as url:
        program = example.replace("http://127.0.0.1:8000", url)
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    told = capfd.readouterr().out
    assert all(word in told for word in ("queued", "step 20", ".png", "done"))


def test_the_shorter_example_of_the_docs_has_the_picture(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    example, _ = re.findall(r"^```python\n(.*?)^```$", DOCS, flags=re.M | re.S)
    with serve(FakeBackend()) as url:
        program = example.replace("http://127.0.0.1:8000", url)
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert re.search(r"\['.*\.png'\] \[7\]", capfd.readouterr().out)


def test_the_loop_of_the_docs_raises_where_the_call_is_refused(serve: Serve) -> None:
    _, example = re.findall(r"^```python\n(.*?)^```$", DOCS, flags=re.M | re.S)
    with serve(FakeBackend()) as url:
        wrong = example.replace("http://127.0.0.1:8000", url).replace("seed=7", "steps=500")
        ran = subprocess.run([sys.executable, "-c", wrong], capture_output=True, timeout=120)
    assert ran.returncode == 1 and b"Use steps=100." in ran.stderr
