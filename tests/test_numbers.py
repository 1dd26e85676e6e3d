"""One rule for numbers, at every door: a whole float and a text that spells it are that integer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pydantic.fields import FieldInfo
from starlette.testclient import TestClient

from shared import cli
from shared.api import ApiOptions, create_api
from shared.backends.config import read_backends
from shared.backends.fake import FakeBackend
from shared.backends.modal.methods import Methods
from shared.backends.router import Router
from shared.contract import DRAW_A_SEED, SEED, GenerationRequest, parse_request
from shared.errors import InvalidRequest
from shared.gallery import Gallery
from shared.mcp.server import create_server
from shared.numbers import EXACT, number_from_text, read_number
from shared.prices import Machine
from shared.store import Store

VALID = {"steps": 4, "width": 256, "height": 256, "seed": 7, "num_images": 2, "guidance_scale": 3}
"""A value for each number of a request."""

NO_WHOLE_NUMBERS = [7.5, "7.5", "7,0", "1e400", "nan", "inf", "", "seven", "0x7", True, [7], 1e300]


def numbers(model: type[Any]) -> dict[str, FieldInfo]:
    return {
        name: field
        for name, field in model.model_fields.items()
        if field.annotation in (int, float)
    }


def spellings(value: int) -> list[object]:
    """The ways in which other programs write one integer."""
    return [float(value), str(value), f"{value}.0", f" {value} ", f"{value}e0"]


def test_every_number_of_a_request_has_a_value_here() -> None:
    assert numbers(GenerationRequest).keys() == VALID.keys()


@pytest.mark.parametrize("field", VALID)
def test_a_number_may_be_spelt_in_any_way(field: str) -> None:
    for spelt in spellings(VALID[field]):
        request = parse_request({"prompt": "a fox", field: spelt})
        assert getattr(request, field) == VALID[field]
        assert type(getattr(request, field)) is GenerationRequest.model_fields[field].annotation
        body = json.dumps({"prompt": "a fox", field: spelt})
        assert getattr(GenerationRequest.model_validate_json(body), field) == VALID[field]


@pytest.mark.parametrize("field", VALID.keys() - {"guidance_scale"})
@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=repr)
def test_what_is_no_whole_number_is_refused_in_a_sentence(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"prompt": "a fox", field: value})
    assert refused.value.fields == (field,)
    assert refused.value.message.startswith(f"{field}=") and " is not " in refused.value.message


def test_a_number_with_a_comma_is_told_to_have_a_point() -> None:
    with pytest.raises(InvalidRequest, match=r"seed='7,0' is not .* with a point and no comma"):
        parse_request({"prompt": "a fox", "seed": "7,0"})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (EXACT + 1, str(EXACT + 1)),
        (10**20 - 1, str(10**20 - 1)),
        (str(10**20 - 1), str(10**20 - 1)),
        (float(EXACT + 1), f"more than {EXACT}"),
        (1e20, f"more than {EXACT}"),
        (-1e20, f"less than -{EXACT}"),
    ],
)
def test_a_number_that_a_float_cannot_hold_is_never_shown_as_another(
    value: object, shown: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"prompt": "a fox", "seed": value})
    assert refused.value.message == f"seed={shown} is not {SEED}."
    assert parse_request({"prompt": "a fox", "seed": str(EXACT)}).seed == EXACT
    assert parse_request({"prompt": "a fox", "seed": float(EXACT)}).seed == EXACT


@pytest.mark.parametrize("text", ["9" * 100_000, "1e999999999", "-1e999999999", "1e-999999999"])
def test_a_number_of_any_length_is_read_at_once(text: str) -> None:
    assert not isinstance(read_number(text), int)


def test_nothing_is_rounded_to_a_whole_number() -> None:
    assert type(number_from_text("7.0000000000000000000001")) is float
    with pytest.raises(InvalidRequest):
        parse_request({"prompt": "a fox", "seed": "4503599627370497.25"})


@pytest.mark.parametrize("seed", [-1, -1.0, "-1", "-1.0"])
def test_a_seed_of_minus_one_draws_one_and_the_request_holds_it(seed: object) -> None:
    drawn = {parse_request({"prompt": "a fox", "seed": seed}).seed for _ in range(8)}
    assert len(drawn) > 1 and all(SEED.allows(one) for one in drawn)
    assert GenerationRequest.model_json_schema()["properties"]["seed"]["minimum"] == DRAW_A_SEED


# HTTP


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    app = create_api(FakeBackend(), Store(tmp_path / "data"), ApiOptions(hosts=("testserver",)))
    with TestClient(app) as client:
        yield client


def integers(properties: dict[str, Any]) -> Iterator[str]:
    """The properties that are whole numbers, or may be null instead."""
    for name, schema in properties.items():
        if schema.get("type") == "integer":
            yield name
        for one in schema.get("anyOf", []):
            yield from integers({name: one})


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each route with each whole number that its body may hold."""
    for path, operations in document["paths"].items():
        if "post" in operations and "requestBody" in operations["post"]:
            content = operations["post"]["requestBody"]["content"]["application/json"]
            for name in integers(content["schema"]["properties"]):
                yield path, name


