"""OpenAI's clients show our sentence, whatever is called and whatever goes wrong."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from shared.api import ApiOptions
from shared.api.app import create_app
from shared.api.job_service import JobService
from shared.api.problems import status_of
from shared.api.unknown_calls import OPENAI_ROUTE
from shared.errors import CygnetError, NotFound, error_types

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PROMPT = {"prompt": "a fox"}


class Faulty:
    """A `JobService` whose every method raises `fault`."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    async def refuse(self, *_: object, **__: object) -> None:
        raise self.fault

    async def events(self, *_: object) -> Any:
        raise self.fault
        yield


for name, _ in inspect.getmembers(JobService, inspect.isfunction):
    if not name.startswith("_") and name not in ("events", "start", "stop", "aclose"):
        setattr(Faulty, name, Faulty.refuse)


def faulty(fault: Exception, **options: Any) -> FastAPI:
    jobs: Any = Faulty(fault)
    settings: dict[str, Any] = {"hosts": ("127.0.0.1",)} | options
    return create_app(jobs, ApiOptions(**settings))


APP = faulty(KeyError())


OPERATIONS = [
    (method.upper(), path.replace("{job}", "1").replace("{image}", "1").replace("{model}", "m"))
    for path, operations in APP.openapi()["paths"].items()
    for method in operations
    if path.startswith("/v1/")
]
PATHS = sorted({path for _, path in OPERATIONS})
ALLOWED = {path: [method for method, own in OPERATIONS if own == path] for path in PATHS}

ELSEWHERE = [
    "/images/edits",
    "/images/variations",
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/audio/speech",
    "/audio/transcriptions",
    "/videos",
    "/moderations",
    "/files",
    "/batches",
    "/fine_tuning/jobs",
    "/assistants",
    "/vector_stores",
]
"""Of OpenAI's API, below its base address."""


def refusal(
    app: FastAPI, method: str, path: str, body: object = PROMPT, media_type: str = ""
) -> openai.APIStatusError:
    """What the synchronous client raises for a call of any path."""
    http = TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False)
    with openai.OpenAI(
        base_url="http://127.0.0.1:8000", api_key="none", max_retries=0, http_client=http
    ) as client:
        call = getattr(client, method.lower())
        sent: dict[str, Any] = {} if method == "GET" else {"body": body}
        if media_type:
            sent["options"] = {"headers": {"Content-Type": media_type}}
        with pytest.raises(openai.APIStatusError) as refused:
            call(path, cast_to=object, **sent)
    check(refused.value)
    return refused.value


def check(error: openai.APIStatusError) -> None:
    """It shows our sentence and what to do, and the problem is whole beside it."""
    problem = error.response.json()
    assert problem["error"].keys() == {"message", "type", "param", "code"}
    assert problem["status"] == error.status_code
    assert problem["detail"] and problem["next_step"]
    told = f"{problem['detail']} {problem['next_step']}"
    assert told in str(error) and told == problem["error"]["message"]
    assert (error.code, error.type) == (problem["code"], problem["error"]["type"])
    assert error.param == (problem["fields"] or [None])[0]
    assert error.response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", list(error_types()), ids=lambda kind: kind.code)
def test_every_error_of_ours_is_shown_on_every_route(kind: type[CygnetError]) -> None:
    fault = kind("The lake is frozen.", "Wait for spring.")
    app = faulty(fault)
    for method, path in OPERATIONS:
        error = refusal(app, method, path)
        assert "The lake is frozen. Wait for spring." in str(error)
        status = status_of(fault)
        assert error.status_code == (400 if (path, status) == (OPENAI_ROUTE, 422) else status)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_fault_of_ours_is_shown_on_every_route(method: str, path: str) -> None:
    error = refusal(faulty(ZeroDivisionError("a secret")), method, path)
    assert error.status_code == 500
    assert "Something in the server failed" in str(error)
    assert "a secret" not in str(error)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_wrong_key_and_a_wrong_host_are_shown_on_every_route(method: str, path: str) -> None:
    keyed = refusal(faulty(KeyError(), keys=("a-key",)), method, path)
    assert keyed.status_code == 401 and "Authorization: Bearer KEY" in str(keyed)
    named = refusal(faulty(KeyError(), hosts=("swan.example",)), method, path)
    assert named.status_code == 421 and "swan.example" in str(named)


