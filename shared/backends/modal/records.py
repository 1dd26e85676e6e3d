"""Jobs as rows that every container can read: how they were asked for, what happened, how they ended.

Two tables, because one is listed and the other holds pictures. Each row has one writer: the web door
writes what was asked for, the container that draws writes what happens, and who ends a job first has
ended it. This module knows neither Modal nor who draws.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from shared.backends.modal.protocols import Table
from shared.contract import Done, Event, GenerationRequest, ImageReady, Queued
from shared.errors import Cancelled, CygnetError, InvalidCall, NotFound
from shared.store import Job, Status, StoredEvent, StoredImage, Terms

_JOB = re.compile(r"[0-9a-f]{32}")


class Records:
    """What is kept of jobs. `now` tells the time."""

    def __init__(self, jobs: Table, events: Table, now: Callable[[], float] = time.time) -> None:
        self._jobs = jobs
        self._events = events
        self.now = now

    # What was asked for

    async def add(self, request: GenerationRequest, owner: str, terms: Terms) -> tuple[str, bool]:
        """A job's id, and whether it is new: the same key of the same owner gives the same job.

        Raises `InvalidCall` if the key was used for another request.
        """
        job = secrets.token_hex(16)
        await self._jobs.put(
            job,
            {"owner": owner, "request": request.model_dump(mode="json"), "created": self.now()},
        )
        if terms.idempotency_key is None:
            return job, True
        row = {"job": job, "fingerprint": terms.fingerprint}
        if await self._jobs.put_new(_key(owner, terms), row):
            return job, True
        await self._jobs.remove(job)
        if known := await self.known(owner, terms):
            return known, False
        return await self.add(request, owner, terms)  # it was forgotten just now

    async def known(self, owner: str, terms: Terms) -> str | None:
        """The job that this key of this owner made.

        Raises `InvalidCall` if the key was used for another request.
        """
        if terms.idempotency_key is None or not (row := await self._jobs.get(_key(owner, terms))):
            return None
        if row["fingerprint"] != terms.fingerprint:
            raise InvalidCall(
                "The Idempotency-Key was used before, for another request.",
                "Send each new request with a key of its own.",
                status=422,
            )
        return row["job"]

    async def forget(self, job: str, owner: str, terms: Terms) -> None:
        """As if it had never been asked for: a call that may have been made after all draws nothing."""
        if terms.idempotency_key is not None:
            await self._jobs.remove(_key(owner, terms))
        await self._jobs.remove(job)

    async def add_call(self, job: str, call: str) -> None:
        """Which call of the platform runs the job."""
        await self._jobs.put(f"{job}/call", call)

    async def call(self, job: str) -> str | None:
        return await self._jobs.get(f"{job}/call")

    # How it ends

    async def succeed(self, job: str, done: Done) -> bool:
        """False if it had ended already; so does `fail`."""
        return await self._end(job, "succeeded", {"result": done.model_dump(mode="json")["result"]})

    async def fail(self, job: str, error: CygnetError) -> bool:
        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        status = "cancelled" if isinstance(error, Cancelled) else "failed"
        return await self._end(job, status, {"error": told})

    async def _end(self, job: str, status: Status, told: dict[str, Any]) -> bool:
        row = {"status": status, "finished": self.now()} | told
        return await self._jobs.put_new(f"{job}/end", row)

    async def has_ended(self, job: str) -> bool:
        return await self._jobs.get(f"{job}/end") is not None

    # What is read

    async def job(self, job: str, owner: str | None = None) -> Job:
        """Raises `NotFound`, also if it is not `owner`'s."""
        asked = await self._jobs.get(job) if _JOB.fullmatch(job) else None
        if asked is None or owner not in (None, asked["owner"]):
            raise NotFound(
                "There is no such job.", "Check the id; what is older than a week is gone."
            )
        rows = [await self._jobs.get(f"{job}/{part}") for part in ("progress", "end")]
        return _job(job, asked, *rows)

    async def jobs(self, owner: str) -> list[Job]:
        """All of an owner's jobs, newest first.

        Reads every row of the last week, whoever's it is: a Dict can be asked for a key or for all.
        """
        rows = {key: row async for key, row in self._jobs.items()}
        mine = [
            _job(key, row, rows.get(f"{key}/progress"), rows.get(f"{key}/end"))
            for key, row in rows.items()
            if _JOB.fullmatch(key) and row["owner"] == owner
        ]
        return sorted(mine, key=lambda job: (job.created, job.id), reverse=True)

    async def image(self, image: str, owner: str | None = None) -> StoredImage:
        """Raises `NotFound`, also if its job is not `owner`'s."""
        for stored in (await self.job(image.partition("-")[0], owner)).images:
            if stored.id == image:
                return stored
        raise NotFound("There is no such image.", "Check the id.")

    async def read_image(self, image: str) -> bytes:
        data = await self._events.get(image)
        if data is None:
            raise NotFound("There is no such image.", "What is older than a week is gone.")
        return data

    async def batch(self, job: str, number: int) -> list[dict[str, Any]] | None:
        """The events that were written as the `number`th, from 0; None if that has not come yet."""
        batch = await self._events.get(f"{job}/{number}")
        if batch is None:
            return None
        return [await self._whole(job, told) for told in batch]

    async def last_event(self, job: str, number: int) -> StoredEvent | None:
        """How the job ended, as its event of that number; None if it has not."""
        end = await self._jobs.get(f"{job}/end")
        if end is None:
            return None
        if "result" in end:
            return StoredEvent(number, "done", {"type": "done", "result": end["result"]})
        return StoredEvent(number, "error", end["error"])

    async def _whole(self, job: str, told: dict[str, Any]) -> dict[str, Any]:
        if told["type"] != "image":
            return told
        data = await self.read_image(f"{job}-{told['index']}")
        return told | {"image": base64.b64encode(data).decode("ascii")}

    # What happens

    async def write(self, job: str, number: int, events: list[Event]) -> int:
        """Append events as the `number`th batch, or the next that is free; which comes after it.

        Images are kept beside them by `write_image`.
        """
        told = [event.model_dump(mode="json", exclude={"image"}) for event in events]
        # Taken where a machine that was given up, and its job retried, is alive after all.
        while not await self._events.put_new(f"{job}/{number}", told):
            number += 1
        return number + 1

    async def open(self, job: str) -> JobLog | None:
        """To write on: after a container died, where it stopped.

        None if the job has ended, or was forgotten. An image may have been kept and not told, if the
        container died between the two.
        """
        asked = await self._jobs.get(job)
        if asked is None or await self.has_ended(job):
            return None
        progress = await self._jobs.get(f"{job}/progress") or {
            "started": self.now(),
            "attempts": 0,
            "images": [],
        }
        progress["attempts"] += 1
        await self._jobs.put(f"{job}/progress", progress)
        number, told = 0, set[int]()
        while batch := await self._events.get(f"{job}/{number}"):
            number += 1
            told |= {event["index"] for event in batch if event["type"] == "image"}
        return JobLog(self, job, number, progress, told, asked["request"]["output_format"])

    async def write_image(self, image: StoredImage, data: bytes, progress: dict[str, Any]) -> None:
        await self._events.put(image.id, data)
        await self._jobs.put(f"{image.job}/progress", progress)


