"""`cygnet gallery`: a folder of pictures as a contact sheet and as a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shared.album.page import page
from shared.album.pictures import SHEET, read_folder
from shared.album.sheet import sheets
from shared.cli.parser import Commands
from shared.errors import OutputExists
from shared.files import write_atomically

_OURS = b"cygnet gallery"


def add(commands: Commands) -> None:
    gallery = commands.add_parser("gallery", help="lay a folder of pictures out, to look at")
    gallery.add_argument("folder", type=Path, metavar="DIR", help="pictures, or a batch's --out")
    gallery.set_defaults(run=_gallery)


def _gallery(args: argparse.Namespace) -> None:
    contents = read_folder(args.folder)
    _write(args.folder / "gallery.html", page(contents).encode())
    for number, sheet in enumerate(sheets(args.folder, contents), 1):
        suffix = f"-{number}" if number > 1 else ""
        _write(args.folder / f"{SHEET}{suffix}.png", sheet)
    if contents.left_out:
        count = f"{contents.left_out:,} that cannot be shown or do not say how they were made"
        print(f"Left out: {count}.", file=sys.stderr)


def _write(path: Path, data: bytes) -> None:
    """Write a file of ours, in place of an older one of ours. Raises `OutputExists` for another."""
    if path.exists():
        with path.open("rb") as file:
            if _OURS not in file.read(2**12):
                raise OutputExists(f"{path} exists and is not ours.", "Move it away.")
    write_atomically(path, data, force=True)
    print(path)
