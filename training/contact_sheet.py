"""Draw a sheet of pictures for fixed prompts, to look at rather than to measure.

python -m training.contact_sheet shared/weights/cygnet-tiny docs/images/contact-sheet.png
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from training.captions import write
from training.data import COLOURS, STYLES
from training.evaluate import TEMPLATE
from training.sample import generate, load_pipeline

SUBJECTS = (
    "red fox", "panda", "owl", "octopus",
    "butterfly", "elephant", "penguin", "tiger",
    "hamburger", "strawberry", "pizza", "cupcake",
    "red car", "rocket", "sailboat", "house",
)  # fmt: skip


def sheet_prompts() -> list[str]:
    """Sixteen subjects, each in the four styles, on backgrounds that go round the palette."""
    colours = ["sky blue", "yellow", "pink", "beige", "green", "white", "purple", "orange"]
    assert set(colours) <= set(COLOURS)
    return [
        write(TEMPLATE, name, style, colours[(row + 2 * column) % len(colours)])
        for row, name in enumerate(SUBJECTS)
        for column, style in enumerate(STYLES)
    ]


def tile(pictures: torch.Tensor, columns: int, side: int) -> Image.Image:
    """Lay pictures (n, 3, h, w) in [0, 1] out in rows, each `side` pixels wide."""
    height = side * -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, height))
    for index, picture in enumerate(pictures.mul(255).round().byte().permute(0, 2, 3, 1)):
        small = Image.fromarray(picture.numpy()).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (index % columns * side, index // columns * side))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fast", action="store_true", help="four steps, no guidance")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--side", type=int, default=144)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", nargs="+", help="instead of the sheet's own")
    args = parser.parse_args()
    pipe = load_pipeline(args.folder, args.fast, "cpu")
    prompts = args.prompts or sheet_prompts()
    guidance = 1.0 if args.fast else args.guidance
    seeds = range(args.seed, args.seed + len(prompts))
    pictures = generate(pipe, prompts, seeds, args.steps, guidance)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tile(pictures, 8, args.side).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
