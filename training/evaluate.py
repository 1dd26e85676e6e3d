"""Measure whether an exported checkpoint listens: subject, style, background colour.

A picture's subject is the nearest, in RGB at 64 x 64, of the icons of all subjects in the style
that was asked for, laid over the colour that was asked for. Its style, and its subject in any
style, are those of the nearest among all subjects in all styles. Its background is the palette
colour nearest to the median of its border. Prompts and seeds are fixed. Knows nothing of how the
checkpoint was trained.

    python -m training.evaluate shared/weights/cygnet-tiny --json training/runs/figures.json
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from training.captions import UNSEEN_WORDS, write
from training.data import (
    COLOURS,
    RUNS,
    STYLES,
    is_held_out,
    load_icons,
    palette,
    read_subjects,
)
from training.sample import generate, load_pipeline

TEMPLATE = "{a}, {style}, on a {colour} background"
SIDE = 64
MEASURES = ("subject", "subject in any style", "style", "background")


@dataclass(frozen=True)
class Ask:
    """One prompt and what its picture has to show."""

    prompt: str
    subject: int
    style: int
    colour: int


def ask(name: str, subject: int, style: int, colour: int) -> Ask:
    """Put a question in the template that every figure uses."""
    prompt = write(TEMPLATE, name, list(STYLES)[style], list(COLOURS)[colour])
    return Ask(prompt, subject, style, colour)


def questions(seed: int = 0) -> dict[str, list[Ask]]:
    """Return the question sets: trained pairs, held-out pairs, words no caption had."""
    draw, subjects, styles = random.Random(seed), read_subjects(), list(STYLES)
    rows = {subject.icon: row for row, subject in enumerate(subjects)}
    trained, held_out = [], []
    for row, subject in enumerate(subjects):
        out = [c for c, style in enumerate(styles) if is_held_out(subject.icon, style)]
        seen = [c for c in range(len(styles)) if c not in out]
        trained.append(ask(subject.names[0], row, draw.choice(seen), draw.randrange(len(COLOURS))))
        held_out += [ask(subject.names[0], row, c, draw.randrange(len(COLOURS))) for c in out]
    unseen = [
        ask(word, rows[icon], draw.randrange(len(styles)), draw.randrange(len(COLOURS)))
        for word, icon in UNSEEN_WORDS.items()
    ]
    return {"trained pairs": trained, "held-out pairs": held_out, "unseen words": unseen}


class Judge:
    """Knows every icon, and says what a picture shows."""

    def __init__(self, icons: Tensor) -> None:
        self.shape = icons.shape[:2]
        inked, bare = [], []
        for some in icons.flatten(0, 1).split(64):
            alpha = some[:, 3:].float() / 255
            # Colours are averaged by their alpha, or edges would drag in the colour of nothing.
            inked.append(F.adaptive_avg_pool2d(some[:, :3] * alpha, SIDE))
            bare.append(1 - F.adaptive_avg_pool2d(alpha, SIDE))
        self.inked, self.bare = torch.cat(inked), torch.cat(bare)

    @cache  # noqa: B019 - one judge a process, twelve colours
    def over(self, colour: int) -> Tensor:
        """Every icon over one palette colour: (subjects, styles, 3 * side * side) in [0, 1]."""
        pictures = (self.inked + self.bare * palette()[colour][:, None, None]) / 255
        return pictures.flatten(1).view(*self.shape, -1)

    def verdict(self, picture: Tensor, asked: Ask) -> tuple[bool, bool, bool, bool]:
        """Tell whether (3, h, w) in [0, 1] shows each of `MEASURES`."""
        seen = F.adaptive_avg_pool2d(picture, SIDE).flatten()
        error = (self.over(asked.colour) - seen).square().mean(-1)
        subject = int(error[:, asked.style].argmin())
        in_any_style = int(error.min(1).values.argmin())
        style = int(error.min(0).values.argmin())
        sides = picture[:, :8], picture[:, -8:], picture[..., :8], picture[..., -8:]
        median = torch.cat([s.flatten(1) for s in sides], dim=1).median(1).values * 255
        colour = int((palette() - median).square().sum(1).argmin())
        return (
            subject == asked.subject,
            in_any_style == asked.subject,
            style == asked.style,
            colour == asked.colour,
        )


def measure(judge: Judge, pictures: Tensor, asks: Sequence[Ask]) -> dict[str, float]:
    """Share of pictures that show what was asked, in per cent."""
    verdicts = [judge.verdict(p, a) for p, a in zip(pictures, asks, strict=True)]
    shares = torch.tensor(verdicts).float().mean(0).mul(100).tolist()
    return dict(zip(MEASURES, shares, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--icons", type=Path, default=RUNS / "icons.pt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--limit", type=int, default=None, help="questions a set, for a quick look")
    parser.add_argument("--modes", nargs="+", default=["base", "fast"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    judge, figures = Judge(load_icons(args.icons)), {}
    for mode in args.modes:
        pipe = load_pipeline(args.folder, mode == "fast", args.device)
        guidance = 1.0 if mode == "fast" else args.guidance
        for name, asks in questions().items():
            asks = asks[:: max(1, len(asks) // args.limit)] if args.limit else asks
            start = time.monotonic()
            pictures = generate(
                pipe, [a.prompt for a in asks], range(len(asks)), args.steps, guidance
            )
            found = measure(judge, pictures, asks)
            figures[f"{mode}, {name}"] = found | {"count": len(asks)}
            shares = ", ".join(f"{what} {share:.1f}%" for what, share in found.items())
            seconds = time.monotonic() - start
            print(f"{mode}, {len(asks)} {name}: {shares} ({seconds:.0f} s)", flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
