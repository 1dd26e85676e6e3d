"""What every backend does alike: each test runs on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import pytest

from shared.backends import Backend
from shared.backends.api_client import ApiBackend
from shared.backends.fake import FakeBackend
from shared.backends.space_client import SpaceBackend
from shared.contract import Done, Event, GenerationRequest, ImageReady, Queued, Step, collect
from shared.errors import GenerationError, OutOfMemory
from shared.images import read_recipe
from shared.settings import Acceleration
from tests.api.conftest import Serve, serve
from tests.engine.conftest import ask, small, small_folder
from tests.space.conftest import Serve as ServeSite
from tests.space.conftest import serve as serve_site

__all__ = ["ask", "serve", "serve_site", "small", "small_folder"]

pytestmark = pytest.mark.anyio

Ask = Callable[..., GenerationRequest]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["fake", "api", "space", "local"])
async def backend(
    request: pytest.FixtureRequest, serve: Serve, serve_site: ServeSite
) -> AsyncIterator[Backend]:
    if request.param == "space":
        with serve_site(FakeBackend(), grace=0) as url:
            backend: Backend = SpaceBackend(url)
            yield backend
            await backend.aclose()
        return
    if request.param == "api":
        async with serve(FakeBackend(), grace=0) as server:
            backend = ApiBackend(server.url)
            yield backend
            await backend.aclose()
        return
    if request.param == "local":
        from shared.backends.local import LocalBackend

        backend = LocalBackend(Acceleration(device="cpu"))
    else:
        backend = FakeBackend()
    yield backend
    await backend.aclose()


async def test_events_come_in_order_and_end_with_the_result(backend: Backend, ask: Ask) -> None:
    asked = ask(num_images=2, steps=3, seed=7)
    events = [event async for event in backend.generate(asked)]
    assert isinstance(events[0], Queued) and isinstance(events[-1], Done)
    for index in range(2):
        steps = [e.step for e in events if isinstance(e, Step) and e.index == index]
        assert steps == [1, 2, 3]
    images = sorted((e.index, e.seed) for e in events if isinstance(e, ImageReady))
    assert images == [(0, 7), (1, 8)]
    assert events[-1].result.request == asked
    assert events[-1].result.seeds == (7, 8)


async def test_a_picture_carries_the_request_that_makes_it_again(
    backend: Backend, ask: Ask
) -> None:
    asked = ask(num_images=2, seed=7)
    _, images = await collect(backend.generate(asked))
    recipes = [read_recipe(image).fields for image in images]
    assert recipes == [asked.for_image(index).model_dump() for index in range(2)]


async def test_the_same_request_gives_the_same_picture(backend: Backend, ask: Ask) -> None:
    first, again = [await collect(backend.generate(ask(seed=7))) for _ in range(2)]
    assert first[1] == again[1]


async def test_requests_at_once_get_their_own_pictures(backend: Backend, ask: Ask) -> None:
    asked = [ask(seed=seed) for seed in range(4)]
    got = await asyncio.gather(*(collect(backend.generate(one)) for one in asked))
    assert [read_recipe(images[0]).fields["seed"] for _, images in got] == [0, 1, 2, 3]


async def test_after_one_stops_reading_the_next_is_served(backend: Backend, ask: Ask) -> None:
    async with aclosing(backend.generate(ask(steps=100, num_images=4))) as events:
        async for event in events:
            if isinstance(event, Step):
                break
    result, images = await collect(backend.generate(ask(seed=7)))
    assert (result.seeds, len(images)) == ((7,), 1)


async def test_the_status_names_the_checkpoints(backend: Backend) -> None:
    status = await backend.status()
    assert status.healthy and status.name == backend.name
    assert "cygnet-tiny" in status.checkpoints


async def test_to_stop_reading_cancels_the_job_on_the_server(serve: Serve, ask: Ask) -> None:
    held = asyncio.Event()

    class Held(FakeBackend):
        async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
            async for event in super().generate(request):
                yield event
                await held.wait()

    async with serve(Held(), grace=0) as server:
        backend = ApiBackend(server.url)
        async with aclosing(backend.generate(ask())) as events:
            assert isinstance(await anext(events), Queued)
        await backend.aclose()
        assert [job.status for job in server.runner.store.jobs("")] == ["cancelled"]


async def test_an_error_is_the_same_one_from_wherever_it_comes(
    serve: Serve, serve_site: ServeSite, ask: Ask
) -> None:
    def no_memory(_: object) -> None:
        raise OutOfMemory("Too large.", "Ask for less.")

    async with serve(FakeBackend(no_memory)) as server:
        with serve_site(FakeBackend(no_memory)) as url:
            for backend in (FakeBackend(no_memory), ApiBackend(server.url), SpaceBackend(url)):
                with pytest.raises(GenerationError) as error:
                    await collect(backend.generate(ask()))
                assert type(error.value) is OutOfMemory
                assert str(error.value) == "Too large. Ask for less."
                await backend.aclose()
