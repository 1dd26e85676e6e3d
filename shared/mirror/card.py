"""The front matter of the Space's README.md: what Spaces reads before anything of ours runs.

The fields and their bounds are those of the Hub's page "Spaces Configuration Reference".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Annotated, Literal

import yaml
from huggingface_hub import SpaceHardware
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from shared.checkpoints import CHECKPOINTS

Colour = Literal["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]


def _is_emoji(text: str) -> str:
    if not all(unicodedata.category(character) in ("So", "Mn", "Cf") for character in text):
        raise ValueError("is no emoji")
    return text


class Card(BaseModel):
    """The front matter, complete: only what has a default may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    emoji: Annotated[str, Field(min_length=1), AfterValidator(_is_emoji)]
    colorFrom: Colour
    colorTo: Colour
    sdk: Literal["gradio"]
    sdk_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    app_file: Literal["app.py"]
    python_version: Literal["3.12.12"]
    """The only one that both ZeroGPU and Cygnet know."""
    suggested_hardware: SpaceHardware
    startup_duration_timeout: Annotated[str, Field(pattern=r"^\d+[smh]$")]
    short_description: Annotated[str, Field(max_length=60)]
    license: str
    pinned: bool
    disable_embedding: bool
    models: tuple[str, ...]
    tags: tuple[str, ...]
    preload_from_hub: tuple[str, ...] = ()
    """Filled in by `publish`, which knows what the Space draws with."""


def read_card(readme: str) -> Card:
    """Raises `ValueError` that says what is wrong."""
    _, _, rest = readme.partition("---\n")
    text, closed, _ = rest.partition("\n---\n")
    if not readme.startswith("---\n") or not closed:
        raise ValueError("there is no front matter between two lines of ---")
    try:
        return Card.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"the front matter is no YAML ({type(error).__name__})") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError("; ".join(faults)) from None


def faults(card: Card) -> Iterator[str]:
    """What in a well-formed card is not true of Cygnet, a sentence each."""
    used = {checkpoint.repository for checkpoint in CHECKPOINTS}
    used |= {checkpoint.lora.repository for checkpoint in CHECKPOINTS if checkpoint.lora}
    used.discard(None)
    if set(card.models) != used:
        names = ", ".join(sorted(map(str, used ^ set(card.models))))
        yield f"README.md: models is not the repositories of shared/checkpoints.py: {names}."
