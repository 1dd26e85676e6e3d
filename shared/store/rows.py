"""Rows as jobs, and events as rows; always within a caller's transaction."""

from __future__ import annotations

import json
import sqlite3

from shared.contract import Event, ImageReady, Step
from shared.store.records import Job, StoredImage


def read_job(db: sqlite3.Connection, row: sqlite3.Row) -> Job:
    fields = dict(row)
    for internal in ("number", "idempotency_key", "fingerprint", "attended", "suspect", "began"):
        del fields[internal]
    fields["batch"] = bool(fields["batch"])
    for name in ("request", "result", "error"):
        fields[name] = json.loads(fields[name]) if fields[name] else None
    images = db.execute("SELECT * FROM images WHERE job = ? ORDER BY number", (row["id"],))
    return Job(**fields, images=tuple(StoredImage(**image) for image in images))


def append(db: sqlite3.Connection, job: str, event: Event) -> None:
    preview = event.preview if isinstance(event, Step) else None
    number = event.index if isinstance(event, Step | ImageReady) else None
    if preview is not None:  # only the newest preview of an image is worth keeping
        db.execute(
            "UPDATE events SET preview = NULL WHERE job = ? AND image = ? AND preview IS NOT NULL",
            (job, number),
        )
    data = event.model_dump_json(exclude={"preview", "image"})
    insert_event(db, job, event.type, data, number, preview)


def insert_event(
    db: sqlite3.Connection,
    job: str,
    kind: str,
    data: str,
    number: int | None = None,
    preview: bytes | None = None,
) -> None:
    db.execute(
        "INSERT INTO events SELECT ?, ifnull(max(id), 0) + 1, ?, ?, ?, ? FROM events WHERE job = ?",
        (job, kind, number, data, preview, job),
    )
