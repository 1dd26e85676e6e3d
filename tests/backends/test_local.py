"""The local backend: the engine behind the one verb that all backends share."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.backends.local import LocalBackend
from shared.contract import Done, GenerationRequest, ImageReady, Step, collect
from shared.engine import core
from shared.errors import CheckpointMissing, PackageMissing
from shared.settings import Acceleration
from tests.engine.conftest import ask, pixels, psnr, small, small_folder

__all__ = ["ask", "small", "small_folder"]

pytestmark = pytest.mark.anyio

Ask = Callable[..., GenerationRequest]


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend(Acceleration(device="cpu"))


async def test_a_checkpoint_is_loaded_once_and_kept(backend: LocalBackend, ask: Ask) -> None:
    assert not (await backend.status()).warm
    first, _ = await collect(backend.generate(ask()))
    second, _ = await collect(backend.generate(ask()))
    assert first.timings.loading > 0 and second.timings.loading == 0
    status = await backend.status()
    assert status.warm and "cygnet-tiny" in status.checkpoints
    await backend.aclose()


async def test_requests_at_once_get_the_pictures_they_get_alone(
    backend: LocalBackend, ask: Ask
) -> None:
    requests = [ask(seed=seed, steps=3 + seed) for seed in range(4)]
    alone = [(await collect(backend.generate(request)))[1][0] for request in requests]
    together = await asyncio.gather(*(collect(backend.generate(one)) for one in requests))
    for (_, images), expected in zip(together, alone, strict=True):
        assert psnr(pixels(images[0]), pixels(expected)) >= 60
    await backend.aclose()


async def test_to_stop_reading_is_to_cancel(
    backend: LocalBackend, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards: list[int] = []
    real = core.guided_velocity

    def counted(*arguments: Any) -> torch.Tensor:
        forwards.append(1)
        return real(*arguments)

    monkeypatch.setattr(core, "guided_velocity", counted)
    events = backend.generate(ask(steps=100))
    steps = 0
    async for event in events:
        steps += isinstance(event, Step)
        if steps == 2:
            break
    await events.aclose()
    await asyncio.wait_for(backend.aclose(), timeout=60)
    assert 2 <= len(forwards) < 50


async def test_a_load_that_failed_is_tried_again(
    backend: LocalBackend, ask: Ask, small_folder: Path
) -> None:
    vae = small_folder / "vae"
    vae.rename(small_folder / "moved")
    with pytest.raises(CheckpointMissing):
        await collect(backend.generate(ask()))
    (small_folder / "moved").rename(vae)
    result, images = await collect(backend.generate(ask()))
    assert len(images) == len(result.seeds) == 1
    await backend.aclose()


async def test_a_missing_package_is_named(
    backend: LocalBackend, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shared.engine.loading", None)
    with pytest.raises(PackageMissing, match=r"shared\.engine\.loading"):
        await collect(backend.generate(ask()))


async def test_events_come_in_order_and_end_with_done(backend: LocalBackend, ask: Ask) -> None:
    events = [event async for event in backend.generate(ask(num_images=2))]
    assert isinstance(events[-1], Done)
    assert sum(isinstance(event, ImageReady) for event in events) == 2
    await backend.aclose()


async def test_without_torch_it_says_that_it_is_down(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status = await backend.status()
    assert (status.healthy, status.detail) == (False, "torch is not installed.")
