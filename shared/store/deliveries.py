"""Which webhooks are still to be called, and when: kept until they were, or are given up."""

from __future__ import annotations

from collections.abc import Callable, Collection

from shared.store.database import Database
from shared.store.records import Delivery

LONGEST_WAIT = 24 * 60 * 60.0
"""Nothing is put off for longer: what is due later was dated by a clock that was ahead, and is due."""

_DUE = "(due <= ? OR due > ?)"


class Deliveries:
    """A delivery is due once its job has ended: `Store` adds it in the transaction that ends it."""

    def __init__(self, db: Database, now: Callable[[], float]) -> None:
        self._db = db
        self._now = now

    def add(self, job: str) -> None:
        """Within the transaction that ends a job: its webhook, if it has one, is due now."""
        with self._db.transaction() as db:
            db.execute(
                "INSERT INTO deliveries SELECT id, 0, ? FROM jobs"
                " WHERE id = ? AND webhook IS NOT NULL",
                (self._now(), job),
            )

    def due(
        self, limit: int, jobs: Collection[str] = (), owners: Collection[str] = ()
    ) -> list[Delivery]:
        """Those whose time has come, the longest due first; none of those jobs, or owners."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT job, owner, webhook AS url, deliveries.attempts FROM deliveries"
                f" JOIN jobs ON id = job WHERE {_DUE} AND {_neither(jobs, owners)}"
                " ORDER BY due LIMIT ?",
                (*self._limits(), *jobs, *owners, limit),
            ).fetchall()
        return [Delivery(**row) for row in rows]

    def wait(self, jobs: Collection[str] = (), owners: Collection[str] = ()) -> float | None:
        """Seconds until the next one is due, apart from those jobs and owners; None if none is."""
        with self._db.reading() as db:
            query = (
                f"SELECT min(due), max({_DUE}) FROM deliveries JOIN jobs ON id = job"
                f" WHERE {_neither(jobs, owners)}"
            )
            due, now = db.execute(query, (*self._limits(), *jobs, *owners)).fetchone()
        if due is None:
            return None
        return 0.0 if now else due - self._now()

    def _limits(self) -> tuple[float, float]:
        return self._now(), self._now() + LONGEST_WAIT

    def put_off(self, job: str, seconds: float) -> None:
        """The call failed: try again after so many seconds."""
        with self._db.transaction() as db:
            db.execute(
                "UPDATE deliveries SET attempts = attempts + 1, due = ? WHERE job = ?",
                (self._now() + seconds, job),
            )

    def remove(self, job: str) -> None:
        """It was delivered, or is given up."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM deliveries WHERE job = ?", (job,))


def _neither(jobs: Collection[str], owners: Collection[str]) -> str:
    one, other = (", ".join("?" * len(names)) for names in (jobs, owners))
    return f"job NOT IN ({one}) AND owner NOT IN ({other})"
