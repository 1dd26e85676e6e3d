"""What the engine's tests share: a small random Wan, and the checkpoint that ships with Cygnet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from PIL import Image

from shared.checkpoints import Checkpoint, add_folder, get_checkpoint
from shared.contract import GenerationRequest, ImageReady, parse_request
from shared.engine.core import run
from shared.engine.loading import Model, load
from shared.settings import Acceleration
from tests.engine import small_wan

Pixels = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small run faster on one core, and the other is left to the decoder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_wan.save(tmp_path_factory.mktemp("checkpoints") / "small-wan")


@pytest.fixture(scope="session")
def small(small_folder: Path) -> Checkpoint:
    return add_folder(small_folder)


@pytest.fixture(scope="session")
def model(small: Checkpoint) -> Model:
    return load(small, Acceleration(device="cpu"))


@pytest.fixture(scope="session")
def pipeline(small_folder: Path) -> WanPipeline:
    pipe = WanPipeline.from_pretrained(small_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    return load(get_checkpoint("cygnet-tiny"), Acceleration(device="cpu"))


@pytest.fixture(scope="session")
def tiny_pipeline() -> WanPipeline:
    pipe = WanPipeline.from_pretrained(str(get_checkpoint("cygnet-tiny").folder))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def ask(small: Checkpoint) -> Callable[..., GenerationRequest]:
    """A request to the small Wan, of four quick steps unless told otherwise."""

    def ask(prompt: str = "a red fox on a sky blue background", **fields: Any) -> GenerationRequest:
        size = {"width": 64, "height": 48, "steps": 4, "seed": 7}
        return parse_request({"prompt": prompt, "checkpoint": small.name, **size, **fields})

    return ask


def pixels(data: bytes | Image.Image) -> Pixels:
    """The levels of an encoded picture."""
    image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal-to-noise ratio of 8-bit levels, in dB; infinite for equal pictures."""
    error = ((one - other) ** 2).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def solo(model: Model, request: GenerationRequest) -> list[Pixels]:
    """The pictures of a request served alone, in line."""
    return [pixels(event.image) for event in run(model, request) if isinstance(event, ImageReady)]


def stock(pipe: WanPipeline, request: GenerationRequest) -> Pixels:
    """What diffusers' own pipeline makes of a request for one image."""
    output = pipe(
        request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_frames=1,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="pil",
    )
    return pixels(output.frames[0][0])  # type: ignore[union-attr, index]
