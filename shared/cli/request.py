"""The options that make a request."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from shared.backends.config import AUTO, read_backends
from shared.checkpoints import CHECKPOINTS, SAMPLER_NAMES, add_folder, checkpoint_names
from shared.cli.parser import NUMBER, complete, text
from shared.contract import GUIDANCE, NUM_IMAGES, STEPS, GenerationRequest, Limit
from shared.field_names import FieldNames
from shared.files import is_folder


def add_request_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The fields of a request but the prompt, under their own names; `parse_request` checks them."""
    group = parser.add_argument_group("request", "What is left out, the checkpoint fills in.")
    group.add_argument("--negative-prompt", type=text, metavar="TEXT", help="what to avoid")
    group.add_argument("--width", **NUMBER, help="pixels")
    group.add_argument("--height", **NUMBER, help="pixels")
    group.add_argument("--steps", **NUMBER, help=f"denoising steps, {_range(STEPS)}")
    group.add_argument(
        "--guidance-scale", **NUMBER, help=f"{_range(GUIDANCE)}; above 1 uses what to avoid"
    )
    group.add_argument(
        "--seed", **NUMBER, help="the same seed makes the same picture; -1 draws one"
    )
    group.add_argument("--num-images", **NUMBER, help=f"{_range(NUM_IMAGES)}; their seeds count up")
    checkpoint = group.add_argument(
        "--checkpoint", metavar="NAME", help="or a folder in diffusers' format"
    )
    complete(checkpoint, checkpoint_names)
    scheduler = group.add_argument("--scheduler", metavar="NAME", help=" or ".join(SAMPLER_NAMES))
    complete(scheduler, lambda: SAMPLER_NAMES)
    return group


FLAGS = FieldNames(
    {name: f"--{name.replace('_', '-')}" for name in GenerationRequest.model_fields if "_" in name}
    | {"output_format": "--format"}
)
"""The options that are not called as the fields are."""


def _range(limit: Limit) -> str:
    return f"{limit.low} to {limit.high}"


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
