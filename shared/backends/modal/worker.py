"""The engine of one machine on Modal: loaded in two phases, around a snapshot of its memory.

What the first phase leaves in memory may be restored in many machines, on another day. So it draws no
random number that a picture could depend on: seeds come with the requests, or from the system when
a request is read. And if the snapshot is taken without a GPU, the first phase may not look for one:
torch would remember that there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from shared.backends.local import LocalBackend
from shared.backends.modal.records import Records
from shared.backends.modal.wire import check_served
from shared.checkpoints import Checkpoint, get_checkpoint
from shared.contract import Done, Event, GenerationRequest, parse_request
from shared.errors import CheckpointMissing, CygnetError
from shared.prices import Machine, Meter, gpu_of
from shared.settings import Snapshot, settings

if TYPE_CHECKING:
    from shared.engine.loading import Model

NAME = "modal"


class Worker:
    """Draws with one checkpoint. `machine` is what is paid for; `has_gpu`, whether one was asked for."""

    def __init__(
        self, checkpoint: str, snapshot: Snapshot, has_gpu: bool, machine: Machine
    ) -> None:
        self._checkpoint: Checkpoint = get_checkpoint(checkpoint)
        self._gpu_comes_later = snapshot == "cpu" and has_gpu
        self._machine = machine
        self._acceleration = settings().acceleration
        self._backend = LocalBackend(self._acceleration, previews=True)
        self._meter = Meter()
        self._model: Model | None = None

    def load(self) -> None:
        """The first phase: read the weights; where the device is there, draw a picture with them."""
        from shared.engine import loading
        from shared.engine.core import run

        try:
            if self._gpu_comes_later:
                self._model = loading.read(self._checkpoint, self._acceleration, "cuda")
                return
            self._model = loading.load(self._checkpoint, self._acceleration)
        except CheckpointMissing as error:
            error.next_step = "Fetch its files once: modal run modal_app.py::download_weights"
            raise
        side = self._checkpoint.min_size
        smallest = {"prompt": "a swan", "steps": 1, "width": side, "height": side, "seed": 0}
        for _ in run(self._model, parse_request(smallest)):
            pass

    def wake(self) -> None:
        """The second phase: move to the GPU if it comes only now, and take requests."""
        from shared.engine import loading
        from shared.engine.acceleration import choose_device, device_name, total_memory

        assert self._model, "load comes first"
        model, self._model = self._model, None
        if self._gpu_comes_later:
            device = choose_device(self._acceleration.device)
            model = loading.place(model, device, self._acceleration)
        if model.device.type == "cuda":
            gpu = gpu_of(device_name(model.device), total_memory(model.device))
            self._machine = dataclasses.replace(self._machine, gpu=gpu)
        self._backend.adopt(model)

    async def close(self) -> None:
        await self._backend.aclose()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one generation, its price in the last."""
        check_served(request, self._checkpoint.name)
        with self._meter.running() as seconds:
            async with aclosing(self._backend.generate(request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        event = self._priced(event, seconds())
                    yield event

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events as plain dicts, as they cross the wire; `error` is the last if it fails."""
        try:
            async with aclosing(self.generate(parse_request(request))) as events:
                async for event in events:
                    yield event.model_dump(mode="json")
        except CygnetError as error:
            yield {
                "type": "error",
                "code": error.code,
                "message": error.message,
                "next_step": error.next_step,
            }

    async def run(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Of the stream, the images and the last event: what one wants who does not watch."""
        async with aclosing(self.stream(request)) as events:
            return [told async for told in events if told["type"] in ("image", "done", "error")]

    async def run_job(self, records: Records, job: str, request: dict[str, Any]) -> None:
        """Draw for a job, and write down what happens. Does nothing for one that has ended."""
        log = await records.open(job)
        if log is None:
            return
        try:
            async with aclosing(self.generate(parse_request(request))) as events:
                async for event in events:
                    if isinstance(event, Done):
                        await log.flush()
                        await records.succeed(job, event)
                    else:
                        await log.add(event)
        except CygnetError as error:
            await log.flush()
            await records.fail(job, error)

    def _priced(self, done: Done, seconds: float) -> Done:
        second_usd = self._machine.second_usd
        cost = None if second_usd is None else round(second_usd * seconds, 6)
        update: dict[str, Any] = {"backend": NAME, "cost_usd": cost}
        if self._machine.gpu:
            update["device"] = self._machine.gpu
        return Done(result=done.result.model_copy(update=update))
