"""One transformer forward over a batch of images, each at its own timestep, guided or not.

The forward of diffusers' `WanTransformer3DModel` computes the text's keys and values again at every
step. `velocity` walks through the same modules with keys and values that were computed once
(`text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from shared.engine.text import TextAttention, TextKeys, stack


def prepare(transformer: WanTransformer3DModel) -> None:
    """Make the transformer's cross-attention take ready keys and values, as `velocity` needs."""
    blocks: Any = transformer.blocks
    for block in blocks:
        block.attn2.set_processor(TextAttention())


def velocity(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    text: TextKeys,
) -> torch.Tensor:
    """The predicted flow (noise minus picture) of each row.

    `latents`: (rows, channels, 1, height, width); `timesteps`: (rows), 0 to 1000; `text`: stacked
    to as many rows. Returns a tensor of the shape of `latents`, in float32.
    """
    rotary = transformer.rope(latents)
    hidden = transformer.patch_embedding(latents.to(transformer.dtype))
    rows, _, frames, height, width = hidden.shape
    hidden = hidden.flatten(2).transpose(1, 2).contiguous()

    no_text = hidden.new_zeros(rows, 0, transformer.config["text_dim"])
    time, modulation, _, _ = transformer.condition_embedder(timesteps, no_text)
    modulation = modulation.unflatten(1, (6, -1))

    for block, keys, values in zip(transformer.blocks, text.keys, text.values, strict=True):
        hidden = block(hidden, (keys, values, text.bias), modulation, rotary)

    shift, scale = (transformer.scale_shift_table + time[:, None]).chunk(2, dim=1)
    hidden = (transformer.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
    patches = transformer.proj_out(hidden).float()

    _, rows_per_patch, columns_per_patch = transformer.config["patch_size"]
    grid = patches.view(rows, frames, height, width, rows_per_patch, columns_per_patch, -1)
    return grid.permute(0, 6, 1, 2, 4, 3, 5).reshape(latents.shape)


def guided_velocity(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timesteps: Sequence[float],
    prompts: Sequence[TextKeys],
    negative_prompts: Sequence[TextKeys | None],
    guidance_scales: Sequence[float],
) -> torch.Tensor:
    """The flow of each image under classifier-free guidance (Ho and Salimans 2022).

    An image with a negative prompt gets a second row in the same forward, and its flow is
    v = v_negative + scale * (v_prompt - v_negative); the others cost one row.
    """
    guided = [index for index, negative in enumerate(negative_prompts) if negative is not None]
    rows = [*prompts, *(negative for negative in negative_prompts if negative is not None)]
    times = torch.tensor(
        [*timesteps, *(timesteps[index] for index in guided)], device=latents.device
    )
    flow = velocity(transformer, torch.cat([latents, latents[guided]]), times, stack(rows))
    conditional, unconditional = flow[: len(prompts)], flow[len(prompts) :]
    scales = torch.tensor([guidance_scales[index] for index in guided], device=latents.device)
    result = conditional.clone()
    result[guided] = unconditional + scales.view(-1, 1, 1, 1, 1) * (
        conditional[guided] - unconditional
    )
    return result