class JobLog:
    """One job's events, on their way to the table. Written by one container at a time."""

    def __init__(
        self,
        records: Records,
        job: str,
        number: int,
        progress: dict[str, Any],
        told: set[int],
        file_format: str,
    ) -> None:
        self._records = records
        self._job = job
        self._number = number
        self._progress = progress
        self._told = told
        self._format = file_format
        self._waiting: list[Event] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, event: Event) -> None:
        """Take an event, and have it written soon; what was told before a container died is not
        told again."""
        if isinstance(event, Queued) and event.position == 0:
            return  # the web door has said that the job waits
        if isinstance(event, ImageReady):
            if event.index in self._told:
                return
            self._told.add(event.index)
            await self._keep(event)
        self._waiting.append(event)
        if self._writing is None or self._writing.done():
            await self._written()
            self._writing = asyncio.create_task(self._write())

    async def flush(self) -> None:
        """Have everything written. Raises what a write raised."""
        await self._written()
        await self._write()

    async def _written(self) -> None:
        if self._writing:
            await self._writing

    async def _write(self) -> None:
        while self._waiting:  # what came while a write went on goes together
            events, self._waiting = self._waiting, []
            self._number = await self._records.write(self._job, self._number, events)

    async def _keep(self, event: ImageReady) -> None:
        kept = self._progress["images"]
        if event.index in [image["number"] for image in kept]:
            return  # by a container that died before it told of it
        image = StoredImage(
            id=f"{self._job}-{event.index}",
            job=self._job,
            number=event.index,
            seed=event.seed,
            format=self._format,
            size=len(event.image),
            sha256=hashlib.sha256(event.image).hexdigest(),
        )
        kept.append(dataclasses.asdict(image))
        await self._records.write_image(image, event.image, self._progress)


def _key(owner: str, terms: Terms) -> str:
    return f"{owner}/key/{terms.idempotency_key}"


def _job(
    job: str, asked: dict[str, Any], progress: dict[str, Any] | None, end: dict[str, Any] | None
) -> Job:
    progress, told = progress or {}, end or {}
    images = sorted(progress.get("images", []), key=lambda image: image["number"])
    return Job(
        id=job,
        owner=asked["owner"],
        status=told.get("status") or ("running" if progress else "queued"),
        request=asked["request"],
        attempts=progress.get("attempts", 0),
        batch=False,  # there are as many machines as it takes: nobody waits for a batch
        webhook=None,
        created=asked["created"],
        started=progress.get("started"),
        finished=told.get("finished"),
        result=told.get("result"),
        error=told.get("error"),
        images=tuple(StoredImage(**image) for image in images),
    )
