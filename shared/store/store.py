"""Jobs, their events and their images on disk: what was accepted survives the process.

Rows live in SQLite (WAL), images in files beside it. An image's file is written whole before its
row, and its row and event are one transaction, so that after a kill at any moment every image that
is listed is there. This module does not know who runs the jobs, nor HTTP. Every method may be
called from any thread, and blocks for as long as the disk takes.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shared.contract import Done, Event, GenerationRequest, ImageReady
from shared.errors import (
    Cancelled,
    CygnetError,
    InvalidCall,
    QueueFull,
)
from shared.store.database import Database
from shared.store.deliveries import Deliveries
from shared.store.image_files import ImageFiles, file_name, not_found
from shared.store.pruner import Pruner
from shared.store.records import PLAIN, Job, Status, StoredEvent, StoredImage, Terms
from shared.store.rows import append, insert_event, read_job
from shared.store.suspects import Suspects


class Store:
    """One folder of jobs, which belongs to one process at a time.

    Every method may raise `DiskFull` or `DataUnusable`. `now` tells the time, `uptime` seconds that
    no change of the clock can move.
    """

    def __init__(
        self,
        folder: Path,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = ImageFiles(folder / "images")
        self._now = now
        self._db = Database(folder / "jobs.sqlite3")
        self.deliveries = Deliveries(self._db, now)
        self.suspects = Suspects(self._db)
        with self._db.reading() as db:
            rows = db.execute("SELECT id, format FROM images").fetchall()
        self._pruner = Pruner(self._db, self._files, now, uptime)
        self._files.remove_strays({file_name(row["id"], row["format"]) for row in rows})

    def close(self) -> None:
        self._db.close()

    # Jobs

    def add(
        self,
        request: GenerationRequest,
        owner: str = "",
        terms: Terms = PLAIN,
        max_queued: int = 2**31,
    ) -> Job:
        """Accept a job; the earlier one if `owner` has used its idempotency key before.

        Raises `QueueFull`; `InvalidCall` if the key was used for something else.
        """
        wanted = request.model_dump_json()
        with self._db.transaction() as db:
            known = db.execute(
                "SELECT id, fingerprint FROM jobs WHERE owner = ? AND idempotency_key = ?",
                (owner, terms.idempotency_key),
            ).fetchone()
            if known is None:
                self._check_room(max_queued)
                job = secrets.token_hex(16)
                db.execute(
                    "INSERT INTO jobs (id, owner, status, request, created, idempotency_key,"
                    " fingerprint, batch, webhook, attended)"
                    " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
                    (job, owner, wanted, self._now(), *dataclasses.astuple(terms)),
                )
                return self.job(job)
        if known["fingerprint"] != terms.fingerprint:
            raise InvalidCall(
                "The Idempotency-Key was used before, for another request.",
                "Send each new request with a key of its own.",
                status=422,
            )
        return self.job(known["id"])

    def job(self, job: str, owner: str | None = None) -> Job:
        """The job of that id. Raises `NotFound`, also if it is not `owner`'s."""
        with self._db.reading() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None or owner not in (None, row["owner"]):
                raise not_found("job")
            return read_job(db, row)

    def jobs(
        self, owner: str, status: Status | None = None, limit: int = 20, after: str | None = None
    ) -> list[Job]:
        """At most `limit` of an owner's jobs, newest first, those older than the job `after`."""
        with self._db.reading() as db:
            newest = 2**63 - 1
            if after is not None:
                self.job(after, owner)
                row = db.execute("SELECT number FROM jobs WHERE id = ?", (after,)).fetchone()
                newest = row["number"]
            rows = db.execute(
                "SELECT * FROM jobs WHERE owner = ? AND number < ? AND status = ifnull(?, status)"
                " ORDER BY number DESC LIMIT ?",
                (owner, newest, status, limit),
            )
            return [read_job(db, row) for row in rows.fetchall()]

    def queued(self) -> int:
        """How many jobs wait."""
        with self._db.reading() as db:
            return db.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()[0]

    def ahead(self, job: Job) -> int:
        """How many jobs wait that came before it and do not give way to it."""
        with self._db.reading() as db:
            return db.execute(
                "SELECT count(*) FROM jobs WHERE status = 'queued' AND batch <= ?"
                " AND number < (SELECT number FROM jobs WHERE id = ?)",
                (job.batch, job.id),
            ).fetchone()[0]

    def _check_room(self, max_queued: int) -> None:
        if (queued := self.queued()) >= max_queued:
            message = f"{queued} jobs wait already, as many as may."
            raise QueueFull(message, "Try again later.", queued)

    def take(self, kinds: Sequence[bool] = (False, True)) -> Job | None:
        """A suspect if there is one, else the job that has waited longest; now it is running. None
        if none waits.

        `kinds`: whether a batch job is wanted, the preferred answer first.
        """
        with self._db.transaction() as db:
            number = self.suspects.next()
            for batch in kinds if number is None else ():
                number = db.execute(
                    "SELECT min(number) FROM jobs WHERE status = 'queued' AND batch = ?", (batch,)
                ).fetchone()[0]
                if number is not None:
                    break
            if number is None:
                return None
            row = db.execute(
                "UPDATE jobs SET status = 'running', started = max(?, created),"
                " attempts = attempts + 1,"
                " began = (SELECT ifnull(max(id), 0) FROM events WHERE job = jobs.id)"
                " WHERE number = ? RETURNING *",
                (self._now(), number),
            ).fetchone()
            return read_job(db, row)

    def hand_back(self, job: str) -> None:
        """Let a running job wait again, for the next process: this one was told to stop."""
        with self._db.transaction() as db:
            db.execute(
                "UPDATE jobs SET status = 'queued', attempts = attempts - 1"
                " WHERE id = ? AND status = 'running'",
                (job,),
            )

    def recover(self) -> None:
        """Let the jobs that ran when the last process died wait again, at their old places; end
        those whose callers' connections died with it, and those that keep killing the process."""
        with self._db.transaction() as db:
            rows = db.execute(
                "SELECT id, status, attended, began FROM jobs WHERE status = 'running'"
                " OR (status = 'queued' AND attended)"
            ).fetchall()
            alone = [row["status"] for row in rows].count("running") == 1
            for row in rows:
                if row["attended"]:
                    message = "The server died while its caller waited."
                    self.fail(row["id"], Cancelled(message, "Send it again if you still want it."))
                elif verdict := self.suspects.judge(row, alone=alone):
                    self.fail(row["id"], verdict)
                else:
                    db.execute("UPDATE jobs SET status = 'queued' WHERE id = ?", (row["id"],))

    # What happens to a running job

    def record(self, job: str, event: Event) -> None:
        """Append an event of a job; `Done` ends it. Once a job has ended, nothing is recorded."""
        match event:
            case ImageReady():
                self._record_image(job, event)
            case Done():
                self._end(job, "succeeded", "done", result=event.result.model_dump_json())
            case _:
                with self._db.transaction() as db:
                    if self._open(job):
                        append(db, job, event)

    def fail(self, job: str, error: CygnetError) -> bool:
        """End a job with its error, `Cancelled` included; False if it had ended already."""
        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        status = "cancelled" if isinstance(error, Cancelled) else "failed"
        return self._end(job, status, "error", error=json.dumps(told))

    def _record_image(self, job: str, event: ImageReady) -> None:
        file_format = self.job(job).request["output_format"]
        digest = hashlib.sha256(event.image).hexdigest()
        image = StoredImage(
            id=f"{job}-{event.index}",
            job=job,
            number=event.index,
            seed=event.seed,
            format=file_format,
            size=len(event.image),
            sha256=digest,
        )
        with self._db.reading() as db:
            known = db.execute("SELECT 1 FROM images WHERE id = ?", (image.id,)).fetchone()
            if known:  # from before the server died: the same picture, whose event was sent
                return
        self._files.write(image, event.image)
        with self._db.transaction() as db:
            if not self._open(job):
                self._files.remove(image)
                return
            values = dataclasses.astuple(image)
            db.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            append(db, job, event)

    def _end(
        self, job: str, status: Status, event: str, *, result: str = "", error: str = ""
    ) -> bool:
        with self._db.transaction() as db:
            if not self._open(job):
                return False
            db.execute(
                "UPDATE jobs SET status = ?, finished = max(?, ifnull(started, created)),"
                " result = ?, error = ? WHERE id = ?",
                (status, self._now(), result or None, error or None, job),
            )
            db.execute("UPDATE events SET preview = NULL WHERE job = ?", (job,))
            data = error or json.dumps({"type": "done", "result": json.loads(result)})
            insert_event(db, job, event, data)
            self.deliveries.add(job)
            return True

    def _open(self, job: str) -> bool:
        with self._db.reading() as db:
            row = db.execute("SELECT finished FROM jobs WHERE id = ?", (job,)).fetchone()
            return row is not None and row["finished"] is None

    # What is read

    def events(
        self, job: str, after: int = 0, limit: int = 32, *, files: bool = True
    ) -> list[StoredEvent]:
        """At most `limit` events of a job, those with an id above `after`, as they were sent;
        without `files`, the images are left out of theirs."""
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT * FROM events WHERE job = ? AND id > ? ORDER BY id LIMIT ?",
                (job, after, limit),
            ).fetchall()
        return [StoredEvent(row["id"], row["type"], self._event_data(row, files)) for row in rows]

    def _event_data(self, row: sqlite3.Row, files: bool) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(row["data"])
        if row["type"] == "step":
            data["preview"] = _base64(row["preview"]) if row["preview"] else None
        elif row["type"] == "image" and files:
            data["image"] = _base64(self.read_image(self.image(f"{row['job']}-{row['image']}")))
        return data

    def image(self, image: str, owner: str | None = None) -> StoredImage:
        """What is known of an image. Raises `NotFound`, also if its job is not `owner`'s."""
        with self._db.reading() as db:
            row = db.execute("SELECT * FROM images WHERE id = ?", (image,)).fetchone()
            if row is None:
                raise not_found("image")
            if owner is not None:
                self.job(row["job"], owner)
            return StoredImage(**row)

    def read_image(self, image: StoredImage) -> bytes:
        """Its file. Raises `NotFound` if that is gone."""
        return self._files.read(image)

    # What is let go

    def prune(self, max_age: float, max_bytes: int) -> int:
        """Remove ended jobs with their images, oldest first; how many. See `Pruner`.

        Those that ended more than `max_age` seconds ago, then more until what is left, rows and
        images, takes at most `max_bytes`.
        """
        return self._pruner.prune(max_age, max_bytes)

    def check_room(self, size: int) -> None:
        """Raises `DiskFull` or `OutputUnwritable` if a file of so many bytes cannot be kept."""
        self._files.check_room(size)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
