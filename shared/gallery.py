"""Pictures that were made, on disk and searchable: files in a folder, and an index of their requests.

A picture's id is a digest of its file, so that the same picture is kept once however often it is made.
Its request is read out of the file; the index keeps it when the file is deleted, so that a prompt
outlives its picture. Several processes may use one folder at once. This module does not know who makes
pictures; an owner is any text, and "" owns those of whoever uses this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.contract import GenerationResult
from shared.errors import NotFound, UnreadableImage
from shared.files import check_folder, write_atomically
from shared.formats import SUFFIXES
from shared.images import read_recipe
from shared.store.database import private_database, sqlite_errors, together, upgrade
from shared.store.wal import check_log

_SCHEMA_1 = """
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    owner TEXT NOT NULL,
    created REAL NOT NULL,
    request TEXT NOT NULL,
    words TEXT NOT NULL,
    size INTEGER NOT NULL,
    backend TEXT NOT NULL,
    device TEXT NOT NULL,
    seconds REAL,
    cost_usd REAL,
    UNIQUE (owner, id)
) STRICT
"""

_WAIT = 10.0  # seconds for another process to finish its write


@dataclass(frozen=True)
class Picture:
    """What is known of a picture; `path` is gone if someone deleted the file."""

    id: str
    path: Path
    created: float
    """Seconds since 1970."""
    request: dict[str, Any]
    """The one that makes this picture alone again."""
    backend: str
    device: str
    seconds: float | None
    """What the whole generation took, all its pictures together."""
    cost_usd: float | None
    """Of the whole generation, where a price is known."""

    @property
    def seed(self) -> int:
        return self.request["seed"]

    @property
    def format(self) -> str:
        return self.request["output_format"]


class Gallery:
    """One folder of pictures. Every method may raise `DiskFull` or `DataUnusable`.

    `keep_bytes` bounds what the files take together; the oldest go first. `now` tells the time.
    """

    def __init__(
        self, folder: Path, keep_bytes: int = 10 * 2**30, now: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._now = now
        self._lock = threading.Lock()
        check_folder(folder, private=True)
        private_database(folder / "gallery.sqlite3")
        check_log(folder / "gallery.sqlite3", shared=True)
        with sqlite_errors(folder):
            self._connection = sqlite3.connect(
                folder / "gallery.sqlite3", timeout=_WAIT, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            with together(self._connection):
                upgrade(self._connection, folder, (_SCHEMA_1,))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def add(self, image: bytes, result: GenerationResult | None = None, owner: str = "") -> Picture:
        """Keep the file `image`, which has its request inside; `result` says how it was made.

        Adding it again, as when the result is known only later, keeps what is known of both.
        Raises `UnreadableImage` if it is no picture of Cygnet's.
        """
        request = _request(image)
        key = hashlib.sha256(image).hexdigest()[:32]
        path = self._path(key, request)
        if not path.exists():  # its name says what is in it
            write_atomically(path, image, force=True, private=True)
        words = [str(request.get(name, "")) for name in _SEARCHED]
        facts = {
            "id": key,
            "owner": owner,
            "created": self._now(),
            "request": json.dumps(request),
            "words": "\n".join(words).casefold(),
            "size": len(image),
            "backend": result.backend if result else "",
            "device": result.device if result else "",
            "seconds": result.timings.total if result else None,
            "cost_usd": result.cost_usd if result else None,
        }
        with self._index() as index:
            index.execute(_ADD, facts)
        self._prune()
        return self.picture(key, owner)

    def search(
        self, text: str = "", *, owner: str = "", limit: int = 50, after: str | None = None
    ) -> list[Picture]:
        """At most `limit` of an owner's pictures, newest first, that have every word of `text`.

        Words are looked for in the prompts, the checkpoint's name and the seed, in any case. `after`
        is the last id of the page before. Raises `NotFound` if there is none of that id.
        """
        words = text.casefold().split()[:_MOST_WORDS]
        newest = 2**63 - 1 if after is None else self._row(after, owner)["number"]
        found = " AND ".join(["owner = ?", "number < ?", *["instr(words, ?)"] * len(words)])
        with self._index() as index:
            rows = index.execute(
                f"SELECT * FROM pictures WHERE {found} ORDER BY number DESC LIMIT ?",
                (owner, newest, *words, limit),
            ).fetchall()
        return [self._picture(row) for row in rows]

    def picture(self, key: str, owner: str = "") -> Picture:
        """Raises `NotFound`, also if it is another owner's."""
        return self._picture(self._row(key, owner))

    def read(self, picture: Picture) -> bytes:
        """Its file. Raises `NotFound` if that was deleted."""
        try:
            return picture.path.read_bytes()
        except FileNotFoundError:
            raise _not_found() from None

    def remove(self, key: str, owner: str = "") -> None:
        """Forget a picture, and delete its file unless another owner has it too."""
        row = self._row(key, owner)
        with self._index() as index:
            self._forget(index, row)

    def _prune(self) -> None:
        """Forget the oldest pictures, never the newest, until the rest fits."""
        with self._index() as index:
            kept = index.execute("SELECT ifnull(sum(size), 0) FROM pictures").fetchone()[0]
            if kept <= self._keep_bytes:
                return
            rows = index.execute("SELECT * FROM pictures ORDER BY number").fetchall()
            for row in rows[:-1]:
                if kept <= self._keep_bytes:
                    return
                self._forget(index, row)
                kept -= row["size"]

    def _forget(self, index: sqlite3.Connection, row: sqlite3.Row) -> None:
        index.execute("DELETE FROM pictures WHERE number = ?", (row["number"],))
        if not index.execute("SELECT 1 FROM pictures WHERE id = ?", (row["id"],)).fetchone():
            self._picture(row).path.unlink(missing_ok=True)

    def _row(self, key: str, owner: str) -> sqlite3.Row:
        with self._index() as index:
            row = index.execute(
                "SELECT * FROM pictures WHERE id = ? AND owner = ?", (key, owner)
            ).fetchone()
        if row is None:
            raise _not_found()
        return row

    def _picture(self, row: sqlite3.Row) -> Picture:
        request = json.loads(row["request"])
        facts = {name: row[name] for name in ("id", "created", "backend", "device", "seconds")}
        path = self._path(row["id"], request)
        return Picture(path=path, request=request, cost_usd=row["cost_usd"], **facts)

    def _path(self, key: str, request: dict[str, Any]) -> Path:
        return self._folder / f"{key}{SUFFIXES[request['output_format']]}"

    @contextlib.contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The index, for one transaction."""
        with self._lock, sqlite_errors(self._folder), self._connection:
            yield self._connection


_SEARCHED = ("prompt", "negative_prompt", "checkpoint", "seed")
_MOST_WORDS = 20

_ADD = """
INSERT INTO pictures (id, owner, created, request, words, size, backend, device, seconds, cost_usd)
VALUES (:id, :owner, :created, :request, :words, :size, :backend, :device, :seconds, :cost_usd)
ON CONFLICT (owner, id) DO UPDATE SET
    backend = coalesce(nullif(excluded.backend, ''), backend),
    device = coalesce(nullif(excluded.device, ''), device),
    seconds = coalesce(excluded.seconds, seconds),
    cost_usd = coalesce(excluded.cost_usd, cost_usd)
"""


def _request(image: bytes) -> dict[str, Any]:
    """The request in a file of ours; one from elsewhere may claim anything to be one."""
    recipe = read_recipe(image)
    fields = recipe.fields
    kinds = {"prompt": str, "seed": int, "output_format": str}
    known = all(isinstance(fields.get(name), kind) for name, kind in kinds.items())
    if recipe.writer != "cygnet" or not known or fields["output_format"] not in SUFFIXES:
        raise UnreadableImage(
            "The picture's settings are not those of a picture by Cygnet.",
            "Give the file as Cygnet made it.",
        )
    return fields


def _not_found() -> NotFound:
    return NotFound("There is no such picture.", "Search the gallery for those there are.")
