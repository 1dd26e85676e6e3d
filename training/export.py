"""Write the trained parts as one self-contained folder that stock `WanPipeline` loads.

Reads `vae.pt`, `latents.pt`, `transformer.pt` and, if there is one, `lora.pt`. Knows nothing
of how they were trained.

    python -m training.export --out shared/weights/cygnet-tiny
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertModel, PreTrainedTokenizerBase

from training.data import RUNS, composite, load_icons, palette, shade
from training.distill import lora_config
from training.one_frame import OneFrameVAE, write_back
from training.sample import LORA_FILE
from training.text import load_text_encoder
from training.transformer import FLOW_SHIFT, load_transformer
from training.vae import load_vae, new_vae, training_icons

PREVIEW = 8


def export_vae(one_frame: OneFrameVAE, mean: Tensor, std: Tensor) -> AutoencoderKLWan:
    """Put the trained weights and the latents' statistics into a diffusers VAE."""
    vae = new_vae(latents_mean=mean.tolist(), latents_std=std.tolist())
    write_back(one_frame, vae)
    return vae


@torch.no_grad()
def fit_preview(one_frame: OneFrameVAE, mean: Tensor, std: Tensor, count: int = 400) -> dict:
    """Fit, by least squares, one normalised latent pixel -> a PREVIEW x PREVIEW block of RGB.

    Returns `weight` (z, 3 * k * k) and `bias` (3 * k * k) in float32: channel, row, column.
    """
    generator = torch.Generator().manual_seed(0)
    icons = training_icons(load_icons())
    icons = icons[torch.randperm(len(icons), generator=generator)[:count]]
    colours = palette()[torch.randint(len(palette()), (len(icons),), generator=generator)]
    latents, blocks = [], []
    for some, colour in zip(icons.split(50), colours.split(50), strict=True):
        pictures = composite(some, shade(colour, generator))
        z = (one_frame.encode(pictures)[0] - mean[:, None, None]) / std[:, None, None]
        n, _, rows, columns = z.shape
        small = torch.nn.functional.adaptive_avg_pool2d(
            pictures / 2 + 0.5, (rows * PREVIEW, columns * PREVIEW)
        )
        small = small.view(n, 3, rows, PREVIEW, columns, PREVIEW).permute(0, 2, 4, 1, 3, 5)
        latents.append(z.permute(0, 2, 3, 1).flatten(0, 2))
        blocks.append(small.flatten(3).flatten(0, 2))
    known = torch.cat(latents)
    known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
    solution = torch.linalg.lstsq(known, torch.cat(blocks)).solution
    return {"weight": solution[:-1].contiguous(), "bias": solution[-1].contiguous()}


def export_lora(path: Path, transformer_path: Path, folder: Path) -> None:
    """Save the LoRA as `WanPipeline.load_lora_weights` expects it."""
    model = load_transformer(transformer_path)
    saved = torch.load(path, map_location="cpu", weights_only=True)
    config: LoraConfig = lora_config(saved["rank"])
    model.add_adapter(config)
    parameters = dict(model.named_parameters())
    for name, value in zip(saved["names"], saved["lora"].values(), strict=True):
        parameters[name].data = value
    layers: dict[str, Any] = {k: v.bfloat16() for k, v in get_peft_model_state_dict(model).items()}
    WanPipeline.save_lora_weights(folder, transformer_lora_layers=layers, weight_name=LORA_FILE)


def write_folder(
    out: Path,
    vae: AutoencoderKLWan,
    transformer: WanTransformer3DModel,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: BertModel,
) -> None:
    """Save the parts in diffusers' folder format, the trained ones in bf16."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
    )
    WanPipeline(
        tokenizer=tokenizer,  # type: ignore[arg-type]
        text_encoder=text_encoder,  # type: ignore[arg-type]
        vae=vae.bfloat16(),
        scheduler=scheduler,  # type: ignore[arg-type]
        transformer=transformer.bfloat16(),
    ).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=RUNS)
    args = parser.parse_args()
    bank = torch.load(args.runs / "latents.pt", weights_only=True)
    mean, std = bank["mean"], bank["std"]
    one_frame = load_vae(args.runs / "vae.pt")
    transformer = load_transformer(args.runs / "transformer.pt")
    write_folder(args.out, export_vae(one_frame, mean, std), transformer, *load_text_encoder())
    save_file(fit_preview(one_frame, mean, std), args.out / "latent_rgb.safetensors")
    if (args.runs / "lora.pt").exists():
        export_lora(args.runs / "lora.pt", args.runs / "transformer.pt", args.out)
    for file in sorted(p for p in args.out.rglob("*") if p.is_file()):
        print(f"{file.stat().st_size / 1e6:8.2f} MB  {file.relative_to(args.out)}")


if __name__ == "__main__":
    main()
