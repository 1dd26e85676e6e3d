"""How tests start the offline stand-in for Modal, and an interpreter for its containers."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import venv
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCAL_MODAL = (sys.executable, "-m", "tests.modal.local_modal")
"""Its command, from any folder where the project's own is on the import path."""


def environment(**chosen: str) -> dict[str, str]:
    """This process's environment without settings of Cygnet's but those, for the command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CYGNET_")}
    return kept | {"PYTHONPATH": str(ROOT)} | chosen


def container_python(folder: Path) -> Path:
    """An interpreter that has what the images install, and Modal's client."""
    return python_with(folder, required("cygnet", {"local", "serve"}) | required("modal", set()))


def python_with(folder: Path, names: set[str]) -> Path:
    """An interpreter that has these distributions and Modal's client, and nothing else.

    The project is not installed in it, so that a source that was not mounted is missed; neither is
    what the project wants for development only.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    [home] = folder.glob("lib/python3*/site-packages")
    for distribution in map(importlib.metadata.distribution, (names | {"modal"}) - {"cygnet"}):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            target = home / top
            if not target.exists():  # distributions may share a folder
                target.symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder / "bin" / "python"


def required(name: str, extras: set[str]) -> set[str]:
    """The names of what a distribution needs with these extras, and of what that needs."""
    found: set[str] = set()
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            found |= {requirement.name} | required(requirement.name, requirement.extras)
    return found
