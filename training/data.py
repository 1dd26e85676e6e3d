"""Rasterise the emoji art and name every training picture: subject, style, background colour.

Reads the four icon sets from their npm packages and `subjects.txt`, and writes `icons.pt`.
Knows nothing of captions, text or networks.

    python -m training.data --npm training/runs/npm/node_modules
"""

import argparse
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image

HERE = Path(__file__).parent
RUNS = HERE / "runs"

# Style phrase -> icon set. The phrases are what a caption says; the first is the usual one.
STYLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "3d render": ("fluent-emoji", ("3d render", "3d", "3d icon")),
    "flat design": ("fluent-emoji-flat", ("flat design", "flat illustration", "flat icon")),
    "cartoon": ("noto", ("cartoon", "cartoon drawing", "cartoon illustration")),
    "sticker": ("twemoji", ("sticker", "sticker art", "vinyl sticker")),
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (24, 24, 28),
    "gray": (150, 152, 158),
    "red": (222, 60, 60),
    "orange": (250, 152, 56),
    "yellow": (252, 218, 84),
    "green": (96, 184, 96),
    "sky blue": (136, 204, 244),
    "navy blue": (38, 58, 120),
    "purple": (140, 92, 190),
    "pink": (250, 172, 198),
    "beige": (238, 222, 190),
}

HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Subject:
    """One subject: its icon name in the sets, and the names that captions may use."""

    icon: str
    names: tuple[str, ...]


def read_subjects(path: Path = HERE / "subjects.txt") -> list[Subject]:
    """Read the list of subjects, in file order, which is the order of every tensor."""
    subjects = []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        icon, _, names = line.partition("|")
        icon = icon.strip()
        listed = [name.strip() for name in names.split(",") if name.strip()]
        subjects.append(Subject(icon, tuple(listed or [icon.replace("-", " ")])))
    return subjects


def is_held_out(icon: str, style: str, share: float = HELD_OUT_SHARE) -> bool:
    """Tell whether this (subject, style) pair is kept out of training, by a hash of its name.

    The fox stays in: it is the showcase prompt, and a showcase should not be a lottery.
    """
    if icon == "fox":
        return False
    digest = hashlib.sha256(f"{icon}/{style}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def rasterise(svg: str, size: int, margin: int) -> np.ndarray:
    """Draw one icon, centred with a margin, as (size, size, 4) uint8 with straight alpha."""
    inner = size - 2 * margin
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=inner, height=inner))
    icon = Image.open(io.BytesIO(png)).convert("RGBA")
    canvas = Image.new("RGBA", (size, size))
    canvas.paste(icon, ((size - icon.width) // 2, (size - icon.height) // 2))
    return np.asarray(canvas)


def rasterise_all(npm: Path, subjects: list[Subject], size: int, margin: int) -> torch.Tensor:
    """Draw every subject in every style: (subjects, styles, 4, size, size) uint8."""
    out = torch.zeros(len(subjects), len(STYLES), 4, size, size, dtype=torch.uint8)
    for column, (icon_set, _) in enumerate(STYLES.values()):
        data = json.loads((npm / "@iconify-json" / icon_set / "icons.json").read_text())
        for row, subject in enumerate(subjects):
            icon = data["icons"][subject.icon]
            width, height = (icon.get(side, data.get(side, 16)) for side in ("width", "height"))
            svg = (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'xmlns:xlink="http://www.w3.org/1999/xlink">{icon["body"]}</svg>'
            )
            pixels = torch.from_numpy(rasterise(svg, size, margin).copy())
            out[row, column] = pixels.permute(2, 0, 1)
    return out


def composite(icons: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
    """Lay RGBA icons (n, 4, h, w) uint8 over flat colours (n, 3) in [0, 255]: [-1, 1] floats."""
    alpha = icons[:, 3:].float() / 255
    picture = icons[:, :3].float() * alpha + backgrounds[:, :, None, None] * (1 - alpha)
    return picture / 127.5 - 1


def shade(colours: torch.Tensor, generator: torch.Generator, spread: float = 8.0) -> torch.Tensor:
    """Move colours (n, 3) a little, so that seeds differ and a name covers a region."""
    noise = torch.randn(colours.shape, generator=generator, device=colours.device)
    return (colours + spread * noise).clamp(0, 255)


def palette() -> torch.Tensor:
    """The named background colours: (colours, 3) floats in [0, 255]."""
    return torch.tensor(list(COLOURS.values()), dtype=torch.float32)


def load_icons(path: Path = RUNS / "icons.pt") -> torch.Tensor:
    """Read what `main` wrote: (subjects, styles, 4, size, size) uint8."""
    return torch.load(path, weights_only=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npm", type=Path, default=RUNS / "npm" / "node_modules")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--margin", type=int, default=16)
    parser.add_argument("--out", type=Path, default=RUNS / "icons.pt")
    args = parser.parse_args()
    subjects = read_subjects()
    icons = rasterise_all(args.npm, subjects, args.size, args.margin)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(icons, args.out)
    held_out = sum(is_held_out(s.icon, style) for s in subjects for style in STYLES)
    print(f"{len(subjects)} subjects x {len(STYLES)} styles, {held_out} pairs held out")


if __name__ == "__main__":
    main()
