"""AutoencoderKLWan on one frame, as 2-D convolutions.

On one frame the causal padding of every 3-D kernel is zeros in front, so only the last temporal
tap acts. The same mathematics in 2-D takes a third of the work and compiles well; bf16
`conv3d` backward also crashes on some CPUs. Knows nothing of data, losses or files.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanAttentionBlock,
    WanCausalConv3d,
    WanResample,
    WanResidualBlock,
    WanResidualDownBlock,
    WanResidualUpBlock,
    WanRMS_norm,
    WanUpBlock,
)
from torch import Tensor, nn


class LastTap(nn.Module):
    """The last temporal tap of a causal convolution, its kernel kept as one matrix.

    A matrix (out, in * k * k), because that is the shape that Muon works on.
    """

    def __init__(self, conv: WanCausalConv3d) -> None:
        super().__init__()
        self.size: int = conv.kernel_size[-1]
        self.matrix = nn.Parameter(conv.weight.data[:, :, -1].flatten(1).clone())
        assert conv.bias is not None
        self.bias = nn.Parameter(conv.bias.data.clone())

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.matrix.unflatten(1, (-1, self.size, self.size))
        return F.conv2d(x, kernel, self.bias, padding=self.size // 2)

    def write_to(self, conv: WanCausalConv3d) -> None:
        """Put the tap back into its 3-D convolution; the taps that never act become zero."""
        weight = torch.zeros_like(conv.weight.data)
        weight[:, :, -1] = self.matrix.data.view_as(weight[:, :, -1])
        conv.weight.data = weight


class OneFrameVAE(nn.Module):
    """The encoder and decoder of a Wan VAE for pictures (n, 3, h, w) in [-1, 1]."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.patch = int(vae.config["patch_size"] or 1)
        self.encoder: Any = _without_time(vae.encoder)
        self.decoder: Any = _without_time(vae.decoder)
        self.quant_conv = LastTap(vae.quant_conv)
        self.post_quant_conv = LastTap(vae.post_quant_conv)

    def encode(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each (n, z, h / scale, w / scale)."""
        x = _fold(picture, self.patch)
        x = self.encoder.conv_in(x)
        for block in self.encoder.down_blocks:
            x = _run(block, x)
        x = _head(self.encoder, _middle(self.encoder.mid_block, x))
        mean, log_variance = self.quant_conv(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latent: Tensor) -> Tensor:
        """Return pictures, not clamped, so that the loss keeps its gradient at white."""
        x = self.decoder.conv_in(self.post_quant_conv(latent))
        x = _middle(self.decoder.mid_block, x)
        for block in self.decoder.up_blocks:
            x = _run(block, x)
        return _unfold(_head(self.decoder, x), self.patch)


def write_back(one_frame: OneFrameVAE, vae: AutoencoderKLWan) -> None:
    """Copy the weights of the 2-D form into a diffusers model of the same configuration."""
    trained = one_frame.state_dict()
    for name, module in vae.named_modules():
        if isinstance(module, WanCausalConv3d):
            tap = one_frame.get_submodule(name)
            assert isinstance(tap, LastTap)
            tap.write_to(module)
    state = vae.state_dict()
    vae.load_state_dict({name: trained.get(name, own) for name, own in state.items()})


def _without_time(module: nn.Module) -> Any:
    for name, child in module.named_children():
        if isinstance(child, WanCausalConv3d):
            setattr(module, name, LastTap(child))
        else:
            _without_time(child)
    return module


def _fold(x: Tensor, patch: int) -> Tensor:
    # diffusers puts the column offset before the row offset, unlike F.pixel_unshuffle.
    n, c, h, w = x.shape
    x = x.view(n, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 1, 5, 3, 2, 4).reshape(n, c * patch * patch, h // patch, w // patch)


def _unfold(x: Tensor, patch: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.view(n, c // patch**2, patch, patch, h, w)
    return x.permute(0, 1, 4, 3, 5, 2).reshape(n, c // patch**2, h * patch, w * patch)


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(norm, WanRMS_norm)
    scale = norm.gamma.view(1, -1, 1, 1) * norm.scale
    return F.normalize(x.float(), dim=1).to(x.dtype) * scale.to(x.dtype)


def _run(block: nn.Module, x: Tensor) -> Tensor:
    if isinstance(block, WanResidualBlock):
        h = block.conv1(F.silu(_norm(block.norm1, x)))
        h = block.conv2(F.silu(_norm(block.norm2, h)))
        return h + block.conv_shortcut(x)
    if isinstance(block, WanResidualDownBlock | WanResidualUpBlock):
        h = x
        for resnet in block.resnets:
            h = _run(resnet, h)
        down = isinstance(block, WanResidualDownBlock)
        resampler = block.downsampler if down else block.upsampler
        h = h if resampler is None else resampler.resample(h)
        shortcut = block.avg_shortcut
        return h if shortcut is None else h + shortcut(x.unsqueeze(2)).squeeze(2)
    if isinstance(block, WanUpBlock):
        for part in (*block.resnets, *(block.upsamplers or ())):
            x = _run(part, x)
        return x
    if isinstance(block, WanResample):
        return block.resample(x)
    assert isinstance(block, WanAttentionBlock)
    q, k, v = block.to_qkv(_norm(block.norm, x)).flatten(2).mT.unsqueeze(1).chunk(3, dim=-1)
    out = F.scaled_dot_product_attention(q, k, v).squeeze(1).mT.reshape(x.shape)
    return block.proj(out) + x


def _middle(mid: Any, x: Tensor) -> Tensor:
    x = _run(mid.resnets[0], x)
    for attention, resnet in zip(mid.attentions, mid.resnets[1:], strict=True):
        x = _run(resnet, _run(attention, x))
    return x


def _head(coder: Any, x: Tensor) -> Tensor:
    return coder.conv_out(F.silu(_norm(coder.norm_out, x)))
