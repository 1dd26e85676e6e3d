"""`cygnet gallery`: a folder of pictures as a contact sheet and as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shared.album.page import page
from shared.album.pictures import SHEET, read_folder
from shared.album.sheet import sheets
from shared.cli.parser import Commands
from shared.contract import clean_text
from shared.errors import OutputExists
from shared.files import clear_errors, write_atomically

_OURS = b"cygnet gallery"
_MOST_NAMED = 5


def add(commands: Commands) -> None:
    gallery = commands.add_parser("gallery", help="lay a folder of pictures out, to look at")
    gallery.add_argument("folder", type=Path, metavar="DIR", help="pictures, or a batch's --out")
    gallery.set_defaults(run=_gallery)


def _gallery(args: argparse.Namespace) -> None:
    contents = read_folder(args.folder)
    _write(args.folder / "gallery.html", page(contents).encode())
    number = 0
    for number, sheet in enumerate(sheets(args.folder, contents), 1):
        _write(_sheet(args.folder, number), sheet)
    while _is_ours(stale := _sheet(args.folder, number + 1)):  # of when there were more pictures
        with clear_errors(stale):
            stale.unlink()
        number += 1
    if unseen := contents.not_unpacked:
        named = ", ".join(map(clean_text, unseen[:_MOST_NAMED]))
        more = f" and {len(unseen) - _MOST_NAMED:,} more" if len(unseen) > _MOST_NAMED else ""
        print(f"Empty on the sheet, damaged or too large: {named}{more}.", file=sys.stderr)
    if contents.left_out:
        count = f"{contents.left_out:,} that cannot be shown or do not say how they were made"
        print(f"Left out: {count}.", file=sys.stderr)


def _sheet(folder: Path, number: int) -> Path:
    """The file of the contact sheet of that number, from 1."""
    return folder / f"{SHEET}{f'-{number}' if number > 1 else ''}.png"


def _is_ours(path: Path) -> bool:
    """Whether it is a file that an earlier call wrote."""
    if not path.is_file():
        return False
    with clear_errors(path), path.open("rb") as file:
        return _OURS in file.read(2**12)


def _write(path: Path, data: bytes) -> None:
    """Write a file of ours, in place of an older one of ours. Raises `OutputExists` for another."""
    if path.exists() and not _is_ours(path):
        raise OutputExists(f"{path} exists and is not ours.", "Move it away.")
    write_atomically(path, data, force=True)
    print(path)
