"""What every backend does alike: each test runs on each of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from fastapi import FastAPI

from shared.api import ApiOptions, create_app
from shared.api.call_jobs import CallJobs
from shared.backends import Backend
from shared.backends.api_client import ApiBackend
from shared.backends.child import ChildBackend
from shared.backends.config import BackendConfig, Backends
from shared.backends.fake import FakeBackend
from shared.backends.ledger import Ledger
from shared.backends.modal.client import ModalBackend
from shared.backends.modal.methods import Methods
from shared.backends.modal.records import Records
from shared.backends.router import Router
from shared.backends.space_client import SpaceBackend
from shared.contract import Done, Event, GenerationRequest, ImageReady, Queued, Step, collect
from shared.errors import GenerationError, OutOfMemory
from shared.images import read_recipe
from shared.prices import Machine
from shared.settings import Acceleration
from tests.api.conftest import Serve, serve
from tests.engine.conftest import ask, small, small_folder
from tests.modal.conftest import MemoryTable, TaskCalls, serving
from tests.space.conftest import Serve as ServeSite
from tests.space.conftest import serve as serve_site

__all__ = ["ask", "serve", "serve_site", "small", "small_folder"]

pytestmark = pytest.mark.anyio

Ask = Callable[..., GenerationRequest]


@pytest.fixture(params=["fake", "api", "modal", "space", "local", "child", "router"])
async def backend(
    request: pytest.FixtureRequest,
    serve: Serve,
    serve_site: ServeSite,
    ask: Ask,
    small_folder: Path,
    tmp_path: Path,
) -> AsyncIterator[Backend]:
    async with AsyncExitStack() as servers:
        match request.param:
            case "api":
                server = await servers.enter_async_context(serve(FakeBackend(), grace=0))
                backend: Backend = ApiBackend(server.url)
            case "modal":
                url = await servers.enter_async_context(serving(deployment(ask().checkpoint)))
                backend = ModalBackend(url)
            case "space":
                backend = SpaceBackend(servers.enter_context(serve_site(FakeBackend(), grace=0)))
            case "local":
                from shared.backends.local import LocalBackend

                backend = LocalBackend(Acceleration(device="cpu"))
            case "child":
                program = CHILD.format(folder=str(small_folder))
                backend = ChildBackend(command=(sys.executable, "-c", program))
            case "router":
                backend = Router(BACKENDS, ledger=Ledger(tmp_path))
            case _:
                backend = FakeBackend()
        yield backend
        await backend.aclose()


# Our own server in a process of its own, which is told of the small Wan, and draws without it.
CHILD = """
import sys
from pathlib import Path
import shared.backends
from shared.backends.fake import FakeBackend
from shared.checkpoints import add_folder
from shared.cli import main

add_folder(Path({folder!r}))
shared.backends._OPENERS["local"] = lambda *_: FakeBackend()
sys.exit(main())
"""

GONE = BackendConfig(name="gone", kind="api", address="http://127.0.0.1:9")
KNOWN = {"gone": GONE, "fake": BackendConfig(name="fake", kind="fake")}
BACKENDS = Backends(KNOWN, tuple(KNOWN), tuple(KNOWN))
"""The first in order cannot be reached, and the second serves."""


def deployment(checkpoint: str) -> FastAPI:
    """The web door of a deployment on Modal that serves a fake."""
    records = Records(MemoryTable(), MemoryTable())
    calls = TaskCalls.of(Methods(FakeBackend(), checkpoint, Machine(1, 1)), records)
    options = ApiOptions()
    return create_app(CallJobs("modal", calls, records, checkpoint, options), options)


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


async def test_the_status_names_the_checkpoints(backend: Backend, ask: Ask) -> None:
    status = await backend.status()
    assert status.healthy and status.name == backend.name
    # A deployment serves the one that it has loaded.
    assert {"cygnet-tiny", ask().checkpoint} & set(status.checkpoints)


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

    async def check(backend: Backend) -> None:
        with pytest.raises(GenerationError) as error:
            await collect(backend.generate(ask()))
        assert type(error.value) is OutOfMemory
        assert str(error.value) == "Too large. Ask for less."
        await backend.aclose()

    await check(FakeBackend(no_memory))
    async with serve(FakeBackend(no_memory)) as server:
        await check(ApiBackend(server.url))
    with serve_site(FakeBackend(no_memory)) as url:
        await check(SpaceBackend(url))
