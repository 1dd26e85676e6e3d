"""The folder that a batch goes to: its terms, its manifest, its pictures, and one writer at a time.

A picture's file is whole before its line in the manifest. Where a kill came between the two, the file
is found by its name and known by the request inside it, so that it is not made twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.batch.manifest import Manifest
from shared.batch.names import Names
from shared.batch.plan import Item
from shared.errors import (
    DataUnusable,
    InvalidRequest,
    NoRecipeInImage,
    OutputExists,
    UnreadableImage,
)
from shared.files import check_folder, clear_errors, native, remove_strays, write_atomically
from shared.images import read_recipe

TERMS = "batch.json"
TOKEN = ".batch.token"


class Terms(BaseModel):
    """What has to stay the same from one run to the next, or the pictures would change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    name: str
    batch_seed: int
    sample: int | None
    fields: dict[str, Any]


class Folder:
    """Opened to write, it makes the folder and locks it; `readonly` changes nothing.

    Raises `InvalidRequest` if it was begun on other terms, `DataUnusable` if another process writes
    to it or if its terms cannot be read, and what a folder may raise.
    """

    def __init__(self, path: Path, terms: Terms, *, readonly: bool) -> None:
        self.path = path
        self._terms, self._names = terms, Names(terms.name)
        self._token = ""
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            if not readonly:
                check_folder(path)
                undo.enter_context(_lock(path))
                self._token = undo.enter_context(_token(path / TOKEN))
            self._keep_terms(readonly)
            self.manifest = undo.enter_context(Manifest(path))
            if not readonly:
                remove_strays(path)
            self._closing = undo.pop_all()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def name(self, item: Item) -> str:
        """The path of the picture's file within the folder. Raises `InvalidRequest`."""
        return self._names.name(item.number, item.line, item.request)

    def is_done(self, item: Item) -> bool:
        """Whether the picture is there. Raises `InvalidRequest` if it was made for another request."""
        entry = self.manifest.entry(item.number)
        if not entry or entry.status != "done" or not entry.file:
            return False
        if entry.request != item.request.model_dump(mode="json"):
            raise InvalidRequest(
                f"Picture {item.number}, from line {item.line}, was made already, and for another "
                f"request: {_short(entry.request.get('prompt'))}.",
                "Undo the change to the rows before it (new ones go to the end), or choose another "
                "--out.",
            )
        return (self.path / native(entry.file)).is_file()

    def find(self, item: Item) -> bool:
        """Whether the picture's file is there although the manifest does not know of it.

        Raises `OutputExists` if there is another file of its name.
        """
        path = self.path / native(self.name(item))
        if not path.exists():
            return False
        if not path.stat().st_size:  # a name that was claimed where there are no hard links
            path.unlink()
            return False
        with contextlib.suppress(UnreadableImage, NoRecipeInImage):
            if read_recipe(path).fields == item.request.model_dump(mode="json"):
                return True
        raise OutputExists(
            f"{path} exists and is another picture.", "Move it away, or choose another --out."
        )

    def call_key(self, item: Item, attempt: int) -> str:
        """Names a try of a picture: the same one again after a kill, and else one of its own."""
        last = self.manifest.entry(item.number)
        what = (self._token, item.number, last and last.finished, attempt, item.request)
        return hashlib.sha256(repr(what).encode()).hexdigest()

    def save(self, item: Item, image: bytes) -> None:
        """Write the picture's file."""
        path = self.path / native(self.name(item))
        if path.parent != self.path:
            with clear_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, image)

    def _keep_terms(self, readonly: bool) -> None:
        path = self.path / TERMS
        try:
            before = Terms.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            if not readonly:
                write_atomically(path, self._terms.model_dump_json(indent=2).encode())
            return
        except NotADirectoryError:
            raise InvalidRequest(
                f"{self.path} is no folder.", "Choose another --out.", ("out",)
            ) from None
        except (OSError, ValidationError):
            raise DataUnusable(
                f"{path} cannot be read.", "Restore it, or choose another --out."
            ) from None
        if changes := [*_changes(before, self._terms)]:
            raise InvalidRequest(
                f"{self.path} was begun with other settings: {'; '.join(changes)}.",
                "Give the same ones, or choose another --out.",
            )


def _changes(before: Terms, now: Terms) -> list[str]:
    old, new = (
        terms.fields | terms.model_dump(exclude={"version", "fields"}) for terms in (before, now)
    )
    return [
        f"{name} was {_short(old.get(name))} and is {_short(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _short(value: object) -> str:
    text = "left out" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextlib.contextmanager
def _token(path: Path) -> Iterator[str]:
    """A random text that is this run's, or the one of a run before it that was killed.

    A run that ends has ended all its jobs; those of one that was killed may go on elsewhere.
    """
    with clear_errors(path):
        if not path.exists():
            write_atomically(path, secrets.token_hex(16).encode())
        token = path.read_text()
    yield token
    with clear_errors(path):
        path.unlink(missing_ok=True)


def _lock(path: Path) -> FileLock:
    lock = FileLock(path / ".batch.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataUnusable(
            f"Another batch writes to {path}.", "Wait for it, or choose another --out."
        ) from None
    return lock
