"""`cygnet serve`, as a process of its own: started, stopped, killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared import cli, serving
from shared.api import ApiOptions
from shared.backends.api_client import ApiBackend
from shared.contract import Done, Event, ImageReady, parse_request
from shared.images import read_recipe
from shared.settings import settings

ROOT = Path(__file__).parents[1]

# Draws the first image of a request, and waits for ever before the second.
STUCK = """
import asyncio
import shared.backends
from shared.backends.fake import FakeBackend
from shared.contract import Step

class Stuck(FakeBackend):
    async def generate(self, request):
        async for event in super().generate(request):
            if isinstance(event, Step) and event.index == 1:
                await asyncio.Event().wait()
            yield event

shared.backends._OPENERS["fake"] = lambda *_: Stuck()
"""

DOCS = (ROOT / "docs/api.md").read_text()

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server over a fake backend, all of them with one data folder."""
    started: list[subprocess.Popen[str]] = []

    def run(
        prelude: str = "", options: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        program = f"{prelude}\nimport sys\nfrom shared.cli import main\nsys.exit(main())"
        command = [sys.executable, "-c", program, "serve", "--backend", "fake", "--port", "0"]
        command += options
        kept = {"PYTHONPATH": str(ROOT), "CYGNET_DATA_DIR": str(tmp_path / "data")}
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | kept | environment,
        )
        started.append(server)
        return server

    yield run
    for server in started:
        server.kill()
        server.communicate()


def client(server: subprocess.Popen[str], **options: Any) -> httpx.Client:
    """A client of the server, once it says where it is."""
    assert server.stdout
    url = server.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), server.communicate()
    return httpx.Client(base_url=url, timeout=60, **options)


