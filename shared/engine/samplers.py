"""One step of one image along its own noise schedule.

A scheduler object of diffusers holds state (UniPC: the history of its steps), so that every image
has one of its own and joins or leaves the batch with it. A re-noising sampler draws from the
image's own generator, the one that drew its first noise, so that a seed repeats exactly in any
batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_lcm import FlowMatchLCMScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from shared.checkpoints import Checkpoint, SchedulerName


def recipe_sigmas(checkpoint: Checkpoint, steps: int) -> list[float] | None:
    """The noise levels of a few-step recipe, or None where the scheduler spaces them itself.

    At the recipe's own number of steps they are the ones it was distilled at; at another number
    they are spaced evenly and shifted once: sigma' = shift * sigma / (1 + (shift - 1) * sigma).
    """
    if checkpoint.sigmas is None:
        return None
    if len(checkpoint.sigmas) == steps:
        return list(checkpoint.sigmas)
    even = np.linspace(1, 1 / steps, steps)
    return (checkpoint.shift * even / (1 + (checkpoint.shift - 1) * even)).tolist()


def _unipc(shift: float, config: dict[str, Any]) -> Any:
    own = config if config.get("_class_name") == "UniPCMultistepScheduler" else {}
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return UniPCMultistepScheduler.from_config({**own, **flow})


# What makes each of them, from a flow shift and the checkpoint's own configuration.
_SCHEDULERS: dict[SchedulerName, Callable[[float, dict[str, Any]], Any]] = {
    "unipc": _unipc,
    "euler": lambda shift, _: FlowMatchEulerDiscreteScheduler(shift=shift),
    "lcm": lambda shift, _: FlowMatchLCMScheduler(shift=shift),
}


def make_scheduler(
    checkpoint: Checkpoint, name: SchedulerName, steps: int, config: dict[str, Any]
) -> Any:
    """A fresh scheduler, its timesteps set; `config` is the checkpoint's own configuration.

    Without recipe sigmas, "unipc" and "euler" space their steps as `WanPipeline` does with
    `UniPCMultistepScheduler(flow_shift=shift)` or `FlowMatchEulerDiscreteScheduler(shift=shift)`.
    Recipe sigmas are shifted already, hence the shift of 1 beside them.
    """
    sigmas = recipe_sigmas(checkpoint, steps)
    shift = checkpoint.shift if sigmas is None else 1.0
    scheduler = _SCHEDULERS[name](shift, config)
    if sigmas is None:
        scheduler.set_timesteps(steps)
    else:
        scheduler.set_timesteps(sigmas=np.array(sigmas))
    return scheduler


class Sampler:
    """The noise schedule of one image: which timestep comes next, and the step itself."""

    def __init__(self, scheduler: Any, generator: torch.Generator) -> None:
        self.scheduler = scheduler
        self.scheduler.set_begin_index(0)
        self.timesteps: list[float] = scheduler.timesteps.tolist()
        self.sigmas: list[float] = scheduler.sigmas.tolist()
        self._options: dict[str, Any] = {"return_dict": False}
        if isinstance(scheduler, FlowMatchLCMScheduler):
            self._options["generator"] = generator

    def estimate(self, step: int, flow: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The picture that this step believes in: x0 = x - sigma * v."""
        return latents - self.sigmas[step] * flow

    def advance(self, step: int, flow: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents at the next noise level."""
        return self.scheduler.step(flow, self.scheduler.timesteps[step], latents, **self._options)[
            0
        ]
