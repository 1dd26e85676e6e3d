"""What lies in the Space's repository, and whether a folder is exactly that.

`space/app.py`, its README.md and its requirements.txt go to the root, beside the rest of `space/` and all
of `shared/`, weights included, so that the tree runs where Cygnet is not installed. Files are copied
byte for byte. Everybody may read a Space: of a clone only what git tracks goes there, so that a key or a
note that lies about does not. This module does not know the Hub.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from shared.errors import OutputExists, SpaceInvalid
from shared.files import check_folder

CHECKOUT = Path(__file__).resolve().parents[2]

HUBS_OWN = ".gitattributes"
"""A file that the Hub puts there: it says what is stored as a large file."""

AT_THE_ROOT = ("space/app.py", "space/README.md", "space/requirements.txt", "LICENSE")
FOLDERS = ("shared", "space")


def sources() -> dict[str, Path]:
    """Every file of the Space's repository, by its path there, and where it comes from.

    Raises `SpaceInvalid` if this is an installed package instead of a checkout, or git does not answer.
    """
    files = {Path(path).name: CHECKOUT / path for path in AT_THE_ROOT}
    if missing := [path for path in files.values() if not path.is_file()]:
        raise SpaceInvalid(
            f"{missing[0].relative_to(CHECKOUT)} is not beside the package.",
            "Run this in a clone of Cygnet's repository.",
        )
    at_the_root = set(files.values())
    lying = (path for folder in FOLDERS for path in _files(CHECKOUT / folder))
    for path in _tracked() if (CHECKOUT / ".git").exists() else lying:
        if path not in at_the_root:
            files[path.relative_to(CHECKOUT).as_posix()] = path
    return files


def _tracked() -> Iterator[Path]:
    """The files that git tracks, as they are in the folder now."""
    listing = ["git", "ls-files", "-z", "--", *FOLDERS]
    try:
        done = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = os.fsdecode(getattr(error, "stderr", b"")).strip() or type(error).__name__
        raise SpaceInvalid(
            f"git does not say what it tracks in {CHECKOUT}: {said[:300]}",
            "Correct that; without git's answer a file of your own could be published.",
        ) from None
    for name in filter(None, done.stdout.split(b"\0")):
        if (path := CHECKOUT / os.fsdecode(name)).is_file():
            yield path


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder of what is no clone; what Python and editors leave behind is passed over."""
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
        return source.read_bytes() == _as_built(copy.read_bytes())
    return filecmp.cmp(source, copy, shallow=False)


_CLIENT = re.compile(rb'(?<=Client\(")[\w.-]+/[\w.-]+(?="\))')
_PRELOAD = re.compile(rb"\npreload_from_hub:(\n- .*)+")


def published(readme: bytes, space: str, preload: list[str]) -> bytes:
    """The README of one Space: with its name, and in the front matter what Spaces fetch when they build."""
    head, closing, text = readme.partition(b"\n---\n")
    fetched = "\n- ".join(["\npreload_from_hub:", *preload]) if preload else ""
    return head + fetched.encode() + closing + _CLIENT.sub(space.encode(), text)


def _as_built(readme: bytes) -> bytes:
    """The same before it was published."""
    return _CLIENT.sub(b"OWNER/NAME", _PRELOAD.sub(b"", readme, count=1))
