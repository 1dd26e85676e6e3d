"""What calls cost and how long they waited: kept by day, and held against the user's limits.

A call's cost is booked before it is made, and corrected when it is known, so that processes and
threads that ask at once cannot together spend more than the limit; one that is killed leaves what it
booked. No prompt is kept. This module does not know how a backend is asked. Every method may be called
from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shared.backends.config import BackendConfig, Limits
from shared.errors import CygnetError, SpendingLimit
from shared.files import check_folder
from shared.prices import dollars
from shared.settings import config_file
from shared.store.database import private_database, sqlite_errors, together, upgrade
from shared.store.wal import check_log

log = logging.getLogger(__name__)

_SCHEMA_1 = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    backend TEXT NOT NULL,
    images INTEGER NOT NULL,
    free INTEGER NOT NULL,
    usd REAL,
    cold INTEGER,
    waited REAL
) STRICT
"""
_DAY = 24 * 60 * 60
_KEPT_DAYS = 30
_RECENT = 9  # calls that an expectation is made from
_BUSY_SECONDS = 10.0  # for another process to finish its write


class Ledger:
    """The calls of one user, in `folder`. `now` tells the time in seconds since 1970.

    Without limits it is a convenience, and a disk that refuses it stops nobody.
    """

    def __init__(
        self, folder: Path, limits: Limits | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        self._now = now
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def book(self, config: BackendConfig, images: int) -> int | None:
        """Enter a call that is about to be made; its number, for `settle` and `release`.

        Raises `SpendingLimit` with the figure; where there are limits, also `DataUnusable`,
        `DiskFull` or `OutputUnwritable`, for then they cannot be held.
        """
        try:
            with self._transaction() as db:
                price = self._price(db, config)
                if not config.is_free:
                    self._check(db, config.name, price, images)
                usd = None if price is None else price * images
                row = (self._now(), config.name, images, config.is_free, usd)
                entered = db.execute(
                    "INSERT INTO calls (at, backend, images, free, usd) VALUES (?, ?, ?, ?, ?)", row
                )
                return entered.lastrowid
        except SpendingLimit:
            raise
        except CygnetError as error:
            if self._limits.any:
                raise
            log.warning("the call is not entered: %s", error)
            return None

    def settle(self, call: int | None, usd: float | None, cold: bool, waited: float | None) -> None:
        """What the call cost, if that is known, and how long it waited before its work began."""
        self._change(
            "UPDATE calls SET usd = ifnull(?, usd), cold = ?, waited = ? WHERE id = ?",
            (usd, cold, waited, call),
        )

    def release(self, call: int | None) -> None:
        """The call was not made after all."""
        self._change("DELETE FROM calls WHERE id = ?", (call,))

    def wait(self, backend: str, cold: bool) -> float | None:
        """Seconds that a call now is likely to wait: the median of the last ones like it."""
        with contextlib.suppress(CygnetError), self._transaction() as db:
            rows = db.execute(
                "SELECT waited FROM calls WHERE backend = ? AND cold = ? AND waited NOT NULL"
                " ORDER BY id DESC LIMIT ?",
                (backend, cold, _RECENT),
            ).fetchall()
            return statistics.median(row[0] for row in rows) if rows else None

    def close(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    def _check(self, db: sqlite3.Connection, name: str, price: float | None, images: int) -> None:
        limits, file = self._limits, config_file()
        calls, spent = db.execute(
            "SELECT count(*), ifnull(sum(usd), 0) FROM calls WHERE free = 0 AND at >= ? AND at < ?",
            (today := self._now() // _DAY * _DAY, today + _DAY),
        ).fetchone()
        if limits.calls_per_day is not None and calls >= limits.calls_per_day:
            raise SpendingLimit(
                f"{calls} calls were made today (UTC), and {limits.calls_per_day} may be.",
                f"Draw with --backend local, or raise limits.calls_per_day in {file}.",
            )
        if price is None:
            if (limits.per_image, limits.per_day) == (None, None):
                return
            raise SpendingLimit(
                f"What a picture costs on {name} is not known, and there is a limit in dollars.",
                f"Give {name} a price in {file}: `price = 0` if it costs nothing.",
            )
        if limits.per_image is not None and price > limits.per_image:
            raise SpendingLimit(
                f"A picture on {name} costs about {dollars(price)}, and may cost"
                f" {dollars(limits.per_image)}.",
                f"Draw it elsewhere, or raise limits.per_image in {file}.",
            )
        if limits.per_day is not None and spent + price * images > limits.per_day:
            raise SpendingLimit(
                f"This would cost about {dollars(price * images)} on {name}, and of"
                f" {dollars(limits.per_day)} for today (UTC) {dollars(spent)} is spent.",
                f"Draw it elsewhere, or raise limits.per_day in {file}.",
            )

    def _price(self, db: sqlite3.Connection, config: BackendConfig) -> float | None:
        """US dollars for a picture: as the user says, else what the last ones cost."""
        if config.price_usd is not None:
            return config.price_usd
        rows = db.execute(
            "SELECT usd, images FROM calls WHERE backend = ? AND usd NOT NULL"
            " ORDER BY id DESC LIMIT ?",
            (config.name, _RECENT),
        ).fetchall()
        return max((usd / images for usd, images in rows), default=None)

    def _change(self, statement: str, values: tuple[object, ...]) -> None:
        """Too late to refuse anything: what fails is told to the log alone."""
        try:
            with self._transaction() as db:
                db.execute(statement, values)
        except CygnetError as error:
            log.warning("the ledger does not have what a call cost: %s", error)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, while nobody else on this machine writes."""
        with self._lock, sqlite_errors(self._folder):
            db = self._connection = self._connection or self._open()
            with together(db):
                yield db

    def _open(self) -> sqlite3.Connection:
        check_folder(self._folder, private=True)
        file = self._folder / "calls.sqlite3"
        private_database(file)
        check_log(file, shared=True)
        db = sqlite3.connect(
            file,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            with together(db):
                upgrade(db, self._folder, (_SCHEMA_1,))
                [newest] = db.execute("SELECT max(at) FROM calls").fetchone()
                if newest is not None:  # a clock that is ahead makes nothing old
                    oldest = min(self._now(), newest) - _KEPT_DAYS * _DAY
                    db.execute("DELETE FROM calls WHERE at < ?", (oldest,))
        except BaseException:
            db.close()
            raise
        return db
