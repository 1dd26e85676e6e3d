"""The other side of the comparison: what anyone would write with diffusers' own `WanPipeline`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from PIL import Image

from shared.checkpoints import Checkpoint, get_checkpoint


def load(checkpoint: Checkpoint) -> Any:
    """The pipeline in fp32, with the checkpoint's few-step recipe if it has one."""
    pipe: Any = WanPipeline.from_pretrained(str(checkpoint.folder), dtype=torch.float32)
    if checkpoint.lora:
        pipe.load_lora_weights(str(checkpoint.folder), weight_name=checkpoint.lora.filename)
        pipe.fuse_lora(lora_scale=checkpoint.lora.strength)
    if checkpoint.sigmas:
        # The recipe's noise levels are shifted already; the pipeline has no argument for them.
        scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=1.0)
        scheduler.set_timesteps = partial(scheduler.set_timesteps, sigmas=list(checkpoint.sigmas))
        pipe.scheduler = scheduler
    return pipe


def draw(
    pipe: Any, checkpoint: Checkpoint, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    """One picture a prompt, all in one call."""
    frames = pipe(
        list(prompts),
        height=checkpoint.height,
        width=checkpoint.width,
        num_frames=1,
        num_inference_steps=checkpoint.steps,
        guidance_scale=checkpoint.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="pil",
    ).frames
    return [clip[0] for clip in frames]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--checkpoint", type=get_checkpoint, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pipe = load(arguments.checkpoint)
    [picture] = draw(pipe, arguments.checkpoint, [arguments.prompt], [arguments.seed])
    picture.save(arguments.out)
