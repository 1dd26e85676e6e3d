"""The SQLite file: opened for one process, its transactions, its errors in our tree.

This module does not know what the rows mean.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from shared.errors import DataUnusable, DiskFull
from shared.files import clear_errors, make_private
from shared.store.wal import check_log

_SCHEMA_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    request TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    result TEXT,
    error TEXT,
    UNIQUE (owner, idempotency_key)
) STRICT;
CREATE INDEX jobs_by_status ON jobs (status, number);
CREATE INDEX jobs_by_end ON jobs (finished);
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    id INTEGER NOT NULL,
    type TEXT NOT NULL,
    image INTEGER,
    data TEXT NOT NULL,
    preview BLOB,
    PRIMARY KEY (job, id)
) STRICT;
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    format TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) STRICT;
CREATE INDEX images_by_job ON images (job, number);
"""
_SCHEMA_2 = """
ALTER TABLE jobs ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN webhook TEXT;
DROP INDEX jobs_by_status;
CREATE INDEX jobs_by_status ON jobs (status, batch, number);
CREATE TABLE deliveries (
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL
) STRICT;
CREATE INDEX deliveries_by_due ON deliveries (due);
"""
_SCHEMA_3 = """
ALTER TABLE jobs ADD COLUMN attended INTEGER NOT NULL DEFAULT 0;
"""
_SCHEMA_4 = """
ALTER TABLE jobs ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN began INTEGER;
CREATE TABLE deaths (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    place INTEGER NOT NULL
) STRICT;
CREATE INDEX deaths_by_job ON deaths (job);
"""
_UPGRADES = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3, _SCHEMA_4)
"""Each brings a file from the version that is its place here to the next. Never change one that
was released: append."""


class Database:
    """One connection, which any thread may use, one at a time.

    Raises `DataUnusable`, or `DiskFull`, as do its methods.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._lock = threading.RLock()
        with contextlib.ExitStack() as undo:
            undo.callback(_own(self._folder).release)
            private_database(path)
            check_log(path)
            undo.enter_context(sqlite_errors(self._folder))
            self._connection = undo.enter_context(
                contextlib.closing(
                    sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
                )
            )
            self._connection.row_factory = sqlite3.Row
            self._prepare(self._connection)
            self._closing = undo.pop_all()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Two servers on one folder would each run the other's jobs again; a kill lets go of it.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file: it may shrink again
        connection.execute("PRAGMA journal_mode = WAL")
        # A kill loses nothing; a power cut may lose the last moments, and damages nothing.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        with self.transaction() as db:
            upgrade(db, self._folder, _UPGRADES)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, while no other thread uses it."""
        with self._lock, sqlite_errors(self._folder):
            yield self._connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, for changes that are made together or not at all."""
        with self.reading() as db:
            if db.in_transaction:  # within another one, which decides
                yield db
                return
            with together(db):
                yield db

    def close(self) -> None:
        with self._lock:
            self._closing.close()


def upgrade(db: sqlite3.Connection, folder: Path, steps: Sequence[str]) -> None:
    """Within a transaction: bring a file in `folder` from its version to the newest, a step for each.

    Raises `DataUnusable` if it is of a newer version of Cygnet.
    """
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise DataUnusable(
            f"{folder} was written by a newer version of Cygnet.",
            "Use that version, or another CYGNET_DATA_DIR.",
        )
    for step in steps[version:]:
        for statement in step.split(";"):
            db.execute(statement)
    if version < len(steps):
        db.execute(f"PRAGMA user_version = {len(steps)}")


def _own(folder: Path) -> FileLock:
    """The lock that makes a folder this process's own. SQLite's goes as soon as anything in the process
    closes the database's file, however it was opened; this one stays.

    Raises `DataUnusable`, or what a folder may raise.
    """
    lock = FileLock(folder / ".cygnet.lock", timeout=0, mode=0o600, thread_local=False)
    with clear_errors(folder):
        try:
            lock.acquire()
        except Timeout:
            raise _in_use(folder) from None
        except NotImplementedError:  # a file system without such locks: SQLite's is left
            pass
    return lock


def _in_use(folder: Path) -> DataUnusable:
    return DataUnusable(
        f"Another process uses {folder}.",
        "Stop it, or give this one another CYGNET_DATA_DIR.",
    )


def private_database(path: Path) -> None:
    """The file `path`, made if it is missing, and what SQLite keeps beside it: for this user alone.

    Raises what a file may raise.
    """
    make_private(path)
    for beside in (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", "-journal")):
        if beside.exists():  # what SQLite makes anew has the mode of the file
            make_private(beside)


@contextlib.contextmanager
def together(db: sqlite3.Connection) -> Iterator[None]:
    """Changes that are made together or not at all, while nobody else writes to the file."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled back already
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def sqlite_errors(folder: Path) -> Iterator[None]:
    """SQLite's errors, about a file in `folder`, as `DiskFull` or `DataUnusable`."""
    try:
        yield
    except sqlite3.Error as error:
        match getattr(error, "sqlite_errorcode", None):
            case sqlite3.SQLITE_FULL:
                raise DiskFull(
                    f"There is no room left in {folder}.",
                    "Free some space, or choose another disk.",
                ) from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise _in_use(folder) from error
            case _:
                raise DataUnusable(
                    f"What is kept in {folder} cannot be read or written: {error}.",
                    "Check the disk; to start without it, move the .sqlite3 file away, and with it"
                    " those that have its name and end in -wal and -shm.",
                ) from error
