"""Train the autoencoder on the rasterised icons, one frame, in two dimensions.

Reads `icons.pt`, writes `vae.pt` (resumable) and `vae-look.png` (originals over
reconstructions). Knows nothing of captions or of the transformer.

    python -m training.vae --minutes 32
"""

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from PIL import Image
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
from training.one_frame import LastTap, OneFrameVAE
from training.optim import Average, Clock, Optimisers, compiled, resume, save
from training.options import add_training

# 256 px -> folded 8x8 -> two halvings: one latent pixel stands for 32 x 32 pixels. Folding this
# much keeps every feature map at 32 x 32 or less, where a CPU is at its best.
VAE_CONFIG: dict[str, Any] = dict(
    base_dim=64,
    decoder_base_dim=128,
    z_dim=48,
    dim_mult=[1, 1, 1],
    num_res_blocks=1,
    attn_scales=[],
    temperal_downsample=[False, False],
    in_channels=192,
    out_channels=192,
    patch_size=8,
    is_residual=True,
    scale_factor_temporal=4,
    scale_factor_spatial=32,
    latents_mean=[0.0] * 48,
    latents_std=[1.0] * 48,
)


def new_vae(**overrides: Any) -> AutoencoderKLWan:
    """Build an untrained VAE whose latents start almost noiseless, so that it learns at once."""
    vae = AutoencoderKLWan(**(VAE_CONFIG | overrides))
    assert vae.quant_conv.bias is not None
    vae.quant_conv.bias.data[vae.z_dim :] = -4.0
    return vae


def load_vae(path: Path) -> OneFrameVAE:
    """Load the averaged weights that `train` saved, ready to encode and decode."""
    average = Average(OneFrameVAE(new_vae()), 0.0)
    average.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
    return average.module.eval()


def training_icons(icons: Tensor) -> Tensor:
    """Every icon whose (subject, style) pair is not held out, as (n, 4, size, size)."""
    keep = [
        icons[row, column]
        for row, subject in enumerate(read_subjects())
        for column, style in enumerate(STYLES)
        if not is_held_out(subject.icon, style)
    ]
    return torch.stack(keep)


def random_pictures(icons: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Icons at random on random backgrounds, moved a little and mirrored half of the time."""
    pick = torch.randint(len(icons), (count,), generator=generator)
    colours = palette()
    named = colours[torch.randint(len(colours), (count,), generator=generator)]
    anywhere = 255 * torch.rand(count, 3, generator=generator)
    use_named = torch.rand(count, 1, generator=generator) < 0.8
    backgrounds = torch.where(use_named, shade(named, generator), anywhere)
    pictures = composite(icons[pick], backgrounds)
    down, right = torch.randint(-8, 9, (2,), generator=generator).tolist()
    pictures = pictures.roll((down, right), dims=(2, 3))
    if torch.rand((), generator=generator) < 0.5:
        pictures = pictures.flip(3)
    return pictures.contiguous(memory_format=torch.channels_last)


def reconstruction_loss(vae: OneFrameVAE, pictures: Tensor, kl_weight: float) -> Tensor:
    """L1 on pixels and on their differences, which is what keeps edges sharp, and a little KL."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        mean, log_variance = vae.encode(pictures)
        spread = (0.5 * log_variance).exp()
        error = vae.decode(mean + spread * torch.randn_like(mean)).float() - pictures
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    mean, log_variance = mean.float(), log_variance.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    return error.abs().mean() + 0.5 * (across + down) + kl_weight * kl


@torch.no_grad()
def measure(vae: OneFrameVAE, pictures: Tensor, look: Path) -> float:
    """PSNR in dB over fixed pictures; also writes originals over reconstructions to `look`."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        again = vae.decode(vae.encode(pictures)[0]).float().clamp(-1, 1)
    rows = torch.cat([pictures[:16], again[:16]]).add(1).mul(127.5).byte().cpu()
    n, c, h, w = rows.shape
    sheet = rows.view(4, n // 4, c, h, w).permute(0, 3, 1, 4, 2).reshape(4 * h, -1, c)
    Image.fromarray(sheet.numpy()).save(look)
    mse = F.mse_loss(again, pictures, reduction="none").mean(dim=(1, 2, 3)) / 4
    return float(-10 * mse.log10().mean())


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    icons = training_icons(load_icons())
    vae = OneFrameVAE(new_vae()).to(args.device, memory_format=torch.channels_last)
    matrices = [m.matrix for m in vae.modules() if isinstance(m, LastTap) and m.size > 1]
    chosen = {id(m) for m in matrices}
    rest = [p for p in vae.parameters() if id(p) not in chosen]
    optimisers = Optimisers(matrices, rest, args.muon_lr, args.adam_lr)
    average, clock = Average(vae, 0.995), Clock(args.minutes)
    out = args.runs / "vae.pt"
    resume(out, model=vae, average=average, optimisers=optimisers, clock=clock)
    generator = torch.Generator().manual_seed(args.seed + clock.steps)
    fixed = random_pictures(icons, 64, torch.Generator().manual_seed(1)).to(args.device)
    loss_of = compiled(reconstruction_loss, args.compile)
    mean_loss = 0.0
    while not clock.done:
        pictures = random_pictures(icons, args.batch, generator).to(args.device)
        loss = loss_of(vae, pictures, args.kl)
        loss.backward()
        optimisers.step(clock.tick())
        average.update(vae, clock.steps)
        mean_loss += loss.item() / args.every
        if clock.steps % args.every == 0 or clock.done:
            psnr = measure(average.module, fixed, args.runs / "vae-look.png")
            print(
                f"{clock.steps} {clock.spent / 60:.1f} min {mean_loss:.4f} {psnr:.2f} dB",
                flush=True,
            )
            save(out, model=vae, average=average, optimisers=optimisers, clock=clock)
            mean_loss = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=32)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=1e-3)
    parser.add_argument("--kl", type=float, default=1e-3)
    add_training(parser, seed=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
