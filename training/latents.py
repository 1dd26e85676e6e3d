"""A bank of normalised latents: every training icon on every background, encoded once.

Reads `icons.pt` and `vae.pt`, writes `latents.pt`. Knows nothing of captions.

    python -m training.latents
"""

import argparse

import torch
from torch import Tensor

from training.data import (
    STYLES,
    composite,
    is_held_out,
    load_icons,
    palette,
    read_subjects,
    shade,
)
from training.one_frame import OneFrameVAE
from training.options import add_place
from training.vae import load_vae


def pair_mask() -> Tensor:
    """(subjects, styles) booleans: which pairs are for training."""
    return torch.tensor(
        [[not is_held_out(s.icon, style) for style in STYLES] for s in read_subjects()]
    )


@torch.no_grad()
def encode_bank(
    vae: OneFrameVAE, icons: Tensor, variants: int, device: str, seed: int = 0
) -> dict[str, Tensor]:
    """Encode pairs x colours x variants; return latents, their mean and std per channel."""
    generator = torch.Generator().manual_seed(seed)
    colours = palette().repeat_interleave(variants, 0)
    pairs = pair_mask().nonzero()
    bank = []
    for row, column in pairs.tolist():
        backgrounds = shade(colours, generator)
        pictures = composite(icons[row, column].expand(len(colours), -1, -1, -1), backgrounds)
        pictures = pictures.to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            bank.append(vae.encode(pictures)[0].float().cpu())
    latents = torch.stack(bank)
    mean, std = latents.mean(dim=(0, 1, 3, 4)), latents.std(dim=(0, 1, 3, 4))
    normal = (latents - mean[:, None, None]) / std[:, None, None]
    shape = (len(pairs), len(palette()), variants, *normal.shape[2:])
    return {"latents": normal.view(shape).half(), "pairs": pairs, "mean": mean, "std": std}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=1)
    add_place(parser)
    args = parser.parse_args()
    vae = load_vae(args.runs / "vae.pt").to(args.device)
    bank = encode_bank(vae, load_icons(args.runs / "icons.pt"), args.variants, args.device)
    torch.save(bank, args.runs / "latents.pt")
    print(f"{tuple(bank['latents'].shape)}, std {bank['std'].min():.3f} to {bank['std'].max():.3f}")


if __name__ == "__main__":
    main()
