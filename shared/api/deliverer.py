"""Calls the webhooks of jobs that have ended, again and again until they answer or are given up.

What is to be delivered lies in the store, so that a restart loses nothing. A receiver may get a
message twice, under one id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from shared.errors import CygnetError, InvalidCall, InvalidRequest
from shared.store import Delivery, Job, Store
from shared.webhooks import WebhookSender

log = logging.getLogger(__name__)

RETRIES = (5, 60, 300, 1800, 7200, 18000, 36000)
"""Seconds to wait after each call that failed, about as Standard Webhooks advises; then it is given
up, most of a day later."""

_AT_ONCE = 16
_FOR_EACH_OWNER = 4
"""Of those. Who has slow receivers waits for them alone."""
_PAUSE = 1.0
"""Seconds after a fault of the disk, so that a full one is not asked all the time."""

_GONE = 410
"""The receiver wants no more of it."""


class Deliverer:
    """Delivers what `store` says is due. `keys`: each owner's, which signs."""

    def __init__(self, store: Store, keys: Mapping[str, str], *, private: bool) -> None:
        self._store = store
        self._keys = keys
        self._sender = WebhookSender(private=private)
        self._news = asyncio.Event()
        self._calling: dict[str, str] = {}
        """The owner of each job whose receiver is being called."""

    async def check(self, url: str, owner: str) -> None:
        """Raises `InvalidRequest` if that address may not be called, `InvalidCall` if nothing is
        there to sign with."""
        if owner not in self._keys:
            raise InvalidCall(
                "A webhook is signed with your API key, and this server has none.",
                "Set CYGNET_API_KEY on the server, or leave webhook out.",
                422,
            )
        await self._sender.check(url, owner)

    def wake(self) -> None:
        """A job has ended, or a call."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. A receiver that takes its time holds up no other owner's."""
        async with asyncio.TaskGroup() as calls:
            while True:
                self._news.clear()
                wait: float | None = _PAUSE
                with _logged():
                    while delivery := self._next():
                        self._calling[delivery.job] = delivery.owner
                        calls.create_task(self._call(delivery))
                    all_taken = len(self._calling) == _AT_ONCE
                    wait = None if all_taken else self._store.deliveries.wait(*self._busy())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), wait)

    async def aclose(self) -> None:
        await self._sender.aclose()

    def _next(self) -> Delivery | None:
        """The one that has been due the longest, of those for whom there is a place."""
        if len(self._calling) == _AT_ONCE:
            return None
        return next(iter(self._store.deliveries.due(1, *self._busy())), None)

    def _busy(self) -> tuple[list[str], list[str]]:
        """The jobs whose receivers are being called, and the owners who have all their places."""
        owners = Counter(self._calling.values())
        return [*self._calling], [o for o, count in owners.items() if count >= _FOR_EACH_OWNER]

    async def _call(self, delivery: Delivery) -> None:
        try:
            outcome = ""
            with _logged():
                outcome = await self._deliver(delivery)
            if not outcome:
                await asyncio.sleep(_PAUSE)
        finally:
            del self._calling[delivery.job]
            self.wake()

    async def _deliver(self, delivery: Delivery) -> str:
        """Call, and record what came of it."""
        job = self._store.job(delivery.job)
        try:
            outcome = await self._send(delivery.url, job)
        except (InvalidRequest, ConnectionError) as error:
            outcome = type(error).__name__
        except Exception as fault:  # what is not foreseen costs one call, not those to others
            log.exception("the webhook of job %s failed", job.id)
            outcome = type(fault).__name__
        if outcome in ("delivered", "gone") or delivery.attempts == len(RETRIES):
            self._store.deliveries.remove(job.id)
        else:
            wait = RETRIES[delivery.attempts] * random.uniform(1, 1.2)
            self._store.deliveries.put_off(job.id, wait)
        told = {"job": job.id, "attempt": delivery.attempts + 1, "outcome": outcome}
        log.info("webhook", extra={"fields": told})
        return outcome

    async def _send(self, url: str, job: Job) -> str:
        key = self._keys.get(job.owner)
        if key is None:
            return "gone"  # with its key, which opened the server once
        status = await self._sender.send(
            url, f"msg_{job.id}", message(job), key.encode(), job.owner
        )
        if 200 <= status < 300:
            return "delivered"
        return "gone" if status == _GONE else f"status {status}"


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """The disk may be full, or the job gone; neither may end the others' deliveries."""
    try:
        yield
    except CygnetError as error:
        log.error("a webhook has to wait: %s", error)


def message(job: Job) -> bytes:
    """What a webhook is told: as little as lets the receiver ask for the rest."""
    data: dict[str, Any] = {"id": job.id, "status": job.status, "error": job.error}
    if remarks := (job.result or {}).get("remarks"):
        data["remarks"] = remarks
    told = {
        "id": f"evt_{job.id}",
        "object": "event",
        "type": f"job.{job.status}",
        "created_at": int(job.finished or 0),
        "data": data,
    }
    return json.dumps(told).encode()
