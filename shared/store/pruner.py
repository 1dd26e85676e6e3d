"""What is let go of, the oldest first: what is too old, and what takes too much room.

A clock can be wrong, and what is deleted is gone. So age counts only while the clock keeps step with
the machine's uptime: after a jump, forward or back, or a start at another time than was expected,
nothing goes for its age until the clock has been steady for a while. Room counts at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from shared.store.database import Database
from shared.store.image_files import ImageFiles
from shared.store.records import StoredImage
from shared.store.rows import read_job

STEADY_SECONDS = 60 * 60.0
"""How long the clock has to keep step after a jump; and what is more than that is one."""


class Pruner:
    """`now` tells the time, `uptime` seconds that no change of the clock can move."""

    def __init__(
        self,
        db: Database,
        files: ImageFiles,
        now: Callable[[], float],
        uptime: Callable[[], float],
    ) -> None:
        self._db, self._files = db, files
        self._now, self._uptime = now, uptime
        with db.reading() as connection:
            query = "SELECT max(max(created), ifnull(max(finished), 0)) FROM jobs"
            newest = connection.execute(query).fetchone()[0]
        self._seen = (now() if newest is None else newest, uptime())
        self._jumped: float | None = None

    def prune(self, max_age: float, max_bytes: int) -> int:
        """Remove ended jobs with their images: those that ended more than `max_age` seconds ago,
        then more until what is left takes at most `max_bytes`; how many."""
        steady, now = self._is_steady(), self._now()
        doomed: list[StoredImage] = []
        removed = 0
        with self._db.transaction() as db:
            if steady:  # what ended while the clock was ahead would else stay until then
                db.execute("UPDATE jobs SET finished = ? WHERE finished > ?", (now, now))
            pictures = db.execute("SELECT ifnull(sum(size), 0) FROM images").fetchone()[0]
            while row := db.execute(
                "SELECT * FROM jobs WHERE finished IS NOT NULL ORDER BY finished LIMIT 1"
            ).fetchone():
                is_old = steady and row["finished"] < now - max_age
                if not is_old and pictures + row_bytes(db) <= max_bytes:
                    break
                images = read_job(db, row).images
                db.execute("DELETE FROM jobs WHERE id = ?", (row["id"],))
                pictures -= sum(image.size for image in images)
                doomed += images
                removed += 1
        for image in doomed:
            self._files.remove(image)
        if removed:
            with self._db.reading() as db:
                db.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page
        return removed

    def _is_steady(self) -> bool:
        now, uptime = self._now(), self._uptime()
        then, before = self._seen
        self._seen = now, uptime
        if abs((now - then) - (uptime - before)) > STEADY_SECONDS:
            self._jumped = uptime
        return self._jumped is None or uptime - self._jumped >= STEADY_SECONDS


def row_bytes(db: sqlite3.Connection) -> int:
    """What the rows take on the disk, those of jobs without a picture included."""
    [size], [pages], [free] = (
        db.execute(f"PRAGMA {name}").fetchone()
        for name in ("page_size", "page_count", "freelist_count")
    )
    return size * (pages - free)
