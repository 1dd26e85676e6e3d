"""Files that are written whole or not at all, and never over another one unasked.

The data goes to a hidden temporary file beside the target, reaches the disk, and only then gets its
name. This module does not know what is in a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shared.errors import DiskFull, OutputExists, OutputUnwritable

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

_TEMPORARY = re.compile(r"\.cygnet-[0-9a-f]{16}")


def native(name: str) -> str:
    """A name of a file as this process spells it, so that the disk has it in UTF-8: in a locale whose
    encoding lacks its letters, and in another one later, it is the same file."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def as_text(name: str) -> str:
    """A name of a file, as the system gave it, as text that can be written anywhere."""
    return os.fsencode(name).decode("utf-8", "replace")


def is_folder(name: str) -> bool:
    """Whether there is a folder of that name; unlike `Path.is_dir`, never an error."""
    try:
        return Path(name).is_dir()
    except OSError:
        return False


def check_folder(folder: Path, *, private: bool = False) -> None:
    """Make `folder` if it is missing, and prove that a file can be made in it.

    A `private` one, and what is made above it, is for this user alone; one that is there stays as
    it is.

    Raises `OutputUnwritable` or `DiskFull`.
    """
    with clear_errors(folder):
        try:
            _make_folder(folder, 0o700 if private else 0o777)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder") from None
        with _temporary(folder) as temporary:
            temporary.touch(exist_ok=False)


def check_room(folder: Path, size: int) -> None:
    """Prove that a file of so many bytes can be made in `folder`: a quota may allow less than there
    is. Raises `OutputUnwritable` or `DiskFull`."""
    with clear_errors(folder), _temporary(folder) as temporary:
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary.write_bytes(bytes(size))


def _make_folder(folder: Path, mode: int) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent, mode)  # `Path.mkdir` gives the parents a mode of its own
        folder.mkdir(mode, exist_ok=True)


def make_private(path: Path) -> None:
    """The file `path`, empty if it was missing, for this user alone from here on.

    For a file that another library opens. One that is there is not opened here: SQLite's locks belong to
    the process, and whoever closes the file lets go of them all.
    """
    with clear_errors(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            with contextlib.suppress(OSError):  # another user's: who may not read it is told so
                path.chmod(0o600)


def make_folder_private(folder: Path) -> None:
    """Nobody else may look into `folder` from here on, if it is this user's."""
    with contextlib.suppress(OSError):
        folder.chmod(0o700)


def remove_strays(folder: Path) -> None:
    """Remove what writers that were killed left behind, in `folder` and below."""
    for path in folder.rglob(".cygnet-*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def check_free(path: Path) -> None:
    """Raises `OutputExists` if there is something at `path`, a broken link included."""
    if os.path.lexists(path):
        raise _exists(path)


def write_atomically(
    path: Path, data: bytes, *, force: bool = False, private: bool = False
) -> None:
    """Write `data` to a new file `path`; with `force`, in place of the file that is there.

    A `private` one is for this user alone. Of several writers of one name exactly one wins. Raises
    `OutputExists`, `OutputUnwritable` or `DiskFull`, and leaves nothing behind then.
    """
    with open_atomically(path, force=force, private=private) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomically(
    path: Path, *, force: bool = False, private: bool = False
) -> Iterator[BinaryIO]:
    """As `write_atomically`, for data that comes bit by bit: the name is given when the block ends."""
    with clear_errors(path), _temporary(path.parent) as temporary:
        with open(temporary, "xb", opener=_private if private else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            temporary.replace(path)
            return
        try:
            _name(temporary, path)
        except FileExistsError:
            raise _exists(path) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _name(temporary: Path, path: Path) -> None:
    """Give the finished file its name; unlike a rename, this fails if the name is taken."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        path.touch(exist_ok=False)  # claims the name where there are no hard links, as on exFAT
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    path = folder / f".cygnet-{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turns the system's errors while `path` is written into `DiskFull` or `OutputUnwritable`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(
                f"There is no room left for {path}.", "Free some space, or choose another disk."
            ) from error
        raise OutputUnwritable(
            f"{path} cannot be written: {error.strerror}.",
            "Choose another place, or change its permissions.",
        ) from error


def _exists(path: Path) -> OutputExists:
    return OutputExists(f"{path} exists.", "Choose another name, or add --force to replace it.")
