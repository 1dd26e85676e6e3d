"""The engine in this process as a backend: the other end of every road."""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from shared.checkpoints import Checkpoint, checkpoint_names, get_checkpoint
from shared.contract import BackendStatus, Done, Event, GenerationRequest
from shared.errors import CygnetError
from shared.packages import needed
from shared.settings import Acceleration

if TYPE_CHECKING:
    from shared.engine.loading import Model
    from shared.engine.thread import Engine

MAX_LOADED = 2
MAX_LOADED_GIB = 8.0
"""What is kept in memory beside each other: so many checkpoints, and not more bfloat16 weights than
this unless there is only one. Before another is loaded, those used longest ago are let go."""


class LocalBackend:
    """Loads a checkpoint at its first request and keeps it; requests share its batches.

    `previews` adds a small JPEG of the picture so far to each step. torch, diffusers and
    transformers are imported at the first request, not before.
    """

    name = "local"

    def __init__(self, acceleration: Acceleration | None = None, previews: bool = False) -> None:
        self._acceleration = acceleration or Acceleration()
        self._previews = previews
        self._engines: OrderedDict[Checkpoint, Engine] = OrderedDict()

    def adopt(self, model: Model) -> None:
        """Serve a checkpoint that is loaded already."""
        from shared.engine.thread import Engine

        self._engines[model.checkpoint] = Engine(lambda: model, self._previews, self.name)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one generation; closing the iterator stops it before its next step."""
        submitted = time.perf_counter()  # the time to import torch counts as loading
        checkpoint = get_checkpoint(request.checkpoint)
        await asyncio.to_thread(_import_engine)
        engine = self._engine(checkpoint)
        events: asyncio.Queue[Event | CygnetError] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(event: Event | CygnetError) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        generation = engine.submit(request, deliver, submitted)
        try:
            while True:
                event = await events.get()
                if isinstance(event, CygnetError):
                    raise event
                yield event
                if isinstance(event, Done):
                    return
        finally:
            engine.cancel(generation)

    async def status(self) -> BackendStatus:
        """Warm once a checkpoint is loaded. Imports nothing."""
        held = [engine.memory_bytes or 0 for engine in self._engines.values()]
        healthy = importlib.util.find_spec("torch") is not None
        return BackendStatus(
            name=self.name,
            healthy=healthy,
            warm=any(engine.loaded.is_set() for engine in self._engines.values()),
            checkpoints=checkpoint_names(),
            detail="" if healthy else "torch is not installed.",
            memory_bytes=max(held, default=0) or None,
        )

    async def aclose(self) -> None:
        """Cancel what runs, and let go of every checkpoint; a load that has begun is waited for."""
        while self._engines:
            _, engine = self._engines.popitem()
            await asyncio.to_thread(engine.close, cancel=True)

    def _engine(self, checkpoint: Checkpoint) -> Engine:
        """A checkpoint's engine, started if it is not there or could not load the last time."""
        from shared.engine.thread import Engine

        engine = self._engines.pop(checkpoint, None)
        if engine is None or engine.ended:
            retired = self._make_room(checkpoint)
            load = functools.partial(_load, checkpoint, self._acceleration, retired)
            engine = Engine(load, self._previews, self.name)
        self._engines[checkpoint] = engine
        return engine

    def _make_room(self, checkpoint: Checkpoint) -> list[Engine]:
        """The engines that have to end before this checkpoint may be loaded."""
        retired = []
        while self._engines:
            gib = checkpoint.memory_gib + sum(loaded.memory_gib for loaded in self._engines)
            if len(self._engines) < MAX_LOADED and gib <= MAX_LOADED_GIB:
                break
            retired.append(self._engines.popitem(last=False)[1])
        return retired


def _import_engine() -> None:
    with needed("Generating on this machine", "local"):
        for module in ("loading", "thread"):
            importlib.import_module(f"shared.engine.{module}")


def _load(checkpoint: Checkpoint, acceleration: Acceleration, retired: list[Engine]) -> Model:
    """Runs in the new engine's thread, so that only those who wait for it wait for the others."""
    from shared.engine.loading import load

    while retired:
        retired.pop().close()
    return load(checkpoint, acceleration)