def test_every_whole_number_of_every_body_may_be_spelt_in_any_way(api: TestClient) -> None:
    beside = {"partial_images": {"stream": True}, "output_compression": {"output_format": "webp"}}
    found = list(bodies(api.get("/openapi.json").json()))
    assert {("/v1/images/generations", "output_compression"), ("/v1/jobs", "seed")} <= {*found}
    for path, name in found:
        value = VALID.get(name, 2)
        size = {} if name not in ("width", "height") else {"width": 256, "height": 256}
        body = {"prompt": "a fox"} | size | beside.get(name, {})
        for spelt in spellings(value):
            answer = api.post(path, json=body | {name: spelt})
            assert answer.status_code in (200, 202), (path, name, spelt, answer.text)
        for wrong in (7.5, "seven", True):
            answer = api.post(path, json=body | {name: wrong})
            assert answer.status_code in (400, 422), (path, name, wrong, answer.text)


def test_every_whole_number_of_every_address_may_be_spelt_in_any_way(api: TestClient) -> None:
    job = api.post("/v1/jobs", json={"prompt": "a fox"}).json()["id"]
    found = [
        (path, parameter["name"])
        for path, operations in api.get("/openapi.json").json()["paths"].items()
        for parameter in operations.get("get", {}).get("parameters", [])
        if parameter["in"] == "query"
        for _ in integers({"": parameter["schema"]})
    ]
    assert ("/v1/jobs", "limit") in found
    for path, name in found:
        address = path.format(job=job, image="none")
        usual = api.get(address, params={name: "7"}).status_code
        assert usual != 422
        for spelt in ("7.0", "7e0"):
            assert api.get(address, params={name: spelt}).status_code == usual
        for wrong in ("7.5", "seven", "1e400", "nan", ""):
            assert api.get(address, params={name: wrong}).status_code == 422


def test_openai_s_names_take_the_same_numbers(api: TestClient) -> None:
    call = {"prompt": "a fox", "n": "2.0", "seed": 7.0, "steps": "4"}
    answer = api.post("/v1/images/generations", json=call).json()
    assert [image["seed"] for image in answer["data"]] == [7, 8]


def test_a_job_with_a_drawn_seed_keeps_it_when_it_is_sent_again(api: TestClient) -> None:
    send = {"json": {"prompt": "a fox", "seed": -1}, "headers": {"Idempotency-Key": "one"}}
    first, second = (api.post("/v1/jobs", **send).json() for _ in range(2))  # type: ignore[arg-type]
    assert first["id"] == second["id"]
    assert SEED.allows(first["request"]["seed"]) and first["request"] == second["request"]


# MCP


async def call_tools(folder: Path) -> None:
    with contextlib.closing(Gallery(folder)) as gallery:
        fake = Router(read_backends(), "fake", open=lambda config, how: FakeBackend())
        async with Client(create_server(fake, gallery)) as client:
            drawn = await client.call_tool("generate_image", {"prompt": "a fox", "seed": -1})
            assert drawn.structured_content
            beside = {
                "generate_image": {"prompt": "a fox"},
                "get_job": {"job_id": drawn.structured_content["job_id"]},
            }
            found = [
                (tool.name, name)
                for tool in (await client.list_tools()).tools
                for name, facts in tool.input_schema["properties"].items()
                if facts.get("type") in ("integer", "number")
            ]
            assert ("list_images", "limit") in found and ("get_job", "wait_seconds") in found
            for tool, name in found:
                given = beside.get(tool, {})
                for spelt in spellings(VALID.get(name, 5)):
                    answer = await client.call_tool(tool, {**given, name: spelt})
                    assert not answer.is_error, (tool, name, spelt, answer.content)
                for wrong in ("seven", True, "7,0"):
                    answer = await client.call_tool(tool, {**given, name: wrong})
                    assert answer.is_error, (tool, name, wrong)


def test_every_number_of_every_tool_may_be_spelt_in_any_way(tmp_path: Path) -> None:
    asyncio.run(call_tools(tmp_path))


# The command line, Modal's machines, the file of backends


def test_the_command_line_takes_whole_floats(
    folder: Path, use_fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake()
    words = [f"--{name.replace('_', '-')}={value}.0" for name, value in VALID.items()]
    assert cli.main(["generate", "a fox", "--json", *words]) == 0
    request = json.loads(capsys.readouterr().out)["result"]["request"]
    assert {name: request[name] for name in VALID} == VALID
    assert cli.main(["generate", "a fox", "--seed", "-1"]) == 0
    assert cli.main(["generate", "a fox", "--seed", "7.5"]) == 2


def test_machines_take_whole_floats_and_draw_a_seed_of_minus_one() -> None:
    async def run(**fields: object) -> list[dict[str, Any]]:
        methods = Methods(FakeBackend(), "cygnet-tiny", Machine(1, 1))
        return await methods.run({"prompt": "a fox", "checkpoint": "cygnet-tiny", **fields})

    [*_, done] = asyncio.run(run(seed=7.0, steps="4.0"))
    assert (done["result"]["request"]["seed"], done["result"]["request"]["steps"]) == (7, 4)
    [*_, done] = asyncio.run(run(seed=-1))
    assert done["result"]["seeds"] == [done["result"]["request"]["seed"]]
    assert asyncio.run(run(seed=7.5))[-1]["code"] == "invalid_request"


def test_the_file_of_backends_takes_whole_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backends.toml"
    monkeypatch.setenv("CYGNET_CONFIG", str(file))
    file.write_text("[limits]\ncalls_per_day = 5.0\n")
    assert read_backends().limits.calls_per_day == 5
