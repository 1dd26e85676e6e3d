"""Whether a folder is the Space's repository and would build and run as a Space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shared.errors import SpaceInvalid
from shared.mirror import card, pins, tree


def check(folder: Path) -> None:
    """Raises `SpaceInvalid` with all that is wrong with front matter, pins and sameness."""
    if not folder.is_dir():
        raise SpaceInvalid(f"There is no folder {folder}.", "Make it: cygnet space build DIR")
    if found := list(_faults(folder)):
        more = f" And {len(found) - 5} more." if len(found) > 5 else ""
        raise SpaceInvalid(
            " ".join(found[:5]) + more, "Build it anew, or correct space/ in the checkout."
        )


def _faults(folder: Path) -> Iterator[str]:
    yield from tree.differences(folder)
    try:
        front = card.read_card((folder / "README.md").read_text(encoding="utf-8"))
        yield from card.faults(front)
        requirements = (folder / "requirements.txt").read_text(encoding="utf-8")
        yield from pins.faults(requirements, front.sdk_version, tree.CHECKOUT)
    except OSError:  # a missing file is among the differences
        return
    except ValueError as error:
        yield f"README.md: {error}."
