"""One transformer block as a program for compilers that work ahead of time, and its use.

The blocks differ in nothing but their weights, so that one program does for all of them. It is for
one shape of hidden states, that of the checkpoint's recipe, and for a text of any length; in other
shapes the blocks run as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from shared.engine.denoising import velocity
from shared.engine.loading import Model
from shared.engine.text import MAX_TOKENS, stack

Forward = Callable[..., torch.Tensor]
Text = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_EIGHT = 8
"""CUDA's attention pads a bias whose length is no multiple of this. A program exported with that
padding inside would not hold for all lengths (github.com/pytorch/pytorch/issues/124502), so that
the text comes padded."""


def recipe_forward(model: Model) -> torch.Tensor:
    """The flow of one picture of the checkpoint's default size and guidance; of what, is no matter."""
    recipe, scale, rows = model.checkpoint, model.latent_scale, _rows(model)
    shape = (rows, model.latent_channels, 1, recipe.height // scale, recipe.width // scale)
    latents = torch.zeros(shape, device=model.device)
    text = stack([model.prompts.encode("")] * rows)
    return velocity(model.transformer, latents, torch.zeros(rows, device=model.device), text)


def export_block(model: Model) -> torch.export.ExportedProgram:
    """The first block, as the recipe calls it."""
    block = _blocks(model)[0]
    calls: list[Any] = []
    watching = block.register_forward_pre_hook(lambda _, arguments: calls.append(arguments))
    try:
        recipe_forward(model)
    finally:
        watching.remove()
    ((hidden, text, modulation, rotary),) = calls
    length = _EIGHT * torch.export.Dim("eights", max=1 + MAX_TOKENS // _EIGHT)
    lengths = (None, ({1: length}, {1: length}, {3: length}), None, (None, None))
    arguments = (hidden, padded(text), modulation, rotary)
    return torch.export.export(block, arguments, dynamic_shapes=lengths)


def forwards(model: Model) -> list[Forward]:
    """What each block does when it is called."""
    return [block.forward for block in _blocks(model)]


def keep_for_other_shapes(model: Model, ordinary: Sequence[Forward]) -> None:
    """Of blocks whose `forward` was replaced by a compiled `export_block`: use it where it fits."""
    shape = (_rows(model), model.tokens(model.checkpoint.width, model.checkpoint.height))
    for block, before in zip(_blocks(model), ordinary, strict=True):
        block.forward = _chosen(block.forward, before, shape)


def padded(text: Text) -> Text:
    """Keys, values and bias with positions that weigh nothing, up to a multiple of eight.

    To two eights at least: torch exports no dimension that is 1 in its example.
    """
    keys, values, bias = text
    length = bias.shape[-1]
    missing = max(2 * _EIGHT - length, -length % _EIGHT)
    return (
        F.pad(keys, (0, 0, 0, missing)),
        F.pad(values, (0, 0, 0, missing)),
        F.pad(bias, (0, missing), value=-torch.inf),
    )


def _chosen(compiled: Forward, ordinary: Forward, shape: tuple[int, int]) -> Forward:
    def forward(hidden: torch.Tensor, text: Text, *others: Any) -> torch.Tensor:
        if hidden.shape[:2] != shape:
            return ordinary(hidden, text, *others)
        return compiled(hidden, padded(text), *others)

    return forward


def _rows(model: Model) -> int:
    return 2 if model.checkpoint.guidance_scale > 1 else 1


def _blocks(model: Model) -> list[Any]:
    return list(model.transformer.blocks)
