"""The options that make a request."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import get_args

from shared.backends.config import AUTO, read_backends
from shared.checkpoints import CHECKPOINTS, SchedulerName, add_folder, checkpoint_names
from shared.cli.parser import NUMBER, complete
from shared.files import is_folder


def add_request_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The fields of a request but the prompt, under their own names; `parse_request` checks them."""
    group = parser.add_argument_group("request", "What is left out, the checkpoint fills in.")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what to avoid")
    group.add_argument("--width", **NUMBER, help="pixels")
    group.add_argument("--height", **NUMBER, help="pixels")
    group.add_argument("--steps", **NUMBER, help="denoising steps, 1 to 100")
    group.add_argument("--guidance-scale", **NUMBER, help="0 to 20; above 1 uses what to avoid")
    group.add_argument("--seed", **NUMBER, help="the same seed makes the same picture")
    group.add_argument("--num-images", **NUMBER, help="1 to 16; their seeds count up")
    checkpoint = group.add_argument(
        "--checkpoint", metavar="NAME", help="or a folder in diffusers' format"
    )
    complete(checkpoint, checkpoint_names)
    schedulers = get_args(SchedulerName)
    scheduler = group.add_argument("--scheduler", metavar="NAME", help=" or ".join(schedulers))
    complete(scheduler, lambda: schedulers)
    return group


def add_backend_option(
    parser: argparse._ActionsContainer, help: str = "what draws: auto, or one of cygnet backends"
) -> None:
    """`--backend`: any command that makes pictures has it."""
    backend = parser.add_argument("--backend", metavar="NAME", help=help)
    complete(backend, lambda: (AUTO, *read_backends().listed))


def resolve_checkpoint(name: str) -> str:
    """A known name as it is; a folder is made known first."""
    known = {checkpoint.name for checkpoint in CHECKPOINTS}
    looks_like_path = os.sep in name or name.startswith((".", "~")) or is_folder(name)
    return add_folder(Path(name)).name if name not in known and looks_like_path else name
