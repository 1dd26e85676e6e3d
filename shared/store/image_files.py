"""The folder of images: each file is named after its image, and written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path

from shared.errors import NotFound
from shared.files import check_folder, check_room, make_folder_private, write_atomically
from shared.formats import FORMATS
from shared.store.records import StoredImage

_OURS = re.compile(rf"[0-9a-f]{{32}}-\d+\.({'|'.join(FORMATS)})|\.cygnet-[0-9a-f]{{16}}")


class ImageFiles:
    """Knows no rows: who lists an image is another's affair. Raises `DiskFull` where it writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        check_folder(folder, private=True)
        make_folder_private(folder)  # it was there before, and only images are in it

    def write(self, image: StoredImage, data: bytes) -> None:
        write_atomically(self._path(image), data, force=True, private=True)

    def check_room(self, size: int) -> None:
        """Raises `DiskFull` or `OutputUnwritable` if a file of so many bytes cannot be written."""
        check_room(self._folder, size)

    def read(self, image: StoredImage) -> bytes:
        """Raises `NotFound` if the file is gone."""
        try:
            return self._path(image).read_bytes()
        except FileNotFoundError:
            raise not_found("image") from None

    def remove(self, image: StoredImage) -> None:
        self._path(image).unlink(missing_ok=True)

    def remove_strays(self, known: Container[str]) -> None:
        """Remove files that a kill left without a row, and only what is named as ours are."""
        for path in self._folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in known:
                path.unlink(missing_ok=True)

    def _path(self, image: StoredImage) -> Path:
        return self._folder / file_name(image.id, image.format)


def file_name(image: str, file_format: str) -> str:
    return f"{image}.{file_format}"


def not_found(what: str) -> NotFound:
    return NotFound(
        f"There is no such {what}.", "Check the id; what is old is removed after a while."
    )
