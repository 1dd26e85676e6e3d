"""Run a WanTransformer3DModel fast and exactly as the stock pipeline would.

The stock pipeline pads every prompt with zero embeddings to 512 tokens and attends to all of
them. Equal tokens have equal keys and values, so n of them equal one whose logit is raised by
log(n): short captions then cost what they weigh. Knows nothing of training or data.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

PROMPT_TOKENS = 512


def math_attention():
    """Plain attention: on a CPU the backward of the fused kernel took a third of a step."""
    return sdpa_kernel(SDPBackend.MATH)


def padding_bias(lengths: Tensor, width: int) -> Tensor:
    """Return what to add to text logits (n, 1, 1, width) so that width acts as 512 tokens.

    `lengths` (n,) counts the real tokens of each prompt; the columns after them are padding,
    of which there must be at least one.
    """
    columns = torch.arange(width, device=lengths.device)
    present = width - lengths
    bias = torch.log((PROMPT_TOKENS - lengths) / present)
    return torch.where(columns < lengths[:, None], 0.0, bias[:, None])[:, None, None]


def mute_padding(transformer: WanTransformer3DModel, scale: float = 0.003) -> None:
    """Start an untrained transformer off with its padding tokens almost unheard.

    Otherwise some 500 equal padding tokens drown the 10 real ones, and text is learned late.
    A padding embedding is made zero, so its key is the key bias alone, which normalisation
    blows up to full size along a random direction; queries are biased away from it.
    """
    text = transformer.condition_embedder.text_embedder
    for linear in (text.linear_1, text.linear_2):
        torch.nn.init.zeros_(linear.bias)
    blocks: Any = transformer.blocks
    for block in blocks:
        direction = torch.randn_like(block.attn2.to_k.bias).sign()
        block.attn2.to_k.bias.data = scale * direction
        block.attn2.to_q.bias.data = -1.5 * direction
        torch.nn.init.zeros_(block.attn2.to_v.bias)


def denoise(
    model: WanTransformer3DModel, latents: Tensor, sigmas: Tensor, text: Tensor, bias: Tensor
) -> Tensor:
    """Predict noise - picture for latents (n, z, h, w) at sigmas (n,) in [0, 1].

    `text` (n, width, dim) are token states with zeros after the end, `bias` their padding bias.
    """
    n, _, height, width = latents.shape
    _, ph, pw = model.config["patch_size"]
    rotary = model.rope(latents.unsqueeze(2))
    x = model.patch_embedding(latents.unsqueeze(2)).flatten(2).mT
    temb, projected, text, _ = model.condition_embedder(1000 * sigmas, text, None)
    modulation = projected.float().unflatten(1, (6, -1))
    for block in model.blocks:
        x = _block(block, x, text, modulation, rotary, bias)
    shift, scale = (model.scale_shift_table + temb.float().unsqueeze(1)).chunk(2, dim=1)
    x = model.norm_out(x.float()) * (1 + scale) + shift
    x = model.proj_out(x.to(latents.dtype))
    x = x.view(n, height // ph, width // pw, ph, pw, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(latents.shape)


def _block(block, x, text, modulation, rotary, bias):
    dtype = text.dtype
    a_shift, a_scale, a_gate, f_shift, f_scale, f_gate = (
        block.scale_shift_table + modulation
    ).unbind(1)
    h = block.norm1(x.float()) * (1 + a_scale[:, None]) + a_shift[:, None]
    x = x.float() + _attend(block.attn1, h.to(dtype), None, rotary, None) * a_gate[:, None]
    h = block.norm2(x)
    x = x + _attend(block.attn2, h.to(dtype), text, None, bias)
    h = block.norm3(x) * (1 + f_scale[:, None]) + f_shift[:, None]
    return x + block.ffn(h.to(dtype)) * f_gate[:, None]


def _attend(attention, x, context, rotary, bias):
    context = x if context is None else context
    shape = (attention.heads, -1)
    q = attention.norm_q(attention.to_q(x)).unflatten(2, shape)
    k = attention.norm_k(attention.to_k(context)).unflatten(2, shape)
    v = attention.to_v(context).unflatten(2, shape)
    if rotary is not None:
        q, k = _rotate(q, *rotary), _rotate(k, *rotary)
    q, k, v = (t.transpose(1, 2).to(v.dtype) for t in (q, k, v))
    mask = None if bias is None else bias.to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attention.to_out[0](out.transpose(1, 2).flatten(2))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
