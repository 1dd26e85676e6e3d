"""The same request gives the same picture as diffusers' own WanPipeline, whoever shares the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline

from shared.contract import GenerationRequest, parse_request
from shared.engine.core import Core, Generation
from shared.engine.loading import Model
from tests.engine.conftest import Pixels, pixels, psnr, solo, stock

SAME = 60  # dB

Ask = Callable[..., GenerationRequest]


def use(pipe: WanPipeline, scheduler: str, shift: float) -> None:
    if scheduler == "euler":
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    else:
        pipe.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )


def in_a_batch(model: Model, requests: list[GenerationRequest]) -> list[Pixels]:
    """The first picture of each request, when each joins one step after the one before."""
    core = Core(model)
    generations = [Generation(request) for request in requests]
    pictures: dict[Generation, Pixels] = {}
    joining = list(generations)
    while joining or core.images:
        if joining:
            core.start(joining.pop(0))
        advanced, failures = core.step()
        assert not failures
        for image in advanced:
            if image.done:
                pictures[image.generation] = pixels(core.finish(image).image)
    return [pictures[generation] for generation in generations]


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
def test_a_picture_is_the_pipelines(
    model: Model, pipeline: WanPipeline, ask: Ask, scheduler: str, guidance_scale: float
) -> None:
    request = ask(
        negative_prompt="the moon", scheduler=scheduler, guidance_scale=guidance_scale, steps=6
    )
    use(pipeline, scheduler, model.checkpoint.shift)
    (ours,) = solo(model, request)
    theirs = stock(pipeline, request)
    assert theirs.std() > 5, "a flat picture would prove nothing"
    assert psnr(ours, theirs) >= SAME


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
def test_a_picture_is_the_pipelines_among_three_strangers(
    model: Model, pipeline: WanPipeline, ask: Ask, scheduler: str
) -> None:
    requests = [
        ask("a castle", steps=3, guidance_scale=1.0, seed=1, scheduler=scheduler),
        ask(steps=5, guidance_scale=4.0, negative_prompt="flat design", scheduler=scheduler),
        ask("the moon over still water " * 8, steps=7, guidance_scale=9.0, seed=2),
        ask("a fox, " * 200, steps=2, guidance_scale=1.0, seed=3),
    ]
    use(pipeline, scheduler, model.checkpoint.shift)
    ours = in_a_batch(model, requests)[1]
    assert psnr(ours, stock(pipeline, requests[1])) >= SAME


def test_strangers_of_another_size_change_nothing(model: Model, ask: Ask) -> None:
    requests = [ask(), ask(width=32, height=32, steps=3), ask(width=80, height=16, steps=6)]
    together = in_a_batch(model, requests)
    for request, picture in zip(requests, together, strict=True):
        assert psnr(picture, solo(model, request)[0]) >= SAME


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
def test_the_embedded_checkpoints_picture_is_the_pipelines(
    tiny_model: Model, tiny_pipeline: WanPipeline, scheduler: str, guidance_scale: float
) -> None:
    first = {
        "prompt": "a red fox, 3d render, on a sky blue background",
        "negative_prompt": "cartoon",
        "seed": 3,
        "steps": 6,
        "guidance_scale": guidance_scale,
        "scheduler": scheduler,
    }
    requests = [
        parse_request(first),
        parse_request({"prompt": "a tree", "seed": 4, "steps": 4, "guidance_scale": 1.0}),
        parse_request({"prompt": "a blue car, sticker", "seed": 5, "steps": 8}),
        parse_request({"prompt": "an apple", "seed": 6, "steps": 3, "guidance_scale": 2.0}),
    ]
    use(tiny_pipeline, scheduler, tiny_model.checkpoint.shift)
    theirs = stock(tiny_pipeline, requests[0])
    assert psnr(solo(tiny_model, requests[0])[0], theirs) >= SAME
    assert psnr(in_a_batch(tiny_model, requests)[0], theirs) >= SAME


def test_a_seed_gives_the_same_picture_alone_and_as_one_of_four(model: Model, ask: Ask) -> None:
    four = solo(model, ask(num_images=4, seed=11))
    assert len(four) == 4
    for index, picture in enumerate(four):
        assert psnr(picture, solo(model, ask(seed=11 + index))[0]) >= SAME
    assert not np.array_equal(four[0], four[1])


def test_different_prompts_give_different_pictures(model: Model, ask: Ask) -> None:
    assert psnr(solo(model, ask())[0], solo(model, ask("a castle"))[0]) < 50
