"""Distil a few-step LoRA that needs no guidance, from the base's own guided trajectories.

The base denoises with guidance in many small steps; at each of the few-step recipe's noise
levels its state is kept. The LoRA learns the one velocity that leads from each kept state to
the next. Reads `transformer.pt` and `latents.pt`, writes `trajectories.pt` and `lora.pt`.

    python -m training.distill --minutes 5
"""

import argparse
from itertools import pairwise

import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from torch import Tensor

from training.denoiser import denoise, math_attention, padding_bias
from training.optim import Clock, Optimisers, compiled, resume, save
from training.options import add_training
from training.sample import FAST_SIGMAS
from training.transformer import Samples, load_transformer

LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


def lora_config(rank: int) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS)


@torch.inference_mode()
def trajectory(
    model: WanTransformer3DModel,
    noise: Tensor,
    told: tuple[Tensor, Tensor],
    empty: tuple[Tensor, Tensor],
    guidance: float,
    substeps: int,
) -> Tensor:
    """Follow the guided flow with Euler; return states (n, levels + 1, z, h, w) at each level."""
    sigmas = torch.tensor([*FAST_SIGMAS, 0.0])
    x, kept = noise, [noise]
    for start, stop in pairwise(sigmas):
        grid = torch.linspace(float(start), float(stop), substeps + 1)
        for now, after in pairwise(grid):
            at = now.expand(len(x)).to(x.device)
            with torch.autocast(x.device.type, torch.bfloat16), math_attention():
                free = denoise(model, x, at, *empty).float()
                led = denoise(model, x, at, *told).float()
            x = x + (after - now).to(x.device) * (free + guidance * (led - free))
        kept.append(x)
    return torch.stack(kept, dim=1)


def collect(model: WanTransformer3DModel, samples: Samples, args: argparse.Namespace) -> dict:
    """Run the base on drawn captions until there are enough trajectories."""
    states, rows = [], []
    model.requires_grad_(False)
    while sum(map(len, rows)) < args.trajectories:
        row = torch.randint(len(samples.said), (args.batch,), generator=samples.generator)
        text, lengths = samples.text[row]
        blank, blank_lengths = samples.text[torch.full_like(row, len(samples.said))]
        told = text.to(args.device), padding_bias(lengths, text.shape[1]).to(args.device)
        empty = blank.to(args.device), padding_bias(blank_lengths, blank.shape[1]).to(args.device)
        noise = torch.randn(len(row), *samples.latents.shape[3:], generator=samples.generator)
        kept = trajectory(model, noise.to(args.device), told, empty, args.guidance, args.substeps)
        states.append(kept.cpu().half())
        rows.append(row)
        print(f"{sum(map(len, rows))} trajectories", flush=True)
    return {"states": torch.cat(states), "rows": torch.cat(rows)}


def step_loss(
    model: WanTransformer3DModel, x: Tensor, target: Tensor, s: Tensor, text: Tensor, bias: Tensor
) -> Tensor:
    """Mean squared error of the velocity that jumps one whole level."""
    with torch.autocast(x.device.type, torch.bfloat16):
        velocity = denoise(model, x, s, text, bias)
    return (velocity.float() - target).square().mean()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    model = load_transformer(args.runs / "transformer.pt").to(args.device)
    samples = Samples(args.runs, args.captions, args.device, args.seed)
    path = args.runs / "trajectories.pt"
    if not path.exists():
        torch.save(collect(model, samples, args), path)
    kept = torch.load(path, weights_only=True)
    model.requires_grad_(False)
    model.add_adapter(lora_config(args.rank))
    lora = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimisers = Optimisers([], lora.values(), 0.0, args.lr)
    clock = Clock(args.minutes, args.cooldown)
    out = args.runs / "lora.pt"
    holder = torch.nn.ParameterList(lora.values())
    about = {"names": list(lora), "rank": args.rank}
    resume(out, lora=holder, optimisers=optimisers, clock=clock)
    sigmas = torch.tensor([*FAST_SIGMAS, 0.0])
    loss_of, mean_loss = compiled(step_loss, args.compile), 0.0
    while not clock.done:
        pick = torch.randint(len(kept["rows"]), (args.batch,))
        level = torch.randint(len(FAST_SIGMAS), (args.batch,))
        now, after = kept["states"][pick, level].float(), kept["states"][pick, level + 1].float()
        span = (sigmas[level] - sigmas[level + 1])[:, None, None, None]
        text, lengths = samples.text[kept["rows"][pick]]
        parts = (now, (now - after) / span, sigmas[level], text)
        parts = [p.to(args.device) for p in (*parts, padding_bias(lengths, text.shape[1]))]
        with math_attention():
            loss = loss_of(model, *parts)
            loss.backward()
        optimisers.step(clock.tick())
        mean_loss += loss.item() / args.every
        if clock.steps % args.every == 0 or clock.done:
            print(f"{clock.steps} {clock.spent / 60:.1f} min {mean_loss:.4f}", flush=True)
            save(out, lora=holder, optimisers=optimisers, clock=clock, **about)
            mean_loss = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=1024)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--substeps", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--cooldown", type=float, default=0.6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--captions", type=int, default=32)
    add_training(parser, seed=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
