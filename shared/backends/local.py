"""The engine in this process as a backend: the other end of every road."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from shared.checkpoints import CHECKPOINTS, Checkpoint, get_checkpoint
from shared.contract import BackendStatus, Done, Event, GenerationRequest
from shared.errors import CygnetError, PackageMissing
from shared.settings import Acceleration

if TYPE_CHECKING:
    from shared.engine.thread import Engine

MAX_LOADED = 2
"""Checkpoints kept in memory; before a third is loaded, the one used longest ago is let go."""


class LocalBackend:
    """Loads a checkpoint at its first request and keeps it; requests share its batches.

    `previews` adds a small JPEG of the picture so far to each step. torch, diffusers and
    transformers are imported at the first request, not before.
    """

    name = "local"

    def __init__(self, acceleration: Acceleration | None = None, previews: bool = False) -> None:
        self._acceleration = acceleration or Acceleration()
        self._previews = previews
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._changing = asyncio.Lock()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one generation; closing the iterator stops it before its next step."""
        submitted = time.perf_counter()  # the time to import torch counts as loading
        checkpoint = get_checkpoint(request.checkpoint)
        engine = await self._engine(checkpoint)
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
        """Warm once a checkpoint is loaded."""
        return BackendStatus(
            name=self.name,
            healthy=True,
            warm=any(engine.loaded.is_set() for engine in self._engines.values()),
            checkpoints=tuple(checkpoint.name for checkpoint in CHECKPOINTS),
        )

    async def aclose(self) -> None:
        """Let go of every checkpoint, once what runs has ended."""
        async with self._changing:
            while self._engines:
                _, engine = self._engines.popitem()
                await asyncio.to_thread(engine.close)

    async def _engine(self, checkpoint: Checkpoint) -> Engine:
        """A checkpoint's engine, started if it is not there or could not load the last time."""
        async with self._changing:
            engine = self._engines.pop(checkpoint.name, None)
            if engine is None or engine.failed:
                while len(self._engines) >= MAX_LOADED:
                    _, oldest = self._engines.popitem(last=False)
                    await asyncio.to_thread(oldest.close)
                engine = await asyncio.to_thread(self._start, checkpoint)
            self._engines[checkpoint.name] = engine
            return engine

    def _start(self, checkpoint: Checkpoint) -> Engine:
        try:
            from shared.engine.loading import load
            from shared.engine.thread import Engine
        except ImportError as error:
            raise PackageMissing(
                f"Generating on this machine needs a package that is not installed: {error.name}.",
                "Install it with: pip install 'cygnet[local]'",
            ) from error
        return Engine(lambda: load(checkpoint, self._acceleration), self._previews, self.name)
