"""A backend as the methods of a class on Modal: plain dicts in, plain dicts out, a price on each result.

Dicts cross the wire rather than our models, because the two sides may have other versions of pydantic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from shared.backends import Backend
from shared.backends.modal.records import Records
from shared.backends.modal.wire import check_served
from shared.contract import Done, Event, GenerationRequest, parse_request
from shared.errors import CygnetError
from shared.prices import Machine, Meter

NAME = "modal"


class Methods:
    """Serves `checkpoint` with a backend that runs on `machine`."""

    def __init__(self, backend: Backend, checkpoint: str, machine: Machine) -> None:
        self.machine = machine
        self._backend = backend
        self._checkpoint = checkpoint
        self._meter = Meter()

    async def run(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Of the stream, the images and the last event: what one wants who does not watch."""
        async with aclosing(self.stream(request)) as events:
            return [told async for told in events if told["type"] in ("image", "done", "error")]

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a request; `error` is the last if it fails."""
        try:
            async with aclosing(self._generate(parse_request(request))) as events:
                async for event in events:
                    yield event.model_dump(mode="json")
        except CygnetError as error:
            yield {
                "type": "error",
                "code": error.code,
                "message": error.message,
                "next_step": error.next_step,
            }

    async def run_job(self, records: Records, job: str, request: dict[str, Any]) -> None:
        """Draw for a job, and write down what happens. Does nothing for one that has ended."""
        log = await records.open(job)
        if log is None:
            return
        try:
            async with aclosing(self._generate(parse_request(request))) as events:
                async for event in events:
                    if isinstance(event, Done):
                        await log.flush()
                        await records.succeed(job, event)
                    else:
                        await log.add(event)
        except CygnetError as error:
            await log.flush()
            await records.fail(job, error)

    async def aclose(self) -> None:
        await self._backend.aclose()

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        check_served(request, self._checkpoint)
        with self._meter.running() as seconds:
            async with aclosing(self._backend.generate(request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        event = self._priced(event, seconds())
                    yield event

    def _priced(self, done: Done, seconds: float) -> Done:
        second_usd = self.machine.second_usd
        cost = None if second_usd is None else round(second_usd * seconds, 6)
        update: dict[str, Any] = {"backend": NAME, "cost_usd": cost}
        if self.machine.gpu:
            update["device"] = self.machine.gpu
        return Done(result=done.result.model_copy(update=update))
