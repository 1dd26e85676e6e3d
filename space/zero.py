"""ZeroGPU: each generation runs in a process that is forked for it and has a GPU for as long as it said.

The host takes the GPU's time from the caller's quota before the work begins, so that it is computed
from the request. In the forked process there is no thread to share a batch with: the engine's core is
run in line. Weights are placed on "cuda" in the main process, where the host only pretends that there
is one, and go to the GPU with the fork. None of this was run on the host itself: see docs/space.md.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from shared.checkpoints import Checkpoint
from shared.contract import BackendStatus, Done, Event, GenerationRequest
from shared.engine.core import as_error, run
from shared.engine.loading import Model, load
from shared.errors import BackendUnavailable, CheckpointMissing, CygnetError, QuotaExceeded
from shared.settings import Acceleration
from space.page.pace import Pace

_START = 10.0
"""Seconds to move the weights to the GPU. A guess: nothing was measured on the host."""

_FLOPS = 5e13
"""Operations a second, far below what the host's cards are said to do. A guess until the first
picture: then its own pace counts, with half as much again to spare."""

_SPARE = 1.5


class ZeroBackend:
    """Draws with one model. `gpu` is `spaces.GPU`, or what stands in for it."""

    name = "zerogpu"

    def __init__(self, model: Model, gpu: Callable[..., Any]) -> None:
        self._model = model
        self._pace = Pace()
        self._on_gpu = gpu(duration=self.seconds)(self._draw)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events as they come out of the forked process; closing the iterator stops that.

        It is asked after each event, so that the step it is in, and at most one more, is finished.
        """
        self._check(request)
        events: asyncio.Queue[Event | CygnetError] = asyncio.Queue()
        stopped = threading.Event()
        loop = asyncio.get_running_loop()

        def deliver(event: Event | CygnetError) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        # A thread, which has this call's context: the host finds there whose quota it is.
        drawing = asyncio.create_task(asyncio.to_thread(self._follow, request, deliver, stopped))
        try:
            while True:
                event = await events.get()
                if isinstance(event, CygnetError):
                    raise event
                yield event
                if isinstance(event, Done):
                    self._pace.learn(event.result)
                    return
        finally:
            stopped.set()
            await asyncio.shield(drawing)

    async def status(self) -> BackendStatus:
        return BackendStatus(
            name=self.name, healthy=True, warm=True, checkpoints=(self._model.checkpoint.name,)
        )

    async def aclose(self) -> None:
        pass

    def seconds(self, request: GenerationRequest) -> int:
        """How long the GPU is asked for: from steps, pixels, rows, count and the model's size."""
        measured = self._pace.seconds(request)
        if measured is not None:
            return math.ceil(_START + _SPARE * measured)
        rows = 2 if request.guidance_scale > 1 else 1
        tokens = rows * self._model.tokens(request.width, request.height)
        # Two operations for each of a weight's two bytes and each token.
        operations = self._model.checkpoint.memory_gib * 2**30 * tokens
        return math.ceil(_START + request.num_images * request.steps * operations / _FLOPS)

    def _check(self, request: GenerationRequest) -> None:
        here = self._model.checkpoint.name
        if request.checkpoint != here:
            raise CheckpointMissing(  # the request is in order, so that another backend may take it
                f"This Space holds {here} alone, and cannot load {request.checkpoint}.",
                f"Use checkpoint={here}.",
            )

    def _follow(
        self,
        request: GenerationRequest,
        deliver: Callable[[Event | CygnetError], None],
        stopped: threading.Event,
    ) -> None:
        """Runs in a thread of the main process."""
        try:
            with closing(self._on_gpu(request)) as events:
                for event in events:
                    deliver(event)
                    if stopped.is_set():
                        return
        except gr.Error as error:
            deliver(_as_ours(error))
        except Exception as error:
            deliver(as_error(error, request.one_picture))

    def _draw(self, request: GenerationRequest) -> Iterator[Event | CygnetError]:
        """Runs in the forked process. Errors are handed over: raised, only their name would be."""
        try:
            for event in run(self._model, request, previews=True):
                if isinstance(event, Done):
                    event = Done(result=event.result.model_copy(update={"backend": self.name}))
                yield event
        except Exception as error:
            yield as_error(error, request.one_picture)


def load_for_zero(checkpoint: Checkpoint, acceleration: Acceleration) -> Model:
    """The model, placed as the host wants it; which forbids to compile at the first call."""
    wanted = acceleration.model_copy(update={"device": "cuda", "compile": False})
    return load(checkpoint, wanted)


def _as_ours(error: gr.Error) -> CygnetError:
    """What the host refuses, by the titles of its errors."""
    title, said = str(error.title), str(error.message).rstrip(". ")
    if any(word in title for word in ("quota", "credits", "duration")):
        return QuotaExceeded(
            f"{title}: {said}.",
            "Ask for fewer steps or pictures, sign in to Hugging Face, or wait for tomorrow's quota.",
        )
    return BackendUnavailable(f"{title}: {said}.", "Try again in a minute.")
