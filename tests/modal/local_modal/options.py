"""What the command line chose."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Options:
    file: str
    """The app."""
    describes: bool = False
    """Nothing runs, and secrets need no values: only what the platform is told matters."""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Values by name and key."""
    environment: dict[str, str] = field(default_factory=dict)
    """Set in every container."""
    python: Path = field(default_factory=lambda: Path(sys.executable))
    """The interpreter of the containers."""
    idle: float = 20.0
    """Seconds that an idle container stays."""
    max_containers: int = 2
    """Of each function."""
    timeline: Path | None = None
    """Where what happened is written down at the end."""
