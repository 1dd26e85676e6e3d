"""Generate many pictures at once with a Wan pipeline, as fast as the mathematics allows.

The same pictures as the stock `WanPipeline` call, seed by seed, but batched and with prompts
at their true length. Knows nothing of training.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import WanPipeline
from torch import Tensor

from training.denoiser import denoise, padding_bias
from training.one_frame import OneFrameVAE

FAST_SIGMAS = (1.0, 0.9, 0.75, 0.5)
LORA_FILE = "fast_lora.safetensors"


def load_pipeline(folder: Path, fast: bool, device: str) -> WanPipeline:
    """Load an exported folder in fp32, with the few-step LoRA fused in if `fast`."""
    pipe = WanPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    if fast:
        pipe.load_lora_weights(str(folder), weight_name=LORA_FILE)
        pipe.fuse_lora(components=["transformer"])
        pipe.unload_lora_weights()
    return pipe


def noise_for(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """One generator an image, on the CPU, so that a seed means the same picture everywhere."""
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(draws)


def encode_prompts(pipe: WanPipeline, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token states (n, width, dim), zero after the end of each prompt, and the padding bias."""
    tokens = pipe.tokenizer(list(prompts), padding=True, return_tensors="pt").to(pipe.device)
    states = pipe.text_encoder(**tokens).last_hidden_state * tokens.attention_mask[..., None]
    states = torch.nn.functional.pad(states, (0, 0, 0, 1))
    return states, padding_bias(tokens.attention_mask.sum(1), states.shape[1])


@torch.inference_mode()
def latents_for(
    pipe: WanPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    size: tuple[int, int] = (256, 256),
) -> Tensor:
    """Denoise one batch; 4 steps without guidance means the few-step recipe."""
    scale = pipe.vae.config["scale_factor_spatial"]
    shape = (pipe.transformer.config["in_channels"], size[0] // scale, size[1] // scale)
    x = noise_for(seeds, shape).to(pipe.device)
    text, bias = encode_prompts(pipe, prompts)
    empty, empty_bias = encode_prompts(pipe, [""] * len(prompts))
    if guidance <= 1:
        sigmas = [*FAST_SIGMAS, 0.0]
        for now, after in pairwise(sigmas):
            at = torch.full((len(x),), now, device=x.device)
            x = x + (after - now) * denoise(pipe.transformer, x, at, text, bias)
        return x
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        at = (t / 1000).expand(len(x)).to(x.device)
        velocity = denoise(pipe.transformer, x, at, empty, empty_bias)
        told = denoise(pipe.transformer, x, at, text, bias)
        x = scheduler.step(velocity + guidance * (told - velocity), t, x, return_dict=False)[0]
    return x


@torch.inference_mode()
def decode(pipe: WanPipeline, latents: Tensor) -> Tensor:
    """Turn normalised latents (n, z, h, w) into pictures (n, 3, H, W) in [0, 1]."""
    mean, std = (
        torch.tensor(pipe.vae.config[key], device=latents.device).view(-1, 1, 1)
        for key in ("latents_mean", "latents_std")
    )
    vae = OneFrameVAE(copy.deepcopy(pipe.vae))
    return vae.decode(latents * std + mean).clamp(-1, 1) / 2 + 0.5


def generate(
    pipe: WanPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    batch: int = 64,
) -> Tensor:
    """Generate a picture for every prompt and seed: (n, 3, 256, 256) in [0, 1], on the CPU."""
    pictures = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        latents = latents_for(pipe, prompts[part], seeds[part], steps, guidance)
        pictures.append(decode(pipe, latents).cpu())
    return torch.cat(pictures)
