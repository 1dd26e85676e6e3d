"""What lies in the Space's repository, and whether a folder is exactly that.

`space/app.py`, its README.md and its requirements.txt go to the root, beside the rest of `space/` and all
of `shared/`, weights included, so that the tree runs where Cygnet is not installed. Files are copied
byte for byte. This module does not know the Hub.
"""

from __future__ import annotations

import filecmp
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from shared.errors import OutputExists, SpaceInvalid
from shared.files import check_folder

CHECKOUT = Path(__file__).resolve().parents[2]

HUBS_OWN = ".gitattributes"
"""A file that the Hub puts there: it says what is stored as a large file."""

AT_THE_ROOT = ("space/app.py", "space/README.md", "space/requirements.txt", "LICENSE")


def sources() -> dict[str, Path]:
    """Every file of the Space's repository, by its path there, and where it comes from.

    Raises `SpaceInvalid` if this is an installed package instead of a checkout.
    """
    files = {Path(path).name: CHECKOUT / path for path in AT_THE_ROOT}
    if missing := [path for path in files.values() if not path.is_file()]:
        raise SpaceInvalid(
            f"{missing[0].relative_to(CHECKOUT)} is not beside the package.",
            "Run this in a clone of Cygnet's repository.",
        )
    at_the_root = set(files.values())
    for folder in ("shared", "space"):
        for path in _files(CHECKOUT / folder):
            if path not in at_the_root:
                files[path.relative_to(CHECKOUT).as_posix()] = path
    return files


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder; what Python and editors leave behind is passed over."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def build(folder: Path) -> list[str]:
    """Lay the Space's repository out in a new or empty folder; the paths of its files.

    Raises `SpaceInvalid`, `OutputExists`, `OutputUnwritable` or `DiskFull`.
    """
    files = sources()
    check_folder(folder)
    if any(folder.iterdir()):
        raise OutputExists(f"{folder} is not empty.", "Give a new or an empty folder.")
    for path, source in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return list(files)


def differences(folder: Path) -> Iterator[str]:
    """What keeps a folder from being what `build` lays out or `publish` made of it, a sentence each.

    It may be a clone of the Space: what is git's and the Hub's own is passed over.
    """
    files = sources()
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there = {path for path in there if path != HUBS_OWN and not path.startswith(".git/")}
    for path in sorted(files.keys() - there):
        yield f"{path} is missing."
    for path in sorted(there - files.keys()):
        yield f"{path} does not belong there."
    for path in sorted(files.keys() & there):
        if not _same(files[path], folder / path):
            yield f"{path} differs from {files[path].relative_to(CHECKOUT).as_posix()}."


def _same(source: Path, copy: Path) -> bool:
    if source == CHECKOUT / "space/README.md":
        return source.read_bytes() == _PRELOAD.sub(b"", copy.read_bytes(), count=1)
    return filecmp.cmp(source, copy, shallow=False)


_PRELOAD = re.compile(rb"\npreload_from_hub:(\n- .*)+")


def with_preload(readme: str, lines: list[str]) -> str:
    """A README whose front matter ends in what Spaces fetch when they build."""
    head, closing, text = readme.partition("\n---\n")
    return "\n- ".join([f"{head}\npreload_from_hub:", *lines]) + closing + text
