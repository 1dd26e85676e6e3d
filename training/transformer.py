"""Train the transformer by flow matching on the bank of latents.

x_s = (1 - s) picture + s noise, and the network predicts noise - picture (Lipman et al. 2023,
in Wan's sign). Reads `latents.pt`, writes `transformer.pt` (resumable). Knows nothing of
pixels.

    python -m training.transformer --minutes 63
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from training.captions import Caption, sample_captions
from training.data import STYLES, read_subjects
from training.denoiser import denoise, math_attention, mute_padding, padding_bias
from training.latents import pair_mask
from training.optim import Average, Clock, Optimisers, compiled, resume, save
from training.options import add_training
from training.text import TextStates

TRANSFORMER_CONFIG: dict[str, Any] = dict(
    patch_size=(1, 2, 2),
    num_attention_heads=4,
    attention_head_dim=64,
    in_channels=48,
    out_channels=48,
    text_dim=384,
    freq_dim=256,
    ffn_dim=1024,
    num_layers=8,
    cross_attn_norm=True,
    qk_norm="rms_norm_across_heads",
    rope_max_seq_len=64,
)
FLOW_SHIFT = 3.0


def new_transformer(**overrides: Any) -> WanTransformer3DModel:
    """Build an untrained transformer: padding muted, every block starting as the identity."""
    model = WanTransformer3DModel(**(TRANSFORMER_CONFIG | overrides))
    mute_padding(model)
    torch.nn.init.zeros_(model.proj_out.weight)
    return model


def shifted(s: Tensor, shift: float = FLOW_SHIFT) -> Tensor:
    """Move noise levels in [0, 1] towards 1, where a prompt decides the picture."""
    return shift * s / (1 + (shift - 1) * s)


def training_captions(per_pair: int) -> list[Caption]:
    """Captions of every pair that is not held out; the same list in every run."""
    allowed = pair_mask()
    drawn = sample_captions(read_subjects(), per_pair, seed=0)
    return [c for c in drawn if c.style < 0 or allowed[c.subject, c.style]]


class Samples:
    """Draws training samples: a caption, and a latent that fits what the caption says."""

    def __init__(self, runs: Path, captions_per_pair: int, device: str, seed: int) -> None:
        self.device = device
        bank = torch.load(runs / "latents.pt", weights_only=True)
        self.latents, pairs = bank["latents"], bank["pairs"]
        self.index = torch.full((len(read_subjects()), len(STYLES)), -1)
        self.index[pairs[:, 0], pairs[:, 1]] = torch.arange(len(pairs))
        captions = training_captions(captions_per_pair)
        self.said = torch.tensor([[c.subject, c.style, c.colour] for c in captions])
        # The last row is the empty prompt, for caption dropout and for guidance.
        texts = [c.text for c in captions] + [""]
        self.text = TextStates.cached(texts, runs / "text.pt", device)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int, dropout: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents (n, z, h, w), text states (n, width, dim) and padding bias."""
        g = self.generator
        rows = torch.randint(len(self.said), (count,), generator=g)
        subject, style, colour = self.said[rows].unbind(1)
        allowed = (self.index[subject] >= 0).float()
        any_style = torch.multinomial(allowed, 1, generator=g)[:, 0]
        any_colour = torch.randint(self.latents.shape[1], (count,), generator=g)
        pair = self.index[subject, torch.where(style < 0, any_style, style)]
        variant = torch.randint(self.latents.shape[2], (count,), generator=g)
        latents = self.latents[pair, torch.where(colour < 0, any_colour, colour), variant]
        dropped = torch.rand(count, generator=g) < dropout
        states, lengths = self.text[torch.where(dropped, len(self.said), rows)]
        bias = padding_bias(lengths, states.shape[1])
        return (
            latents.float().to(self.device),
            states.to(self.device),
            bias.to(self.device),
        )


def flow_loss(
    model: WanTransformer3DModel, x: Tensor, noise: Tensor, s: Tensor, text: Tensor, bias: Tensor
) -> Tensor:
    """Mean squared error of the predicted velocity."""
    mixed = torch.lerp(x, noise, s[:, None, None, None])
    with torch.autocast(x.device.type, torch.bfloat16):
        velocity = denoise(model, mixed, s, text, bias)
    return (velocity.float() - (noise - x)).square().mean()


def split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices of the blocks, which Muon trains, and everything else."""
    named = list(model.named_parameters())
    matrices: list[Tensor] = [p for name, p in named if name.startswith("blocks.") and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    return matrices, [p for _, p in named if id(p) not in chosen]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    model = new_transformer().to(args.device)
    optimisers = Optimisers(*split_parameters(model), args.muon_lr, args.adam_lr)
    average, clock = Average(model, args.ema), Clock(args.minutes, args.cooldown)
    out = args.runs / "transformer.pt"
    resume(out, model=model, average=average, optimisers=optimisers, clock=clock)
    samples = Samples(args.runs, args.captions, args.device, args.seed + clock.steps)
    loss_of = compiled(flow_loss, args.compile)
    mean_loss = 0.0
    while not clock.done:
        x, text, bias = samples.draw(args.batch, dropout=0.1)
        s = shifted(torch.randn(len(x), device=args.device).sigmoid())
        with math_attention():
            loss = loss_of(model, x, torch.randn_like(x), s, text, bias)
            loss.backward()
        optimisers.step(clock.tick())
        average.update(model, clock.steps)
        mean_loss += loss.item() / args.every
        if clock.steps % args.every == 0 or clock.done:
            print(f"{clock.steps} {clock.spent / 60:.1f} min {mean_loss:.4f}", flush=True)
            save(out, model=model, average=average, optimisers=optimisers, clock=clock)
            mean_loss = 0.0


def load_transformer(path: Path) -> WanTransformer3DModel:
    """Load the averaged weights that `train` saved."""
    average = Average(new_transformer(), 0.0)
    average.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["average"])
    model = average.module
    assert isinstance(model, WanTransformer3DModel)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=63)
    parser.add_argument("--cooldown", type=float, default=0.4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--captions", type=int, default=32)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=1.5e-3)
    parser.add_argument("--ema", type=float, default=0.995)
    add_training(parser, seed=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
