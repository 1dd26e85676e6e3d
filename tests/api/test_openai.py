"""OpenAI's own client, unchanged, against our server."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from shared.api.openai_wire import REQUEST_BODY, read_call
from shared.backends.fake import FakeBackend
from shared.contract import Event, GenerationRequest, Step, number_from_text, parse_request
from shared.errors import InvalidRequest, OutOfMemory
from shared.images import read_recipe
from tests.api.conftest import HeldBackend, Serve, Server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30
    ) as client:
        yield client


def ours(model: Any) -> dict[str, Any]:
    """What the answer says in our own field."""
    return model.model_extra["cygnet"]


def file(image: Any) -> bytes:
    return base64.b64decode(image.b64_json)


async def test_a_call_gets_its_images_with_seeds_request_and_timings(
    client: openai.AsyncOpenAI, backend: HeldBackend
) -> None:
    backend.go.set()
    answer = await client.images.generate(
        model="cygnet-tiny",
        prompt="a fox",
        n=2,
        size="256x256",
        output_format="webp",
        quality="high",
        user="someone",
        extra_body={"seed": 7, "steps": 3, "negative_prompt": "blur", "scheduler": "euler"},
    )
    assert answer.data
    assert [image.model_extra for image in answer.data] == [{"seed": 7}, {"seed": 8}]
    assert (answer.size, answer.output_format) == ("256x256", "webp")
    asked = parse_request(ours(answer)["request"])
    assert (asked.steps, asked.negative_prompt, asked.scheduler) == (3, "blur", "euler")
    assert ours(answer)["result"]["timings"]["total"] == 0
    assert [read_recipe(file(image)).fields["seed"] for image in answer.data] == [7, 8]


async def test_the_synchronous_client_works_too(server: Server, backend: HeldBackend) -> None:
    backend.go.set()

    def call() -> bytes:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=30) as client:
            assert "cygnet-tiny" in [model.id for model in client.models.list()]
            answer = client.images.generate(model="cygnet-tiny", prompt="a fox")
            assert answer.data
            return file(answer.data[0])

    assert read_recipe(await asyncio.to_thread(call)).fields["prompt"] == "a fox"


async def test_an_image_can_be_fetched_from_its_url(
    client: openai.AsyncOpenAI, server: Server, backend: HeldBackend
) -> None:
    backend.go.set()
    answer = await client.images.generate(prompt="a fox", response_format="url")
    assert answer.data and answer.data[0].url and answer.data[0].b64_json is None
    found = await server.client.get(answer.data[0].url)
    assert read_recipe(found.content).fields["prompt"] == "a fox"


class Watched(FakeBackend):
    """Takes the last step of each image once a preview of it was `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = asyncio.Semaphore(0)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        async for event in super().generate(request):
            if isinstance(event, Step) and event.step == event.steps:
                await self.seen.acquire()
            yield event


STREAMED: dict[str, Any] = {
    "prompt": "a fox",
    "n": 2,
    "stream": True,
    "partial_images": 1,
    "extra_body": {"seed": 7, "steps": 2},
}


def check_streamed(events: list[Any]) -> None:
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image"] * 2 + ["completed"] * 2
    assert all(event.partial_image_index == 0 for event in events[:2])
    assert all(file(event).startswith(b"\xff\xd8") for event in events[:2])
    assert [event.model_extra["seed"] for event in events[2:]] == [7, 8]
    assert [read_recipe(file(event)).fields["seed"] for event in events[2:]] == [7, 8]
    assert ours(events[-1])["result"]["seeds"] == [7, 8]


async def test_a_stream_shows_partial_images_and_then_each_image(serve: Serve) -> None:
    backend, events = Watched(), []
    async with (
        serve(backend) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=30) as client,
    ):
        async for event in await client.images.generate(**STREAMED):
            events.append(event)
            backend.seen.release()
    check_streamed(events)


async def test_the_synchronous_client_streams_too(serve: Serve) -> None:
    backend = Watched()
    loop = asyncio.get_running_loop()

    def call(url: str) -> list[Any]:
        events = []
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=30) as client:
            for event in client.images.generate(**STREAMED):
                events.append(event)
                loop.call_soon_threadsafe(backend.seen.release)
        return events

    async with serve(backend) as server:
        check_streamed(await asyncio.to_thread(call, server.url))


async def test_partial_images_are_spread_over_the_steps() -> None:
    wanted = read_call({"prompt": "a fox", "steps": 8, "stream": True, "partial_images": 3})
    shown: list[int] = []
    for step in range(1, 9):
        if wanted.shows_preview(len(shown), step):
            shown.append(step)
    assert shown == [2, 4, 6]
    none = read_call({"prompt": "a fox", "stream": True})
    assert not any(none.shows_preview(0, step) for step in range(1, 100))


async def test_a_smaller_quality_makes_a_smaller_file_with_its_request_inside(
    client: openai.AsyncOpenAI, backend: HeldBackend
) -> None:
    backend.go.set()
    sizes = []
    for quality in (90, 10):
        for stream in (False, True):
            answer: Any = await client.images.generate(
                prompt="a fox",
                output_format="jpeg",
                output_compression=quality,
                stream=stream,
                extra_body={"seed": 7},
            )
            image = [event async for event in answer][-1] if stream else answer.data[0]
            assert read_recipe(file(image)).fields["seed"] == 7
            sizes.append(len(file(image)))
    assert sizes[0] == sizes[1] > sizes[2] == sizes[3]


@pytest.mark.parametrize(
    ("call", "param"),
    [
        ({"n": 50}, "n"),
        ({"size": "1x1"}, "size"),
        ({"size": "large"}, "size"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 50}, "output_compression"),
        ({"output_compression": 500, "output_format": "webp"}, "output_compression"),
        ({"response_format": "hex"}, "response_format"),
        ({"background": "transparent"}, "background"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"extra_body": {"stepps": 3}}, "stepps"),
        ({"extra_body": {"stream": "yes"}}, "stream"),
        ({"extra_body": {"checkpoint": "cygnet-tiny"}}, "checkpoint"),
        ({"extra_body": {"num_images": 2}}, "num_images"),
        ({"extra_body": {"width": 256}}, "width"),
        ({"extra_body": {"height": 256}}, "height"),
    ],
)
async def test_what_cannot_be_done_is_a_bad_request_that_names_the_field(
    client: openai.AsyncOpenAI, call: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.images.generate(prompt="a fox", **call)
    assert refusal.value.param == param
    assert (refusal.value.code, refusal.value.type) == ("invalid_request", "invalid_request_error")


def test_two_names_for_one_field_are_answered_with_it_once() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_call({"prompt": "a fox", "width": 256, "height": 256})
    assert refusal.value.fields == ("width", "height")
    assert refusal.value.next_step == "Did you mean size?"


WRONG: dict[str, list[Any]] = {
    "size": ["256*256", "256X256", "1:1", "", "0x0", "256x", "large", 256, [256, 256], True],
    "response_format": ["hex", "", 1, []],
    "output_compression": ["x", -1, 101, 2.5, [], {}],
    "stream": ["yes", "true", 1, []],
    "partial_images": ["x", 4, -1, 1.5, []],
    "background": ["transparent", "", 1, {}],
    "model": [7, [], {}, True],
    "n": ["x", 0, 99, 1.5, [], True],
    "prompt": [7, [], "", "a" * 2001],
    "negative_prompt": [7, [], "a" * 2001],
    "steps": ["x", 0, 101, 1.5, []],
    "guidance_scale": ["x", -1, 21, []],
    "seed": ["x", -7, 1.5, []],
    "scheduler": ["x", 7, []],
    "output_format": ["gif", 7, []],
}
WITHOUT_EFFECT = {"quality", "moderation", "style", "input_fidelity", "user", "safety_identifier"}
PYDANTIC = re.compile(
    r"Input should|valid (integer|string|boolean|number)|match pattern|type=|loc|ctx"
)


def test_every_field_of_the_route_has_wrong_values_here_or_none() -> None:
    body = REQUEST_BODY["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"].keys() == WRONG.keys() | WITHOUT_EFFECT


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]]
)
def test_a_wrong_value_is_refused_in_our_words_under_its_own_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_call({"prompt": "a fox"} | {field: value})
    assert refusal.value.fields == (field,)
    assert field in refusal.value.message and field in refusal.value.next_step
    assert not PYDANTIC.search(str(refusal.value))
    advised = re.fullmatch(r"Use (\w+)=(\S+)\.", refusal.value.next_step)
    if advised:
        assert advised[1] == field
        lossy = {"output_format": "webp"} if field == "output_compression" else {}
        assert read_call({"prompt": "a fox"} | lossy | {field: number_from_text(advised[2])})


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
def test_what_has_no_counterpart_here_is_left_alone(field: str) -> None:
    for value in ("high", 7, ["x"], {}):
        assert read_call({"prompt": "a fox", "seed": 1, field: value}) == read_call(
            {"prompt": "a fox", "seed": 1}
        )


async def test_an_unknown_model_is_refused_with_those_there_are(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="cygnet-tiny") as refusal:
        await client.images.generate(prompt="a fox", model="gpt-image-2")
    assert refusal.value.code == "unknown_checkpoint"


async def test_errors_are_openais_own_on_this_route(serve: Serve, backend: HeldBackend) -> None:
    async with serve(backend, keys=("a-key",), concurrency=1, max_queued=0, grace=0) as server:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as unknown:
                await client.images.generate(prompt="a fox")
            assert unknown.value.code == "unauthorised"
        async with openai.AsyncOpenAI(base_url=url, api_key="a-key", max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as full:
                await client.images.generate(prompt="a fox")
            assert (full.value.code, full.value.type) == ("queue_full", "rate_limit_error")
            assert int(full.value.response.headers["retry-after"]) > 0


async def test_a_failure_is_told_whether_streamed_or_not(serve: Serve) -> None:
    def no_memory(event: Event) -> None:
        if isinstance(event, Step):
            raise OutOfMemory("Too large.", "Ask for less.")

    async with serve(FakeBackend(no_memory)) as server:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match="Ask for less") as failure:
                await client.images.generate(prompt="a fox")
            assert failure.value.code == "out_of_memory"
            stream = await client.images.generate(prompt="a fox", stream=True)
            with pytest.raises(openai.APIError, match="Ask for less"):
                async for _ in stream:
                    pass


@pytest.mark.parametrize("stream", [False, True])
async def test_to_hang_up_cancels_the_work(
    server: Server, backend: HeldBackend, stream: bool
) -> None:
    call = {"prompt": "a fox", "stream": stream}
    async with httpx.AsyncClient(base_url=server.url, timeout=None) as caller:
        calling = asyncio.create_task(caller.post("/v1/images/generations", json=call))
        while not backend.started:
            await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait({calling})
    [job] = server.runner.store.jobs("")
    assert (await server.ended(job.id))["status"] == "cancelled"
    assert backend.stopped == ["a fox"]


async def test_a_call_that_the_server_stops_under_is_not_run_again(
    server: Server, client: openai.AsyncOpenAI, backend: HeldBackend
) -> None:
    calling = asyncio.create_task(client.images.generate(prompt="a fox"))
    while not backend.started:
        await asyncio.sleep(0)
    await server.runner.stop()
    with pytest.raises(openai.InternalServerError) as stopped:
        await calling
    assert stopped.value.code == "backend_unavailable"
    [job] = server.runner.store.jobs("")
    assert job.status == "cancelled"


def test_a_call_is_a_request_of_ours() -> None:
    wanted = read_call({"model": "cygnet-tiny", "prompt": "a fox", "n": 2, "seed": 1, "size": None})
    asked = {"checkpoint": "cygnet-tiny", "prompt": "a fox", "num_images": 2, "seed": 1}
    assert wanted.request == parse_request(asked)
    with pytest.raises(InvalidRequest):
        read_call({})
