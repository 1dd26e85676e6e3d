"""Which jobs may have killed the process before this one, and which of them does it again and again.

Of a process that died nothing is known but which jobs it had at work. Any of them may be to blame, or
none: somebody may have killed it. So they are taken one at a time until each has ended, and a death
speaks against a job only if that job alone was at work. One that kills does so at the same place each
time, somebody else's kills come anywhere: so few deaths at one place end a job, and only more of them
at different places. This module does not know who takes the jobs.
"""

from __future__ import annotations

import sqlite3

from shared.errors import InternalError
from shared.store.database import Database

MAX_ATTEMPTS = 3
"""Deaths at one place of its work, with nothing else at work, that end a job."""

MAX_DEATHS = 2 * MAX_ATTEMPTS
"""Such deaths at whatever place."""


class Suspects:
    """A job's `began` is its last event before its work; none while it cannot be blamed."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def any(self) -> bool:
        """Whether there are some, at work or waiting: then nothing else is to run."""
        with self._db.reading() as db:
            query = "SELECT 1 FROM jobs WHERE finished IS NULL AND suspect"
            return db.execute(query).fetchone() is not None

    def next(self) -> int | None:
        """The number of the one to take next: those that most deaths speak against come last, so
        that the others are cleared before it dies again."""
        with self._db.reading() as db:
            row = db.execute(
                "SELECT number FROM jobs WHERE finished IS NULL AND suspect AND status = 'queued'"
                " ORDER BY (SELECT count(*) FROM deaths WHERE job = jobs.id), number"
            ).fetchone()
            return row and row["number"]

    def excuse(self) -> None:
        """The process was told to stop: if it is killed now, it is not for what is at work."""
        with self._db.transaction() as db:
            db.execute("UPDATE jobs SET began = NULL WHERE status = 'running'")

    def judge(self, job: sqlite3.Row, *, alone: bool) -> InternalError | None:
        """The process died with this job at work, `alone` or not: what ends the job, or None if it
        is to run again."""
        if job["began"] is None:
            return None
        with self._db.transaction() as db:
            db.execute("UPDATE jobs SET suspect = 1 WHERE id = ?", (job["id"],))
            if not alone:
                return None
            db.execute(
                "INSERT INTO deaths SELECT ?, count(*) FROM events"
                " WHERE job = ? AND id > ? AND type IN ('step', 'image')",
                (job["id"], job["id"], job["began"]),
            )
            rows = db.execute("SELECT place FROM deaths WHERE job = ? ORDER BY rowid", (job["id"],))
            places = [row["place"] for row in rows]
        if places.count(places[-1]) < MAX_ATTEMPTS and len(places) < MAX_DEATHS:
            return None
        return InternalError(
            f"The server died {len(places)} times while this job, and no other, was at work.",
            "If somebody stopped the server, send the job again; if not, it may have run out of"
            " memory: ask for a smaller size, or see its log.",
        )
