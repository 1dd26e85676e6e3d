"""Samplers step along the noise levels they were given, and repeat exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from shared.checkpoints import Checkpoint, SchedulerName, get_checkpoint
from shared.contract import GenerationRequest
from shared.engine.loading import Model
from shared.engine.samplers import Sampler, make_scheduler, recipe_sigmas
from tests.engine.conftest import psnr, solo

Ask = Callable[..., GenerationRequest]


def sampler(checkpoint: Checkpoint, name: SchedulerName, steps: int, seed: int = 0) -> Sampler:
    generator = torch.Generator().manual_seed(seed)
    return Sampler(make_scheduler(checkpoint, name, steps, {}), generator)


@pytest.mark.parametrize("name", ["unipc", "euler", "lcm"])
def test_a_few_step_recipe_runs_at_the_noise_levels_it_was_distilled_at(
    name: SchedulerName,
) -> None:
    recipe = get_checkpoint("wan2.1-14b-fast")
    assert recipe.sigmas is not None
    steps = sampler(recipe, name, len(recipe.sigmas))
    assert steps.sigmas == pytest.approx([*recipe.sigmas, 0.0], abs=2e-6)
    # UniPC rounds its timesteps down to whole numbers, as it does in the pipeline.
    assert steps.timesteps == pytest.approx([1000 * sigma for sigma in recipe.sigmas], abs=1)


def test_a_recipe_at_another_number_of_steps_is_shifted_once() -> None:
    recipe = get_checkpoint("wan2.1-14b-fast").model_copy(update={"sigmas": (1.0,)})
    # Shift 5 at 1, 3/4, 1/2, 1/4: what lightx2v's four steps are.
    assert recipe_sigmas(recipe, 4) == pytest.approx([1, 0.9375, 0.83333, 0.625], abs=1e-4)
    assert recipe_sigmas(get_checkpoint("wan2.1-14b"), 4) is None


def test_euler_moves_along_the_flow_by_the_difference_of_noise_levels() -> None:
    steps = sampler(get_checkpoint("cygnet-tiny-fast"), "euler", 4)
    latents, flow = torch.randn(2, 1, 4, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    moved = steps.advance(0, flow, latents)
    expected = latents + (steps.sigmas[1] - steps.sigmas[0]) * flow
    assert torch.allclose(moved, expected, atol=1e-6)
    assert torch.allclose(steps.estimate(1, flow, moved), moved - steps.sigmas[1] * flow)


def test_re_noising_mixes_the_estimate_with_the_images_own_noise() -> None:
    steps = sampler(get_checkpoint("wan2.1-1.3b-fast"), "lcm", 3, seed=5)
    latents, flow = torch.randn(2, 1, 4, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    sigma = steps.sigmas[1]
    expected = (1 - sigma) * (latents - flow) + sigma * fresh
    assert torch.allclose(steps.advance(0, flow, latents), expected, atol=1e-6)


@pytest.mark.parametrize("scheduler", ["unipc", "euler", "lcm"])
def test_the_same_seed_repeats_exactly_and_another_does_not(
    model: Model, ask: Ask, scheduler: SchedulerName
) -> None:
    first, again = (solo(model, ask(scheduler=scheduler))[0] for _ in range(2))
    assert (first == again).all()
    assert psnr(first, solo(model, ask(scheduler=scheduler, seed=8))[0]) < 40


def test_a_re_noised_picture_is_the_same_alone_and_as_one_of_four(model: Model, ask: Ask) -> None:
    four = solo(model, ask(scheduler="lcm", num_images=4))
    alone = [solo(model, ask(scheduler="lcm", seed=7 + index))[0] for index in range(4)]
    assert all(psnr(one, other) >= 60 for one, other in zip(four, alone, strict=True))


def test_images_share_no_scheduler_state(model: Model, ask: Ask) -> None:
    whole = solo(model, ask(steps=5))[0]
    solo(model, ask(steps=9, scheduler="unipc"))
    assert (solo(model, ask(steps=5))[0] == whole).all()
