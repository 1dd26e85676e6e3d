"""Latents become pictures: the VAE's decoder for one frame, and a linear preview.

In Wan's causal 3-D convolutions the frames before the first are zeros, so that for a single frame
only the last temporal tap of each kernel acts. `FrameDecoder` keeps that tap as a 2-D convolution:
the same picture from a third of the weights and of the work.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanCausalConv3d,
    unpatchify,
)
from PIL import Image
from torch import nn


class FrameConv(nn.Module):
    """A causal 3-D convolution on one frame: (batch, channels, 1, height, width) in and out."""

    def __init__(self, conv: WanCausalConv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight[:, :, -1].detach().clone(), requires_grad=False)
        self.bias = conv.bias
        left, right, top, bottom = (int(side) for side in conv._padding[:4])
        self.padding = (top, left)
        if left != right or top != bottom or conv.stride[1:] != (1, 1):
            raise ValueError(
                "only convolutions of stride 1 with even padding have a one-frame form here"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x[:, :, 0], self.weight, self.bias, padding=self.padding)[:, :, None]


class FrameDecoder(nn.Module):
    """The decoder of a Wan VAE for clips of one frame; the encoder is let go."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.post_quant_conv = FrameConv(vae.post_quant_conv)
        self.decoder = vae.decoder
        for parent in list(self.decoder.modules()):
            for name, child in parent.named_children():
                # The temporal upsampling convolutions do nothing before the second frame.
                if isinstance(child, WanCausalConv3d) and name != "time_conv":
                    setattr(parent, name, FrameConv(child))
        self.patch_size: int = vae.config["patch_size"] or 1
        mean, std = latent_statistics(vae)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mean: torch.Tensor
        self.std: torch.Tensor

    @torch.inference_mode()
    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures of (batch, 3, height, width) in [-1, 1] from normalised latents of one frame."""
        latents = (latents * self.std + self.mean).to(self.post_quant_conv.weight.dtype)
        pixels = self.decoder(self.post_quant_conv(latents), first_chunk=True)
        return unpatchify(pixels, self.patch_size)[:, :, 0].clamp(-1, 1)


def latent_statistics(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel: (1, channels, 1, 1, 1)."""
    config: Any = vae.config
    mean, std = (torch.tensor(values) for values in (config.latents_mean, config.latents_std))
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)


def to_image(pixels: torch.Tensor) -> Image.Image:
    """A picture of (3, height, width) in [-1, 1] as 8-bit RGB."""
    levels = (pixels.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())


class PreviewMap:
    """A linear map from each latent pixel to a small block of colours.

    `weight`: (channels, 3 * k * k) and `bias`: (3 * k * k), colours in [0, 1] ordered (colour, row,
    column).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.block = round((len(bias) / 3) ** 0.5)

    def __call__(self, latents: torch.Tensor) -> Image.Image:
        """A small picture of one image's normalised latents: (1, channels, 1, height, width)."""
        grid = latents[0, :, 0].permute(1, 2, 0).float()
        colours = (grid @ self.weight + self.bias).permute(2, 0, 1)
        return to_image(F.pixel_shuffle(colours, self.block) * 2 - 1)


@torch.inference_mode()
def fit_preview(vae: AutoencoderKLWan) -> PreviewMap:
    """A preview map by least squares on the VAE's own encoding of a field of soft colours.

    For checkpoints that bring no map. It has k = scale / 8, an eighth of the picture's size.
    """
    scale: int = vae.config["scale_factor_spatial"]
    block, side = max(1, scale // 8), 32 * scale  # 1024 latent pixels to fit to
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(1, 3, side, side)
    for cells in (4, 16, 64):
        coarse = torch.rand(1, 3, cells, cells, generator=generator) - 0.5
        pixels += F.interpolate(coarse, size=(side, side), mode="bilinear")
    pixels = pixels.clamp(-1, 1).to(vae.device, vae.dtype)
    mean, std = (statistic.to(vae.device) for statistic in latent_statistics(vae))
    encoded: Any = vae.encode(pixels[:, :, None])
    latents = (encoded.latent_dist.mode() - mean) / std
    inputs = latents[0, :, 0].flatten(1).T.float()
    small = F.interpolate(pixels.float() / 2 + 0.5, scale_factor=block / scale, mode="area")
    targets = F.pixel_unshuffle(small, block)[0].flatten(1).T
    ones = torch.ones(len(inputs), 1, device=inputs.device)
    solution = torch.linalg.lstsq(torch.cat([inputs, ones], 1).cpu(), targets.cpu()).solution
    return PreviewMap(solution[:-1].to(vae.device), solution[-1].to(vae.device))
