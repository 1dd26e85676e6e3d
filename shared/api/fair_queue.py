"""Whose turn it is: interactive jobs go before batch ones, and both make progress."""

from __future__ import annotations

from shared.store import Job, Store

BATCH_TURN = 4
"""Where both kinds wait, every so many starts one goes to the batch job that waits longest."""


class FairQueue:
    """Takes jobs from a store to run up to `concurrency` at once.

    Batch jobs take at most three quarters of the places, in the queue and at work, so that one place
    is free for who comes and looks; where there is one place only, they have it in turn.
    """

    def __init__(self, store: Store, concurrency: int, max_queued: int) -> None:
        self._store = store
        self._batch_places = max(1, concurrency * 3 // 4)
        self._max_queued = max_queued
        self._batch_running: set[str] = set()
        self._starts = 0  # since a batch job was started

    def room(self, *, batch: bool) -> int:
        """How many jobs may wait for another one of that kind to be accepted."""
        return -(-self._max_queued * 3 // 4) if batch else self._max_queued

    def take(self) -> Job | None:
        """The next job to run, now running; None if none waits that may."""
        if len(self._batch_running) >= self._batch_places:
            kinds = (False,)
        elif self._starts >= BATCH_TURN - 1:
            kinds = (True, False)
        else:
            kinds = (False, True)
        job = self._store.take(kinds)
        if job:
            self._starts = 0 if job.batch else self._starts + 1
            if job.batch:
                self._batch_running.add(job.id)
        return job

    def ended(self, job: str) -> None:
        """Its place is free again."""
        self._batch_running.discard(job)
