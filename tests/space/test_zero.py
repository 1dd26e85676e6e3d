"""ZeroGPU, with a stand-in for the host's `spaces.GPU` that passes everything on as a fork would."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import gradio as gr
import pytest

from shared.backends.local import LocalBackend
from shared.checkpoints import get_checkpoint
from shared.contract import GenerationRequest, Step, collect, parse_request
from shared.engine.loading import Model, load
from shared.errors import (
    BackendUnavailable,
    CheckpointMissing,
    CygnetError,
    InvalidRequest,
    QuotaExceeded,
)
from shared.settings import Acceleration, settings
from space import ahead, app, zero
from space.zero import ZeroBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(get_checkpoint("cygnet-tiny-fast"), Acceleration(device="cpu"))


class Host:
    """What `spaces.GPU` does, as far as it shows: pickles what passes, and takes the time asked for."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.taken: list[int] = []
        self.closed = 0

    def gpu(self, duration: Callable[..., int]) -> Callable[..., Any]:
        def decorate(task: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
            def handler(*arguments: Any) -> Iterator[Any]:
                self.taken.append(duration(*arguments))
                if self.refusal:
                    raise self.refusal
                try:
                    for item in task(*pickle.loads(pickle.dumps(arguments))):
                        yield pickle.loads(pickle.dumps(item))
                except GeneratorExit:
                    self.closed += 1
                    raise

            return handler

        return decorate


def ask(**fields: Any) -> GenerationRequest:
    return parse_request({"prompt": "a fox", "checkpoint": "cygnet-tiny-fast", "seed": 7} | fields)


async def test_its_picture_is_that_of_the_local_backend(model: Model) -> None:
    local = LocalBackend(Acceleration(device="cpu"))
    request = ask(num_images=2)
    _, expected = await collect(local.generate(request))
    result, images = await collect(ZeroBackend(model, Host().gpu).generate(request))
    await local.aclose()
    assert images == expected
    assert result.backend == "zerogpu"


async def test_every_step_has_a_preview(model: Model) -> None:
    async with aclosing(ZeroBackend(model, Host().gpu).generate(ask())) as events:
        steps = [event async for event in events if isinstance(event, Step)]
    assert len(steps) == 4 and all(step.preview for step in steps)


async def test_the_time_asked_for_grows_with_the_work_and_follows_what_was_measured(
    model: Model,
) -> None:
    name = "wan2.1-14b"
    large = ZeroBackend(dataclasses.replace(model, checkpoint=get_checkpoint(name)), Host().gpu)
    less = large.seconds(ask(checkpoint=name, steps=10))
    for more in ({"steps": 20}, {"num_images": 2}, {"width": 1280}):
        assert large.seconds(ask(**{"checkpoint": name, "steps": 10} | more)) > less
    backend = ZeroBackend(model, Host().gpu)
    result, _ = await collect(backend.generate(ask()))
    spent = result.timings.encoding + result.timings.denoising + result.timings.decoding
    assert backend.seconds(ask()) == pytest.approx(10 + 1.5 * spent, abs=1)


async def test_to_stop_reading_stops_the_forked_work(model: Model) -> None:
    host = Host()
    async with aclosing(ZeroBackend(model, host.gpu).generate(ask(steps=50))) as events:
        async for _ in events:
            break
    assert host.closed == 1


async def test_to_be_cancelled_stops_it_too(model: Model) -> None:
    host = Host()
    task = asyncio.create_task(collect(ZeroBackend(model, host.gpu).generate(ask(steps=100))))
    while not host.taken:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.closed == 1


async def test_an_error_in_the_fork_arrives_whole(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Iterator[Any]:
        raise InvalidRequest("It is wrong.", "Make it right.", ("steps",))
        yield

    monkeypatch.setattr(zero, "run", fail)
    with pytest.raises(InvalidRequest, match=r"It is wrong\. Make it right\."):
        await collect(ZeroBackend(model, Host().gpu).generate(ask()))


@pytest.mark.parametrize(
    ("title", "ours"),
    [
        ("ZeroGPU quota exceeded", QuotaExceeded),
        ("ZeroGPU illegal duration", QuotaExceeded),
        ("ZeroGPU worker error", BackendUnavailable),
    ],
)
async def test_what_the_host_refuses_is_our_error(
    model: Model, title: str, ours: type[CygnetError]
) -> None:
    host = Host(gr.Error("You have none left.", title=title, print_exception=False))
    with pytest.raises(ours, match="You have none left"):
        await collect(ZeroBackend(model, host.gpu).generate(ask()))


async def test_another_checkpoint_is_refused_before_time_is_taken(model: Model) -> None:
    host = Host()
    with pytest.raises(CheckpointMissing, match="Use checkpoint=cygnet-tiny-fast"):
        await collect(ZeroBackend(model, host.gpu).generate(ask(checkpoint="cygnet-tiny")))
    assert host.taken == []


@pytest.mark.parametrize("wanted", [True, False])
def test_a_space_on_zerogpu_places_its_weights_on_cuda_and_compiles_ahead_only_if_asked_to(
    model: Model, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    placed: list[Acceleration] = []
    compiled: list[tuple[object, ...]] = []

    def place(checkpoint: object, acceleration: Acceleration) -> Model:
        placed.append(acceleration)
        return model

    host = types.ModuleType("spaces")
    vars(host)["GPU"] = Host().gpu
    monkeypatch.setitem(sys.modules, "spaces", host)
    monkeypatch.setattr(zero, "load", place)
    monkeypatch.setattr(ahead, "compile_ahead", lambda *arguments: compiled.append(arguments))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("CYGNET_COMPILE", str(wanted))
    settings.cache_clear()
    assert isinstance(app.open_backend(), ZeroBackend)
    assert [(one.device, one.compile) for one in placed] == [("cuda", False)]
    assert compiled == ([(model, host)] if wanted else [])


def test_a_free_space_may_have_its_pictures_drawn_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setenv("CYGNET_BACKEND", "fake")
    settings.cache_clear()
    assert app.open_backend().name == "fake"
