"""The OpenAPI document held against the server, by calls made from it: those it allows, and others."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from shared.api import ApiOptions, create_api
from shared.api.server import Server, listen
from shared.backends.fake import FakeBackend
from shared.store import Store

# To find text that breaks a schema, schemathesis draws much that does not.
HARMLESS = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]

KEY = "a-key-of-the-tests"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(
    scope="module", params=[{"keys": (KEY,)}, {"hosts": ("127.0.0.1",)}], ids=["a key", "hosts"]
)
def url(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server in a thread of its own: schemathesis calls are not asynchronous."""
    store = Store(tmp_path_factory.mktemp("data"))
    options = ApiOptions(**request.param, max_queued=10_000)
    server = Server(create_api(FakeBackend(), store, options))
    with listen("127.0.0.1", 0) as listener:
        serving = server._serve([listener])  # `serve` takes signals, which a thread gets none of
        thread = threading.Thread(target=asyncio.run, args=[serving])
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=60)


@pytest.fixture(scope="module", params=["ids of nothing", "ids of a job and its image"])
def operations(url: str, request: pytest.FixtureRequest) -> list[schemathesis.APIOperation]:
    """What the document describes, and perhaps ids that exist."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    schema.config.generation.allow_extra_parameters = False  # they are ignored, as HTTP has it
    schema.config.generation.with_security_parameters = False  # every call here has the key
    if request.param == "ids of a job and its image":
        with httpx.Client(base_url=url, headers=AUTHORIZATION, timeout=60) as client:
            job = client.post("/v1/jobs", json={"prompt": "a fox", "steps": 1}).json()["id"]
            client.get(f"/v1/jobs/{job}/events")  # to its end
            image = client.get(f"/v1/jobs/{job}").json()["images"][0]["id"]
        schema.config.parameters = {"job": job, "image": image, "model": "cygnet-tiny"}
    results = list(schema.get_all_operations())
    operations = [result.ok() for result in results if isinstance(result, Ok)]
    assert 0 < len(operations) == len(results)
    return operations


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_one_that_is_described(
    operations: list[schemathesis.APIOperation], mode: GenerationMode
) -> None:
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.body):
            continue  # any text is a path or a header

        hypothesis.given(operation.as_strategy(mode))(check)()


@hypothesis.settings(max_examples=20, suppress_health_check=HARMLESS)
def check(case: schemathesis.Case) -> None:
    # What a checkpoint allows is more than a schema can say of a request.
    excluded = [positive_data_acceptance] if case.operation.body else []
    case.call_and_validate(headers=AUTHORIZATION, excluded_checks=excluded)


def test_every_operation_says_what_type_it_answers_with(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            good = {code: told for code, told in operation["responses"].items() if code[0] == "2"}
            assert good, f"{method} {path}"
            told = [
                media for answer in good.values() for media in answer.get("content", {}).items()
            ]
            assert told or method == "head", f"{method} {path} answers with nothing"
            for media_type, content in told:
                schema = content.get("schema")
                assert schema, f"{method} {path} {media_type} has no type"
                for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(schema)):
                    assert schemas[name]["properties"], name
                if media_type == "application/json":
                    assert "$ref" in schema, f"{method} {path}"


def test_the_first_type_of_an_answer_is_one_that_generated_clients_know(url: str) -> None:
    """openapi-python-client takes the first that it knows, and leaves out an answer without any."""
    known = re.compile(r"application/(json|octet-stream)|text/.*")
    for path, operations in httpx.get(f"{url}/openapi.json").json()["paths"].items():
        for answer in [one for told in operations.values() for one in told["responses"].values()]:
            content = answer.get("content", {})
            assert not content or any(
                known.fullmatch(kind) or kind.endswith("+json") for kind in content
            ), path
            assert "application/json" not in content or next(iter(content)) == "application/json"


def test_a_picture_is_sent_as_bytes_to_who_accepts_those_only(url: str) -> None:
    with httpx.Client(base_url=url, headers=AUTHORIZATION, timeout=60) as client:
        call = {"prompt": "a fox", "response_format": "url"}
        address = client.post("/v1/images/generations", json=call).json()["data"][0]["url"]
        for accepted, sent in (
            ("application/octet-stream", "application/octet-stream"),
            ("*/*", "image/png"),
            ("image/webp, application/octet-stream", "image/png"),
        ):
            answer = client.get(address, headers={"Accept": accepted})
            assert answer.headers["content-type"] == sent
            assert answer.content.startswith(b"\x89PNG")
