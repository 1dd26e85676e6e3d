"""Names of OpenAI's that checkpoints draw for, as clients send them that know no other names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from shared.api import ApiOptions, openai_models
from shared.api.app import create_app
from shared.api.openai_models import OpenAIModels
from shared.api.openai_wire import read_call
from shared.backends.fake import FakeBackend
from shared.checkpoints import get_checkpoint
from shared.contract import nearest_size
from shared.errors import InvalidSetting, UnknownCheckpoint
from shared.images import read_recipe
from shared.settings import read_settings, settings
from tests.api.conftest import Serve, Server

pytestmark = pytest.mark.anyio

NAMES = {
    "dall-e-3": "wan2.1-1.3b",
    "dall-e-*": "cygnet-tiny-fast",
    "gpt-image-*": "cygnet-tiny",
}


@pytest.fixture
async def mapped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    text = ", ".join(f"{name}={checkpoint}" for name, checkpoint in NAMES.items())
    environ = {"CYGNET_OPENAI_MODELS": text}
    monkeypatch.setitem(create_app.__globals__, "settings", lambda: read_settings(environ))
    async with serve(FakeBackend()) as server:
        yield server


async def generate(server: Server, **call: Any) -> Any:
    """The answer, or the last event of a stream."""
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30
    ) as client:
        answer = await client.images.generate(prompt="a fox", **call)
        return [event async for event in answer][-1] if call.get("stream") else answer


@pytest.mark.parametrize(
    ("model", "checkpoint"),
    [
        ("dall-e-2", "cygnet-tiny-fast"),
        ("dall-e-3", "wan2.1-1.3b"),
        ("gpt-image-1", "cygnet-tiny"),
        ("gpt-image-1-mini", "cygnet-tiny"),
        ("gpt-image-1.5", "cygnet-tiny"),
        ("cygnet-tiny", "cygnet-tiny"),
    ],
)
async def test_a_name_of_openais_is_drawn_by_what_the_operator_says(
    mapped: Server, model: str, checkpoint: str
) -> None:
    answer = await generate(mapped, model=model)
    assert answer.model_extra["cygnet"]["request"]["checkpoint"] == checkpoint
    assert "remarks" not in answer.model_extra["cygnet"]["result"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_size_it_cannot_do_becomes_the_nearest_and_the_answer_says_so(
    mapped: Server, stream: bool
) -> None:
    last = await generate(mapped, model="gpt-image-1", size="1024x1024", stream=stream)
    assert last.size == "256x256"
    assert last.model_extra["cygnet"]["result"]["remarks"] == [
        "cygnet-tiny does not draw 1024x1024: the picture has 256x256, the nearest size."
    ]


async def test_a_checkpoint_asked_for_by_its_own_name_is_held_to_its_sizes(mapped: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="Use size=256x256") as refused:
        await generate(mapped, model="cygnet-tiny", size="1024x1024")
    assert refused.value.param == "size"


@pytest.mark.parametrize(
    ("call", "by_url"),
    [
        ({"model": "dall-e-2"}, True),
        ({"model": "dall-e-3"}, True),
        ({"model": "dall-e-3", "response_format": "b64_json"}, False),
        ({"model": "gpt-image-1"}, False),
        ({"model": "gpt-image-1", "response_format": "url"}, True),
        ({"model": "cygnet-tiny"}, False),
        ({}, False),
    ],
)
async def test_what_is_sent_follows_openais_default_for_the_name(
    mapped: Server, call: dict[str, Any], by_url: bool
) -> None:
    [image] = (await generate(mapped, **call)).data
    assert (bool(image.url), bool(image.b64_json)) == (by_url, not by_url)


async def test_the_models_list_has_the_whole_names_and_says_that_they_draw(mapped: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{mapped.url}/v1", api_key="none") as client:
        models = {model.id: model async for model in await client.models.list()}
        assert "dall-e-3" in models and "dall-e-*" not in models
        for model in (*models.values(), await client.models.retrieve("gpt-image-1")):
            assert model.model_extra
            architecture = model.model_extra["architecture"]
            assert architecture["input_modalities"] == ["text"]
            assert architecture["output_modalities"] == ["image"]


@pytest.mark.parametrize("model", ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini"])
async def test_without_the_setting_it_is_refused_with_the_setting_named(
    server: Server, model: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"CYGNET_OPENAI_MODELS={model}=") as refused:
        await generate(server, model=model)
    assert (refused.value.code, refused.value.param) == ("unknown_checkpoint", "model")


async def test_the_advice_of_that_refusal_can_be_followed() -> None:
    with pytest.raises(UnknownCheckpoint) as refused:
        read_call({"prompt": "a fox", "model": "dall-e-3"})
    variable, _, value = refused.value.next_step.rpartition(" ")[2].removesuffix(".").partition("=")
    models = OpenAIModels(read_settings({variable: value}).openai_models)
    assert read_call({"prompt": "a fox", "model": "dall-e-3"}, models)


@pytest.mark.parametrize("empty", ["", " ", None])
async def test_an_empty_model_is_the_usual_one(server: Server, backend: Any, empty: object) -> None:
    backend.go.set()
    call = {"prompt": "a fox", "model": empty}
    answer = (await server.client.post("/v1/images/generations", json=call)).json()
    assert answer["cygnet"]["request"]["checkpoint"] == settings().checkpoint


async def test_a_setting_that_cannot_be_used_is_refused_when_the_server_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in ("dall-e-3", "=cygnet-tiny", "dall-e-3="):
        with pytest.raises(InvalidSetting, match="CYGNET_OPENAI_MODELS"):
            read_settings({"CYGNET_OPENAI_MODELS": value})
    jobs: Any = None
    environ = {openai_models.VARIABLE: "dall-e-3=cygnet-tinny"}
    monkeypatch.setitem(create_app.__globals__, "settings", lambda: read_settings(environ))
    with pytest.raises(InvalidSetting, match=r"Did you mean cygnet-tiny\?"):
        create_app(jobs, ApiOptions())


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1792, 1024), (1280, 736)),
        ((1024, 1792), (736, 1280)),
        ((100, 50), None),
        ((1000, 1000), (992, 992)),
    ],
)
async def test_the_nearest_size_keeps_the_shape(
    asked: tuple[int, int], near: tuple[int, int] | None
) -> None:
    checkpoint = get_checkpoint("wan2.1-1.3b")
    found = nearest_size(*asked, checkpoint)
    assert near is None or found == near
    for side in found:
        assert checkpoint.min_size <= side <= checkpoint.max_size
        assert side % checkpoint.size_multiple == 0
    assert (found[0] > found[1]) == (asked[0] > asked[1])


# What each client sends, read from its source, where it cannot be changed to say otherwise.
CLIENTS: dict[str, dict[str, Any]] = {
    "Open WebUI 0.12, as it comes": {
        "model": "dall-e-2",
        "n": 1,
        "size": "512x512",
        "response_format": "b64_json",
    },
    "Open WebUI 0.12, for gpt-image-1": {"model": "gpt-image-1", "n": 1, "size": "auto"},
    "langchain-community 0.4's DallEAPIWrapper": {"model": "dall-e-2", "n": 1, "size": "1024x1024"},
    "the same with dall-e-3 and a quality": {
        "model": "dall-e-3",
        "n": 1,
        "size": "1024x1024",
        "quality": "hd",
    },
    "LiteLLM 1.110": {"model": "dall-e-3"},
    "LiteLLM 1.110 for gpt-image-1": {
        "model": "gpt-image-1",
        "size": "1536x1024",
        "quality": "high",
    },
    "what gpt-image-1 takes": {
        "model": "gpt-image-1",
        "background": "auto",
        "moderation": "low",
        "output_format": "png",
        "output_compression": 100,
        "quality": "medium",
        "input_fidelity": "high",
        "user": "someone",
    },
}


@pytest.mark.parametrize("call", CLIENTS.values(), ids=list(CLIENTS))
async def test_what_clients_send_as_they_come_is_drawn(
    mapped: Server, call: dict[str, Any]
) -> None:
    answer = await mapped.client.post("/v1/images/generations", json={"prompt": "a fox"} | call)
    assert answer.status_code == 200, answer.text
    [image] = answer.json()["data"]
    wants_url = call["model"].startswith("dall-e") and "response_format" not in call
    assert ("url" in image) == wants_url
    if wants_url:
        file = (await mapped.client.get(image["url"])).content
        assert read_recipe(file).fields["prompt"] == "a fox"
