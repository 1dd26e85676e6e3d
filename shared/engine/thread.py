"""A thin thread around the core: takes requests, hands out events.

One thread owns the core and steps it; a second one decodes finished images and encodes their files
while the steps go on. What one request does (a bad prompt, no memory, a callback that raises, a
cancel) ends that request alone.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from shared.contract import Done, Event, GenerationRequest, Queued
from shared.engine.core import ActiveImage, Core, Generation, as_error, step_event
from shared.engine.loading import Model
from shared.errors import CygnetError

log = logging.getLogger(__name__)

Deliver = Callable[[Event | CygnetError], None]
"""Takes the events of one request, from the engine's threads; `Done` or an error is the last."""


class Engine:
    """Serves requests for one checkpoint from a thread of its own, batching between steps.

    `load` is called in that thread, so that an `Engine` is there at once. If it raises, `failed` is
    set and every request gets the error.
    """

    def __init__(
        self, load: Callable[[], Model], previews: bool = False, backend: str = "local"
    ) -> None:
        self._load = load
        self._previews = previews
        self._backend = backend
        self._inbox: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._queue: deque[Generation] = deque()
        self._deliver: dict[Generation, Deliver] = {}
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="cygnet-decode")
        self._closing = False
        self._loaded_at = 0.0
        self.loaded = threading.Event()
        self.failed = False
        self._thread = threading.Thread(target=self._serve, name="cygnet-engine", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a request is on its way."""
        return bool(self._deliver)

    def submit(
        self, request: GenerationRequest, deliver: Deliver, submitted: float | None = None
    ) -> Generation:
        """Queue a request; its events, or its error, go to `deliver`. Never blocks.

        `submitted`: when the caller got the request, by `time.perf_counter`, if that was earlier.
        """
        generation = Generation(request, submitted=submitted or time.perf_counter())
        self._deliver[generation] = deliver
        self._inbox.put(generation)
        return generation

    def cancel(self, generation: Generation) -> None:
        """Stop a request before the next step; nothing more is delivered. Safe at any time."""
        generation.stopped = True
        self._deliver.pop(generation, None)

    def close(self) -> None:
        """Finish what was submitted, then let go of the model; returns when that is done."""
        self._inbox.put(None)
        self._thread.join()
        self._decoder.shutdown()

    def _serve(self) -> None:
        try:
            core = Core(self._load())
        except Exception as error:
            self._refuse_all(error)
            return
        self._loaded_at = time.perf_counter()
        self.loaded.set()
        while self._receive(core):
            core.drop([image for image in core.images if image.generation.stopped])
            self._admit(core)
            self._step(core)

    def _refuse_all(self, error: Exception) -> None:
        self.failed = True
        while generation := self._inbox.get():
            self._fail(generation, error)

    def _receive(self, core: Core) -> bool:
        """Take new requests, waiting for one if there is nothing to do; False when all is done."""
        while not self._inbox.empty() or not (core.images or self._queue or self._closing):
            generation = self._inbox.get()
            if generation is None:
                self._closing = True
                continue
            generation.loading = max(0.0, self._loaded_at - generation.submitted)
            self._queue.append(generation)
            self._send(generation, Queued(position=len(self._queue) - 1))
        return bool(core.images or self._queue)

    def _admit(self, core: Core) -> None:
        """Let queued images join the batch, first come first served, while there is room."""
        while self._queue:
            generation = self._queue[0]
            if generation.stopped or not generation.waiting:
                self._queue.popleft()
            elif core.has_room(generation.request):
                try:
                    core.start(generation)
                except Exception as error:
                    self._fail(generation, error)
            else:
                return

    def _step(self, core: Core) -> None:
        advanced, failures = core.step()
        for failure in failures:
            self._fail(failure.image.generation, failure.error)
        for image in advanced:
            self._send(image.generation, step_event(core, image, self._previews))
            if image.done and not image.generation.stopped:
                self._decoder.submit(self._finish, core, image)

    def _finish(self, core: Core, image: ActiveImage) -> None:
        """Runs in the decoding thread."""
        generation = image.generation
        if generation.stopped:
            return
        try:
            self._send(generation, core.finish(image))
            if generation.finished == generation.request.num_images:
                self._send(generation, Done(result=core.result(generation, self._backend)))
                self._deliver.pop(generation, None)
        except Exception as error:
            self._fail(generation, error)

    def _send(self, generation: Generation, event: Event) -> None:
        deliver = self._deliver.get(generation)
        if deliver is None or generation.stopped:
            return
        try:
            deliver(event)
        except Exception:  # the reader is gone or broken: nobody is left to tell
            log.warning("a reader of events failed; its request is cancelled", exc_info=True)
            self.cancel(generation)

    def _fail(self, generation: Generation, error: Exception) -> None:
        """End one request with its error."""
        deliver = self._deliver.get(generation)
        self.cancel(generation)
        if deliver is None:
            return
        try:
            deliver(as_error(error, generation.request))
        except Exception:
            log.warning("a reader of events failed", exc_info=True)