def stop(server: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    """Its exit code, and what it logged."""
    server.send_signal(number)
    _, logged = server.communicate(timeout=60)
    return server.returncode, logged


def events(client: httpx.Client, job: str, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    headers = {"Last-Event-ID": str(after)}
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        number = 0
        for line in answer.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                yield number, json.loads(line[6:])


def test_after_a_kill_finished_images_are_whole_and_all_other_work_is_done(start: Start) -> None:
    killed = start(STUCK)
    with client(killed) as http:
        wanted = {"prompt": "a fox", "steps": 2, "num_images": 2, "seed": 7}
        more_than_run = ApiOptions().concurrency + 2
        jobs = [http.post("/v1/jobs", json=wanted).json()["id"] for _ in range(more_than_run)]
        number = next(n for n, event in events(http, jobs[0]) if event["type"] == "image")
        statuses = {http.get(f"/v1/jobs/{job}").json()["status"] for job in jobs}
        assert statuses == {"running", "queued"}
    killed.kill()
    killed.wait()

    server = start()
    with client(server) as http:
        resumed = [event for _, event in events(http, jobs[0], number)]
        images = [event["index"] for event in resumed if event["type"] == "image"]
        assert images == [1] and resumed[-1]["type"] == "done"
        for job in jobs:
            *_, (_, last) = events(http, job)
            done = http.get(f"/v1/jobs/{job}").json()
            assert (last["type"], done["status"]) == ("done", "succeeded")
            assert [image["index"] for image in done["images"]] == [0, 1]
            for image in done["images"]:
                found = http.get(image["url"]).content
                assert read_recipe(found).fields["seed"] == 7 + image["index"]
    assert stop(server)[0] == 0


def test_a_client_that_is_reading_when_the_server_is_killed_gets_every_event_once(
    start: Start,
) -> None:
    killed = start(STUCK)
    with client(killed) as http:
        port = str(http.base_url.port)
        url = f"http://127.0.0.1:{port}"

        async def read() -> list[Event]:
            backend = ApiBackend(url, wait=lambda attempt, asked: 0.2 * attempt)
            seen: list[Event] = []
            wanted = {"prompt": "a fox", "steps": 2, "num_images": 2, "seed": 7}
            async with aclosing(backend.generate(parse_request(wanted))) as events:
                async for event in events:
                    seen.append(event)
                    if isinstance(event, ImageReady) and event.index == 0:
                        await asyncio.to_thread(restart)
            await backend.aclose()
            return seen

        def restart() -> None:
            killed.kill()
            killed.wait()
            with client(start(options=("--port", port))):
                pass

        seen = asyncio.run(read())
    images = [event for event in seen if isinstance(event, ImageReady)]
    assert [read_recipe(image.image).fields["seed"] for image in images] == [7, 8]
    assert isinstance(seen[-1], Done)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_to_be_stopped_is_no_failure(start: Start, number: int) -> None:
    server = start()
    with client(server) as http:
        assert http.get("/readyz").json()["ready"]
    code, logged = stop(server, number)
    assert code == 0
    assert "Traceback" not in logged


def lines(logged: str) -> list[dict[str, Any]]:
    """The log's lines; each is JSON."""
    return [json.loads(line) for line in logged.splitlines() if line.startswith("{")]


def test_the_log_has_ids_and_no_prompts_and_no_keys(start: Start) -> None:
    server = start(CYGNET_API_KEY="very-secret")
    headers = {"Authorization": "Bearer very-secret", "X-Request-Id": "call-1"}
    with client(server, headers=headers) as http:
        job = http.post("/v1/jobs", json={"prompt": "a private wish"}).json()["id"]
        assert [event["type"] for _, event in events(http, job)][-1] == "done"
        http.get("/gradio_api/file=/tmp/a-private-wish-7.jpg")  # as the page names its files
    code, logged = stop(server)
    assert code == 0
    told = lines(logged)
    assert len(told) == len(logged.splitlines())
    [accepted] = [line for line in told if line["message"] == "job accepted"]
    assert (accepted["request_id"], accepted["job"]) == ("call-1", job)
    assert accepted["request"]["width"] == 256
    call = next(line for line in told if line["message"] == "call")
    assert (call["method"], call["path"], call["status"]) == ("POST", "/v1/jobs", 202)
    [ended] = [line for line in told if line["message"] == "job ended"]
    assert (ended["job"], ended["status"]) == (job, "succeeded")
    assert "private" not in logged and "very-secret" not in logged


def test_prompts_are_in_the_log_where_the_operator_wants_them(start: Start) -> None:
    server = start(options=("--log-prompts",))
    with client(server) as http:
        assert http.post("/v1/jobs", json={"prompt": "a public wish"}).status_code == 202
    [accepted] = [line for line in lines(stop(server)[1]) if line["message"] == "job accepted"]
    assert accepted["request"]["prompt"] == "a public wish"


def test_without_a_key_it_says_that_it_serves_this_machine_only(start: Start) -> None:
    server = start()
    with client(server) as http:
        assert http.get("/v1/models", headers={"Host": "evil.example"}).status_code == 421
        assert http.get("/v1/models").status_code == 200
    assert "this machine only" in stop(server)[1]


def refused(*argv: str, capsys: pytest.CaptureFixture[str]) -> str:
    settings.cache_clear()
    assert cli.main(["serve", *argv]) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    return printed.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_without_a_key_it_listens_on_this_machine_only(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused("--host", host, "--backend", "fake", capsys=capsys)
    assert "invalid_setting" in said and "CYGNET_API_KEY" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "70000"),
        ("--port", "http"),
        ("--max-queued", "-1"),
        ("--requests-per-minute", "1.5"),
        ("--keep-days", "x"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option in refused(f"{option}={value}", capsys=capsys)


@pytest.mark.parametrize(
    ("backend", "draws"), [("local", True), ("modal", False), ("api", False), ("auto", False)]
)
def test_only_the_engine_of_this_machine_draws_before_it_is_asked(
    backend: str, draws: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[serving.ServeOptions] = []
    monkeypatch.setattr(serving, "serve", read.append)
    assert cli.main(["serve", "--backend", backend]) == 0
    assert [options.api.warm_up for options in read] == [draws]


def test_a_port_that_is_taken_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CYGNET_DATA_DIR", str(folder))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("--port", port, "--backend", "fake", capsys=capsys)
    assert "address_unavailable" in said and port in said


def test_a_data_folder_in_use_is_named(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = start()
    with client(server):
        monkeypatch.setenv("CYGNET_DATA_DIR", str(tmp_path / "data"))
        assert "data_unusable" in refused("--port", "0", "--backend", "fake", capsys=capsys)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "shared.serving", raising=False)
    monkeypatch.delattr("shared.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("shared.api")]:
        monkeypatch.delitem(sys.modules, name)
    assert "'.[space]'" in refused(capsys=capsys)


def test_the_example_for_openais_client_draws_a_picture(start: Start, tmp_path: Path) -> None:
    server = start()
    with client(server) as http:
        example = re.findall(r"^```python\n(.*?)^```$", DOCS, flags=re.M | re.S)[0]
        environment = os.environ | {"CYGNET_API_URL": str(http.base_url).rstrip("/")}
        environment.pop("CYGNET_API_KEY", None)
        command = [sys.executable, "-c", example]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    recipe = read_recipe(tmp_path / "fox.png").fields
    assert (recipe["seed"], recipe["checkpoint"]) == (7, "cygnet-tiny-fast")
