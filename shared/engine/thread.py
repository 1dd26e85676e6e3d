"""A thin thread around the core: takes requests, hands out events.

One thread owns the core and steps it; a second one decodes finished images and encodes their files
while the steps go on. What one request does (a bad prompt, no memory, a callback that raises, a
cancel) ends that request alone. If the thread itself must end, every request gets an error.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from shared.contract import Done, Event, GenerationRequest, Queued
from shared.engine.acceleration import held_memory
from shared.engine.core import ActiveImage, Core, Generation, as_error, release, step_event
from shared.engine.loading import Model
from shared.errors import Cancelled, CygnetError

log = logging.getLogger(__name__)

Deliver = Callable[[Event | CygnetError], None]
"""Takes the events of one request, from any thread; `Done` or an error is the last."""

_alive: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Serves requests for one checkpoint from a thread of its own, batching between steps.

    `load` is called in that thread, so that an `Engine` is there at once. If it raises, `ended`
    becomes true and every request gets the error.
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
        self._lock = threading.Lock()  # guards _deliver against a submit while the engine ends
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="cygnet-decode")
        self._closing = False
        self._loaded_at = 0.0
        self._device: torch.device | None = None
        self._end: CygnetError | None = None
        self.loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cygnet-engine", daemon=True)
        self._thread.start()
        _alive.add(self)

    @property
    def ended(self) -> bool:
        """Whether the engine takes no more requests: closed, or it could not load."""
        return self._end is not None

    @property
    def memory_bytes(self) -> int | None:
        """What is held on the device once the model is loaded; None where that is not known."""
        return held_memory(self._device) if self._device else None

    def submit(
        self, request: GenerationRequest, deliver: Deliver, submitted: float | None = None
    ) -> Generation:
        """Queue a request; its events, or its error, go to `deliver`. Never blocks.

        `submitted`: when the caller got the request, by `time.perf_counter`, if that was earlier.
        """
        generation = Generation(request, submitted=submitted or time.perf_counter())
        with self._lock:
            if not self._end:
                generation.position = sum(bool(other.waiting) for other in self._deliver)
                self._deliver[generation] = deliver
                self._inbox.put(generation)
        if self._end:
            deliver(self._end)
        else:
            self._send(generation, Queued(position=generation.position))
        return generation

    def cancel(self, generation: Generation) -> None:
        """Stop a request before the next step; nothing more is delivered. Safe at any time."""
        generation.stopped = True
        self._deliver.pop(generation, None)

    def close(self, cancel: bool = False) -> None:
        """Finish what was submitted, or cancel it, then let go of the model.

        Returns when that is done; a load that has begun is waited for.
        """
        if cancel:
            for generation in list(self._deliver):
                self._fail(generation, Cancelled("The engine was closed.", "Send it again."))
        self._inbox.put(None)
        self._thread.join()
        self._decoder.shutdown()

    def _run(self) -> None:
        end: CygnetError = Cancelled("The engine was closed.", "Send it again.")
        try:
            self._serve(Core(self._load()))
        except BaseException as error:  # a panic of a library in Rust is no Exception
            release(error)
            end = as_error(error, "loading")
        with self._lock:
            self._end = end
            left = list(self._deliver)
        for generation in left:
            self._fail(generation, end)

    def _serve(self, core: Core) -> None:
        self._loaded_at = time.perf_counter()
        self._device = core.model.device
        self.loaded.set()
        while self._receive(core):
            core.drop([image for image in core.images if image.generation.stopped])
            self._admit(core)
            self._step(core)

    def _receive(self, core: Core) -> bool:
        """Take new requests, waiting for one if there is nothing to do; False when all is done."""
        while not self._inbox.empty() or not (core.images or self._queue or self._closing):
            generation = self._inbox.get()
            if generation is None:
                self._closing = True
                continue
            generation.loading = max(0.0, self._loaded_at - generation.submitted)
            self._queue.append(generation)
        return bool(core.images or self._queue)

    def _admit(self, core: Core) -> None:
        """Let queued images join the batch while there is room, one of each request in turn."""
        while self._queue:
            generation = self._queue[0]
            if generation.stopped or not generation.waiting:
                self._queue.popleft()
            elif core.has_room(generation.request):
                try:
                    core.start(generation)
                except BaseException as error:
                    self._fail(generation, error)
                self._queue.rotate(-1)
            else:
                break
        unstarted = [generation for generation in self._queue if not generation.started]
        for position, generation in enumerate(unstarted):
            if generation.position != position:
                generation.position = position
                self._send(generation, Queued(position=position))

    def _step(self, core: Core) -> None:
        began = time.perf_counter()
        advanced, failures = core.step()
        for failure in failures:
            self._fail(failure.image.generation, failure.error)
        for image in advanced:
            try:
                event = step_event(core, image, self._previews, len(advanced), began)
                self._send(image.generation, event)
            except Exception as error:
                self._fail(image.generation, error)
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

    def _fail(self, generation: Generation, error: BaseException) -> None:
        """End one request with its error."""
        deliver = self._deliver.pop(generation, None)
        generation.stopped = True
        if deliver is None:
            return
        try:
            deliver(as_error(error, generation.request.one_picture))
        except Exception:
            log.warning("a reader of events failed", exc_info=True)


@atexit.register
def _stop_all() -> None:
    """Torch must not be in the middle of a step when the interpreter goes away."""
    for engine in list(_alive):
        engine.close(cancel=True)