@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "POST"])
def test_a_body_that_cannot_be_read_is_shown_on_every_route(path: str) -> None:
    app = faulty(KeyError(), max_body=100)
    assert refusal(app, "POST", path, {"prompt": "a" * 200}).status_code == 413
    assert refusal(app, "POST", path, media_type="text/plain").status_code == 415
    assert refusal(app, "POST", path, ["a fox"]).status_code == 400


def test_too_many_calls_are_shown() -> None:
    app = faulty(NotFound("There is none.", "Make one."), requests_per_minute=1)
    refusal(app, "POST", OPENAI_ROUTE)
    assert refusal(app, "POST", OPENAI_ROUTE).status_code == 429


def other_methods() -> Iterator[tuple[str, str]]:
    for path, method in itertools.product(PATHS, METHODS):
        if method not in ALLOWED[path]:
            yield method, path


@pytest.mark.parametrize(("method", "path"), list(other_methods()))
def test_a_method_that_a_path_does_not_take_is_answered_with_those_it_does(
    method: str, path: str
) -> None:
    error = refusal(APP, method, path)
    assert error.status_code == 405
    assert "this server draws pictures" in str(error)
    assert f"{path} takes {' and '.join(sorted(ALLOWED[path]))}." in str(error)
    assert f"POST {OPENAI_ROUTE}" in str(error)
    assert error.response.headers["allow"] == ", ".join(sorted(ALLOWED[path]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ELSEWHERE)
def test_what_openai_does_beside_drawing_is_answered_with_what_is_done_here(
    method: str, path: str
) -> None:
    error = refusal(APP, method, f"/v1{path}")
    assert error.status_code == 404
    assert f"There is no {method} /v1{path}: this server draws pictures, and does not " in str(
        error
    )
    assert f"POST {OPENAI_ROUTE}" in str(error)


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/jobs/1/2/3", "/v1/models/a/b"])
@pytest.mark.parametrize("method", METHODS)
def test_a_path_that_is_not_there_is_answered_with_what_is(method: str, path: str) -> None:
    error = refusal(APP, method, path)
    assert error.status_code == 404
    assert f"POST {OPENAI_ROUTE}" in str(error)


WRONG_BASES = ["", "/v1/v1", "/api", "/api/v1", "/openai", "/openai/v1", "/v2", "/v1beta"]
WRONG = [
    base + path
    for base in WRONG_BASES
    for path in ("/images/generations", "/models", "/models/dall-e-3", *ELSEWHERE)
] + [
    "/openai/deployments/dall-e-3/images/generations",
    "/V1/images/generations",
    "/cygnet/images/generations",
    "/gradio_api/v1/chat/completions",
]


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_base_address_is_answered_with_the_right_one(path: str) -> None:
    for method in ("GET", "POST"):
        error = refusal(APP, method, path)
        assert error.status_code == 404
        assert "add that to the base address, as http://127.0.0.1:8000/v1." in str(error)


async def clients_calls(client: openai.AsyncOpenAI) -> list[openai.APIStatusError]:
    calls: list[Any] = [
        client.models.retrieve("dall-e-3"),
        client.models.delete("dall-e-3"),
        client.images.generate(prompt="a fox"),
        client.images.edit(image=b"x", prompt="a fox"),
        client.chat.completions.create(model="m", messages=[]),
        client.completions.create(model="m", prompt="a fox"),
        client.responses.create(model="m", input="a fox"),
        client.embeddings.create(model="m", input="a fox"),
        client.moderations.create(input="a fox"),
        client.audio.speech.create(model="m", voice="alloy", input="a fox"),
        client.audio.transcriptions.create(model="m", file=b"x"),
        client.files.create(file=b"x", purpose="batch"),
    ]
    told = []
    for call in calls:
        with pytest.raises(openai.APIStatusError) as refused:
            await call
        told.append(refused.value)
    return told


@pytest.mark.anyio
@pytest.mark.parametrize("base", ["/v1", ""])
async def test_the_clients_own_methods_show_it_too(base: str) -> None:
    app = faulty(CygnetError("The lake is frozen.", "Wait for spring."))
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app))
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1{base}", api_key="none", max_retries=0, http_client=http
    ) as client:
        for error in await clients_calls(client):
            check(error)
            assert "Error code: " in str(error) and "None" not in str(error)
