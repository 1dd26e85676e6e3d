"""What the page keeps on the disk for a while: pictures for a browser to fetch, and uploads to read.

Each file lies in a folder of its own under a random name, and an address is that name with the file's:
who does not know it cannot ask for it, and no path of a client's is ever opened. Everything goes when its
time is over, an upload when its page is closed, and all of it when the server stops.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.api.rate_limit import RateLimit
from shared.errors import InvalidCall, NotFound, RateLimited
from shared.files import (
    check_folder,
    clear_errors,
    make_folder_private,
    open_atomically,
    write_atomically,
)
from shared.images import MAX_FILE_BYTES

STRANGERS = "strangers"
"""Those who upload without having opened the page: all of them share what one visitor may keep."""

_OURS = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Limits:
    """What may be kept, in bytes, uploads a minute, and seconds."""

    keep_bytes: int
    """Of pictures and uploads together: a part of what the operator allows."""
    upload_rate: int = 20
    """Of one visitor."""
    upload_rate_of_all: int = 200
    upload_seconds: float = 600.0
    """An upload is read within a moment, and forgotten when its page is closed, if not before."""
    picture_seconds: float = 24 * 60 * 60.0

    @property
    def uploads(self) -> int:
        """Of all visitors together."""
        return min(8 * MAX_FILE_BYTES, self.keep_bytes // 2)

    @property
    def uploads_of_one(self) -> int:
        return min(2 * MAX_FILE_BYTES, self.uploads // 2)

    @property
    def pictures(self) -> int:
        return self.keep_bytes - self.uploads


@dataclass(frozen=True)
class _File:
    path: Path
    owner: str
    size: int
    due: float
    counted_to: str = ""
    """Of an upload: whose share it takes."""
    about: frozenset[str] = frozenset()
    """Of a picture: the ids, in the gallery, of those that it shows."""


class PageFiles:
    """Those of one page, in `folder`, which belongs to it. For use from any thread.

    `now` tells the time in seconds.
    """

    def __init__(
        self, folder: Path, limits: Limits, now: Callable[[], float] = time.monotonic
    ) -> None:
        check_folder(folder, private=True)
        make_folder_private(folder)
        self.folder = folder
        self._limits = limits
        self._now = now
        self._pictures: dict[str, _File] = {}
        self._picture_bytes = 0
        self._uploads: dict[str, _File] = {}
        self._rates = RateLimit(limits.upload_rate, now), RateLimit(limits.upload_rate_of_all, now)
        self._lock = threading.Lock()
        for path in folder.iterdir():  # left by a server that was killed
            if _OURS.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    # Pictures

    def add(self, data: bytes, name: str, owner: str, about: Collection[str] = ()) -> str:
        """The address of a new picture, which only `owner` may fetch; the oldest make room for it.

        Raises `DiskFull` or `OutputUnwritable`.
        """
        key = secrets.token_hex(16)
        with self._new_file(key, name) as path, clear_errors(path):
            write_atomically(path, data, private=True)
        due = self._now() + self._limits.picture_seconds
        with self._lock:
            self._pictures[key] = _File(path, owner, len(data), due, about=frozenset(about))
            self._picture_bytes += len(data)
            while self._picture_bytes > self._limits.pictures and len(self._pictures) > 1:
                self._delete_picture(next(iter(self._pictures)))
        return f"{key}/{name}"

    def find(self, address: str, owner: str) -> Path:
        """The picture of that address. Raises `NotFound`, also if it is another owner's."""
        with self._lock:
            file = _named(self._pictures, address)
        if file is None or file.owner != owner:
            raise NotFound("There is no such file.", "Load the page again.")
        return file.path

    def has(self, address: str) -> bool:
        with self._lock:
            return _named(self._pictures, address) is not None

    def forget(self, about: str, owner: str) -> None:
        """Delete every copy of the gallery's picture of that id."""
        with self._lock:
            for key, file in list(self._pictures.items()):
                if about in file.about and file.owner == owner:
                    self._delete_picture(key)

    # Uploads

    @contextlib.contextmanager
    def room_for_upload(self, size: int, counted_to: str) -> Iterator[None]:
        """Room for that many bytes within the block; what it adds is counted too.

        Raises `RateLimited`, or `InvalidCall` if there is never so much room.
        """
        if size > self._limits.uploads_of_one:
            raise InvalidCall(
                f"The upload is larger than the {self._limits.uploads_of_one} bytes that are kept.",
                "Send a smaller one.",
                413,
            )
        coming = _File(self.folder, "", size, math.inf, counted_to)
        key = secrets.token_hex(8)  # too short for an address, so that nobody can name it
        with self._lock:
            self._check_room(coming)
            for rate, whose in zip(self._rates, (counted_to, ""), strict=True):
                _take(rate, whose)
            self._uploads[key] = coming
        try:
            yield
        finally:
            with self._lock:
                del self._uploads[key]

    def add_upload(self, data: BinaryIO, owner: str, counted_to: str) -> str:
        """The address of a new upload, which only `owner` may name.

        Raises `DiskFull` or `OutputUnwritable`.
        """
        key, name = secrets.token_hex(16), "upload"  # and nothing of the name that it came with
        with self._new_file(key, name) as path, open_atomically(path, private=True) as file:
            shutil.copyfileobj(data, file)
            size = file.tell()
        due = self._now() + self._limits.upload_seconds
        with self._lock:
            self._uploads[key] = _File(path, owner, size, due, counted_to)
        return f"{key}/{name}"

    def upload(self, address: str, owner: str) -> Path:
        """The upload of that address. Raises `NotFound`, also if it is another visitor's."""
        with self._lock:
            file = _named(self._uploads, address)
        if file is None or file.owner != owner:
            raise NotFound("No upload of yours has this name.", "Upload the file, then name it.")
        return file.path

    def forget_uploads(self, owner: str) -> None:
        """Their page is closed."""
        self._delete_uploads(lambda file: file.owner == owner and file.due < math.inf)

    # Both

    def sweep(self) -> None:
        """Delete what has had its time."""
        now = self._now()
        self._delete_uploads(lambda file: file.due <= now)
        with self._lock:
            for key, file in list(self._pictures.items()):
                if file.due > now:  # they are in the order of their time
                    break
                self._delete_picture(key)

    def clear(self) -> None:
        self._delete_uploads(lambda file: file.due < math.inf)
        with self._lock:
            for key in list(self._pictures):
                self._delete_picture(key)

    @contextlib.contextmanager
    def _new_file(self, key: str, name: str) -> Iterator[Path]:
        """Where to write it; its folder goes again if that fails."""
        folder = self.folder / key
        with clear_errors(folder):
            folder.mkdir(0o700)
        try:
            yield folder / name
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _check_room(self, coming: _File) -> None:
        uploads = list(self._uploads.values())
        theirs = [file for file in uploads if file.counted_to == coming.counted_to]
        shares = (theirs, self._limits.uploads_of_one), (uploads, self._limits.uploads)
        for kept, most in shares:
            if sum(file.size for file in kept) + coming.size > most:
                until = min(file.due for file in kept) - self._now()
                raise RateLimited(
                    "There is no room for more uploads now.",
                    "Send it later.",
                    retry_after=math.ceil(min(max(1, until), self._limits.upload_seconds)),
                )

    def _delete_uploads(self, which: Callable[[_File], bool]) -> None:
        with self._lock:
            for key in [key for key, file in self._uploads.items() if which(file)]:
                shutil.rmtree(self._uploads.pop(key).path.parent, ignore_errors=True)

    def _delete_picture(self, key: str) -> None:
        file = self._pictures.pop(key)
        self._picture_bytes -= file.size
        shutil.rmtree(file.path.parent, ignore_errors=True)


def _named(files: dict[str, _File], address: str) -> _File | None:
    """The one of that address, unless somebody else deleted it."""
    key, _, name = address.partition("/")
    file = files.get(key) if _OURS.fullmatch(key) else None
    return file if file and file.path.name == name and file.path.is_file() else None


def _take(rate: RateLimit, whose: str) -> None:
    try:
        rate.take(whose)
    except RateLimited as error:
        raise RateLimited(
            "There were too many uploads within a minute.",
            "Send the next one later.",
            retry_after=error.retry_after,
        ) from None
