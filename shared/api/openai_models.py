"""Which checkpoint draws for a name of OpenAI's: what the operator says, and nothing otherwise.

A client that only knows OpenAI's names asks for OpenAI's sizes too, so that a size which the
checkpoint cannot do becomes the nearest it can; the answer says both.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from shared.checkpoints import Checkpoint, checkpoint_names, get_checkpoint
from shared.contract import nearest_size
from shared.errors import InvalidSetting, UnknownCheckpoint
from shared.settings import settings

VARIABLE = "CYGNET_OPENAI_MODELS"
_OPENAIS = re.compile(r"(openai/)?(dall-e|gpt-image|chatgpt-image)", re.IGNORECASE)
_GIVES_URL = re.compile(r"(openai/)?dall-e", re.IGNORECASE)
"""OpenAI's older models answer with an address unless they are asked for the file."""


@dataclass(frozen=True)
class OpenAIModels:
    """Checkpoints by the names that they answer to beside their own; `*` stands for any text.

    Raises `InvalidSetting` if one of them does not exist.
    """

    checkpoints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, checkpoint in self.checkpoints.items():
            try:
                get_checkpoint(checkpoint)
            except UnknownCheckpoint as error:
                message = f"{VARIABLE}: {name[:60]}={checkpoint[:60]}: {error.message}"
                raise InvalidSetting(message, error.next_step) from None

    def mapped(self, model: str) -> Checkpoint | None:
        """What draws for a name that is no checkpoint's own. The first name that fits decides."""
        if model in checkpoint_names():
            return None
        fitting = (own for name, own in self.checkpoints.items() if fnmatchcase(model, name))
        found = next(fitting, None)
        return get_checkpoint(found) if found else None

    def listed(self) -> Iterator[tuple[str, Checkpoint]]:
        """Each name that stands for itself alone, with what draws for it."""
        for name in self.checkpoints:
            if "*" not in name and (checkpoint := self.mapped(name)):
                yield name, checkpoint


def unknown_model(model: str) -> UnknownCheckpoint:
    """The refusal of a name that neither a checkpoint nor the operator has."""
    names = checkpoint_names()
    near = difflib.get_close_matches(model[:100], names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    advice = f"{hint}Choose one of {', '.join(names)}."
    if _OPENAIS.match(model):
        example = f"{VARIABLE}={model[:40]}={settings().checkpoint}"
        advice += f" Or have whoever runs the server let one of them draw for it: {example}."
    error = UnknownCheckpoint(f"There is no model named {model[:100]!r} here.", advice)
    error.fields = ("model",)
    return error


def gives_url(model: str) -> bool:
    """Whether OpenAI answers for a model of that name with addresses, unless asked for files."""
    return _GIVES_URL.match(model) is not None


def fitted(width: int, height: int, checkpoint: Checkpoint) -> tuple[int, int, str]:
    """The nearest size that the checkpoint can do, and what to say of it, if it is another."""
    near = nearest_size(width, height, checkpoint)
    if near == (width, height):
        return *near, ""
    remark = (
        f"{checkpoint.name} does not draw {width}x{height}: the picture has {near[0]}x{near[1]}, "
        "the nearest size."
    )
    return *near, remark
