"""Command-line options that the phases of training share."""

import argparse
from pathlib import Path

import torch

from training.data import RUNS


def add_place(parser: argparse.ArgumentParser) -> None:
    """Where a phase computes, and where it keeps its files."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--runs", type=Path, default=RUNS)


def add_training(parser: argparse.ArgumentParser, seed: int) -> None:
    """What every training loop takes, its place included."""
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    add_place(parser)
