"""What an output folder holds: from a batch's manifest where there is one, else from the pictures.

Folders come from anywhere: a manifest that names a file outside the folder is not followed, and what
texts say is left to whoever shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.batch.manifest import Entry, Manifest
from shared.contract import Timings, clean_text
from shared.errors import InvalidRequest, NoRecipeInImage, UnreadableImage
from shared.files import as_text, is_folder, native
from shared.formats import FORMAT_OF_SUFFIX
from shared.images import facts, read_recipe
from shared.prices import dollars

SHEET = "contact-sheet"
"""What the names of contact sheets begin with."""

_LABELS = {
    "seed": "Seed",
    "steps": "Steps",
    "guidance_scale": "Guidance",
    "scheduler": "Scheduler",
    "checkpoint": "Checkpoint",
    "negative_prompt": "Avoid",
}


@dataclass(frozen=True)
class Shown:
    """One picture: its path within the folder (with slashes), and what is said of it."""

    path: str
    prompt: str
    settings: Mapping[str, str]
    """By what a person calls them."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass
class Contents:
    """What was found."""

    name: str
    pictures: list[Shown] = field(default_factory=list)
    failures: list[Entry] = field(default_factory=list)
    left_out: int = 0
    """Files that are no pictures, or that do not say how they were made."""
    not_unpacked: list[str] = field(default_factory=list)
    """Paths of pictures whose place on the contact sheet is empty: damaged, or too large."""


def read_folder(folder: Path) -> Contents:
    """Everything in a folder, in the order it was asked for or of the names.

    Raises `InvalidRequest` if there is no such folder, or nothing in it.
    """
    if not is_folder(str(folder)):
        raise InvalidRequest(f"{folder} is no folder.", "Name one with pictures in it.")
    contents = Contents(as_text(folder.resolve().name) or "pictures")
    with Manifest(folder) as manifest:
        shown = _of_manifest(manifest, folder, contents) if manifest.path.is_file() else None
        for picture in shown or _of_files(folder, contents):
            contents.pictures.append(picture)
    if not contents.pictures:
        raise InvalidRequest(
            f"There is no picture in {folder} that says how it was made.",
            "Name a folder with pictures of Cygnet's in it.",
        )
    return contents


def _of_manifest(manifest: Manifest, folder: Path, contents: Contents) -> Iterator[Shown]:
    for entry in manifest.entries():
        if entry.status == "failed":
            contents.failures.append(entry)
            continue
        path = _inside(folder, entry.file or "")
        if not path:
            contents.left_out += 1
            continue
        more = {
            "Template": entry.template.get("prompt"),
            "Backend": " on ".join(filter(None, (entry.backend, entry.device))),
            "Time": _seconds(entry.timings) if entry.timings else None,
            "Cost": dollars(entry.cost_usd) if entry.cost_usd else None,
        }
        if picture := _shown(folder, path, entry.request, more):
            yield picture
        else:
            contents.left_out += 1


def _seconds(timings: Timings) -> str:
    """From its turn to its file; others shared the work."""
    return f"{timings.total - timings.queued - timings.loading:.1f} s"


def _of_files(folder: Path, contents: Contents) -> Iterator[Shown]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in FORMAT_OF_SUFFIX or path.name.startswith(SHEET):
            continue
        if not _inside(folder, str(path.relative_to(folder))):
            continue
        try:
            recipe = read_recipe(path)
        except (UnreadableImage, NoRecipeInImage):
            recipe = None
        if recipe and (picture := _shown(folder, path, recipe.fields, {})):
            yield picture
        else:
            contents.left_out += 1


def _inside(folder: Path, name: str) -> Path | None:
    """The file of that name, if it is one and lies in the folder, links followed."""
    try:
        path = folder / native(name)
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return None
    return path if inside and not path.name.startswith(".") else None


def _shown(
    folder: Path, path: Path, request: Mapping[str, Any], more: Mapping[str, str | None]
) -> Shown | None:
    try:
        of = facts(path)
    except UnreadableImage:
        return None
    texts = {label: request.get(name) for name, label in _LABELS.items()}
    texts |= {"Size": f"{of.width} × {of.height}", **more}
    settings = {name: _text(value) for name, value in texts.items() if value not in (None, "")}
    prompt = _text(request.get("prompt", ""))
    return Shown(path.relative_to(folder).as_posix(), prompt, settings, (of.width, of.height))


def _text(value: object) -> str:
    return clean_text(f"{value:g}" if isinstance(value, float) else str(value))
