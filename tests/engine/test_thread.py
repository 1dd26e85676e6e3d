"""Requests share one engine without touching each other, whatever becomes of any of them."""

from __future__ import annotations

import queue
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from shared.contract import Done, Event, GenerationRequest, ImageReady, Queued, Step
from shared.engine import core
from shared.engine.core import ActiveImage, Core, Generation
from shared.engine.loading import Model
from shared.engine.thread import Engine
from shared.errors import Cancelled, CheckpointMissing, CygnetError, InternalError, OutOfMemory
from tests.engine.conftest import pixels, psnr, solo

Ask = Callable[..., GenerationRequest]
LIMIT = 120  # seconds: a hang is a failure, not a wait


class Reader:
    """Collects one request's events; `wait` returns when the last has come."""

    def __init__(self, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.error: CygnetError | None = None
        self._on_event = on_event
        self._ended = threading.Event()

    def __call__(self, event: Event | CygnetError) -> None:
        if isinstance(event, CygnetError):
            self.error = event
            self._ended.set()
            return
        self.events.append(event)
        self._on_event(event)
        if isinstance(event, Done):
            self._ended.set()

    def wait(self) -> Reader:
        assert self._ended.wait(LIMIT), f"no end after {len(self.events)} events"
        return self

    def pictures(self) -> list[Any]:
        return [pixels(event.image) for event in self.events if isinstance(event, ImageReady)]


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    engine = Engine(lambda: model)
    yield engine
    engine.close()


def test_a_request_is_queued_stepped_shown_and_done(engine: Engine, ask: Ask) -> None:
    reader = Reader()
    engine.submit(ask(num_images=2, steps=3), reader)
    events = reader.wait().events
    assert isinstance(events[0], Queued) and isinstance(events[-1], Done)
    steps = [(event.index, event.step) for event in events if isinstance(event, Step)]
    assert sorted(steps) == [(index, step) for index in (0, 1) for step in (1, 2, 3)]
    assert {event.seed for event in events if isinstance(event, ImageReady)} == {7, 8}
    result = events[-1].result
    assert result.seeds == (7, 8) and result.device == "cpu" and result.backend == "local"
    timings = result.timings
    assert min(timings.denoising, timings.decoding, timings.encoding) > 0
    assert timings.total >= timings.denoising


def test_a_step_says_how_many_images_it_advanced_and_how_long_it_took(
    engine: Engine, ask: Ask
) -> None:
    reader = Reader()
    engine.submit(ask(num_images=3, steps=2), reader)
    events = reader.wait().events
    steps = [event for event in events if isinstance(event, Step)]
    assert {step.batch for step in steps} == {3}
    timings = events[-1].result.timings if isinstance(events[-1], Done) else None
    assert timings
    assert all(step.seconds and 0 < step.seconds <= timings.total for step in steps)


def test_fifty_cancels_among_two_hundred_change_no_surviving_picture(
    engine: Engine, model: Model, ask: Ask
) -> None:
    chance = random.Random(5)
    kinds = [
        ask(),
        ask("a castle", guidance_scale=1.0, steps=3, seed=1),
        ask("the moon over still water", steps=6, seed=2, scheduler="euler"),
        ask("a fox", steps=5, seed=3, scheduler="lcm", guidance_scale=1.0),
        ask("a castle, flat design", width=32, height=32, steps=3, seed=4),
        ask("a red fox " * 30, num_images=2, steps=2, seed=5),
    ]
    expected = [solo(model, kind) for kind in kinds]
    cancelled = set(chance.sample(range(200), 50))
    served: list[tuple[int, Reader]] = []
    stopped: list[Reader] = []
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()
    tickets: dict[int, Generation] = {}

    def stop_at(number: int, step: int) -> Callable[[Event], None]:
        def on_event(event: Event) -> None:
            if isinstance(event, Step) and (event.index, event.step) == (0, step):
                begun.put(number)

        return on_event

    for number in range(200):
        kind = chance.randrange(len(kinds))
        if number not in cancelled:
            served.append((kind, Reader()))
            engine.submit(kinds[kind], served[-1][1])
        elif number % 3:
            stopped.append(Reader(stop_at(number, number % 3)))
            tickets[number] = engine.submit(kinds[kind], stopped[-1])
        else:
            stopped.append(Reader())
            engine.cancel(engine.submit(kinds[kind], stopped[-1]))
    for _ in range(len(tickets)):
        engine.cancel(tickets[begun.get(timeout=LIMIT)])

    assert len(served) == 150
    for kind, reader in served:
        pictures = reader.wait().pictures()
        assert len(pictures) == len(expected[kind])
        assert all(psnr(*pair) >= 60 for pair in zip(pictures, expected[kind], strict=True))
    engine.close()
    assert len(stopped) == 50
    # A cancel may come after the last step; most come long before, and none has an error.
    assert sum(any(isinstance(event, Done) for event in reader.events) for reader in stopped) < 25
    assert all(reader.error is None for reader in stopped)
    assert not engine._deliver


def test_a_cancelled_request_takes_no_further_step(model: Model, ask: Ask) -> None:
    steps: list[int] = []
    engine = Engine(lambda: model)

    def stop_after_two(event: Event) -> None:
        if isinstance(event, Step):
            steps.append(event.step)
            if event.step == 2:
                engine.cancel(generation)

    reader = Reader(stop_after_two)
    generation = engine.submit(ask(steps=50), reader)
    engine.close()
    assert steps == [1, 2]
    assert not any(isinstance(event, ImageReady | Done) for event in reader.events)
    assert not engine._deliver


def failing_forward(monkeypatch: pytest.MonkeyPatch, error: Exception, guilty_scale: float) -> None:
    """Make every forward that holds an image of this guidance scale fail."""
    real = core.guided_velocity

    def forward(*arguments: Any) -> torch.Tensor:
        if guilty_scale in arguments[-1]:
            raise error
        return real(*arguments)

    monkeypatch.setattr(core, "guided_velocity", forward)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (RuntimeError("a kernel failed at /home/somebody"), InternalError),
    ],
)
def test_a_failing_request_ends_alone(
    engine: Engine,
    model: Model,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[CygnetError],
) -> None:
    good = [ask(seed=seed, steps=4) for seed in range(5)]
    expected = [solo(model, request)[0] for request in good]
    failing_forward(monkeypatch, error, guilty_scale=13.0)
    readers = [Reader() for _ in good]
    for request, reader in zip(good[:3], readers[:3], strict=True):
        engine.submit(request, reader)
    bad = Reader()
    engine.submit(ask(guidance_scale=13.0), bad)
    for request, reader in zip(good[3:], readers[3:], strict=True):
        engine.submit(request, reader)

    assert isinstance(bad.wait().error, kind)
    assert "/home/somebody" not in str(bad.error)
    for reader, picture in zip(readers, expected, strict=True):
        assert psnr(reader.wait().pictures()[0], picture) >= 60


def test_memory_that_suffices_for_half_a_batch_is_enough(
    model: Model, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(seed=seed) for seed in range(4)]
    expected = [solo(model, request)[0] for request in requests]
    real, sizes = core.guided_velocity, []
    held: list[weakref.ref[torch.Tensor]] = []

    def forward(*arguments: Any) -> torch.Tensor:
        sizes.append(len(arguments[-1]))
        if sizes[-1] > 2:
            scratch = torch.zeros(8)  # what a forward holds when it fails
            held.append(weakref.ref(scratch))
            raise torch.OutOfMemoryError("too many")
        assert all(reference() is None for reference in held), "the failed forward is still held"
        return real(*arguments)

    monkeypatch.setattr(core, "guided_velocity", forward)
    batch = Core(model)
    for request in requests:
        batch.start(Generation(request))
    done = []
    while batch.images:
        advanced, failures = batch.step()
        assert not failures
        done += [image for image in advanced if image.done]
    assert set(sizes) == {4, 2}
    done.sort(key=lambda image: image.generation.request.seed)
    for image, picture in zip(done, expected, strict=True):
        assert psnr(pixels(batch.finish(image).image), picture) >= 60


def test_a_reader_that_crashes_ends_its_own_request_only(
    engine: Engine, model: Model, ask: Ask
) -> None:
    def crash(event: Event) -> None:
        raise ValueError("a broken callback")

    bad = Reader(crash)
    engine.submit(ask(steps=20), bad)
    good = Reader()
    engine.submit(ask(), good)
    assert psnr(good.wait().pictures()[0], solo(model, ask())[0]) >= 60
    assert len(bad.events) == 1, "nothing more is delivered to a reader that crashed"


def test_a_preview_that_fails_ends_its_own_request_only(
    model: Model, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Core.preview

    def preview(self: Core, image: ActiveImage) -> bytes | None:
        if image.generation.request.seed == 13:
            raise torch.OutOfMemoryError("no room for a preview")
        return real(self, image)

    monkeypatch.setattr(Core, "preview", preview)
    engine = Engine(lambda: model, previews=True)
    bad, good = Reader(), Reader()
    engine.submit(ask(seed=13), bad)
    engine.submit(ask(), good)
    assert isinstance(bad.wait().error, OutOfMemory)
    assert len(good.wait().pictures()) == 1
    engine.close()


class Panic(BaseException):
    """As a library written in Rust raises it."""


def test_a_panic_while_loading_is_an_error_for_every_request_and_releases_the_weights(
    ask: Ask,
) -> None:
    weights: list[weakref.ref[torch.Tensor]] = []

    def load() -> Model:
        half_loaded = torch.zeros(8)
        weights.append(weakref.ref(half_loaded))
        raise Panic("called `Option::unwrap()` on a `None` value")

    engine = Engine(load)
    first = Reader()
    engine.submit(ask(), first)
    assert isinstance(first.wait().error, InternalError)
    engine.close()
    assert engine.ended and not engine._thread.is_alive()
    assert weights[0]() is None
    late = Reader()
    engine.submit(ask(), late)
    assert isinstance(late.wait().error, InternalError)


def test_a_closed_engine_refuses_instead_of_hanging(model: Model, ask: Ask) -> None:
    engine = Engine(lambda: model)
    engine.close()
    reader = Reader()
    engine.submit(ask(), reader)
    assert isinstance(reader.wait().error, Cancelled)


def test_to_close_with_cancel_tells_who_waits(model: Model, ask: Ask) -> None:
    engine = Engine(lambda: model)
    readers = [Reader() for _ in range(3)]
    for reader in readers:
        engine.submit(ask(steps=100, num_images=16), reader)
    engine.close(cancel=True)
    assert all(isinstance(reader.wait().error, Cancelled) for reader in readers)


def test_a_request_of_many_images_does_not_hold_up_a_small_one(
    model: Model, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Core.__init__, "__defaults__", (1,))  # a token budget of one image
    go = threading.Event()

    def load() -> Model:
        assert go.wait(LIMIT)
        return model

    done: list[str] = []
    engine = Engine(load)
    many = Reader(lambda event: done.append("many") if isinstance(event, ImageReady) else None)
    one = Reader(lambda event: done.append("one") if isinstance(event, ImageReady) else None)
    engine.submit(ask(num_images=8), many)
    engine.submit(ask(), one)
    go.set()
    many.wait()
    one.wait()
    engine.close()
    assert done.index("one") <= 2


def test_positions_count_those_who_wait_and_move_up(model: Model, ask: Ask) -> None:
    go = threading.Event()

    def load() -> Model:
        assert go.wait(LIMIT)
        return model

    engine = Engine(load)
    readers = [Reader() for _ in range(4)]
    tickets = [engine.submit(ask(), reader) for reader in readers]
    told = [
        [event.position for event in reader.events if isinstance(event, Queued)]
        for reader in readers
    ]
    assert told == [[0], [1], [2], [3]], "told at once, before anything is loaded"
    engine.cancel(tickets[0])
    late = Reader()
    engine.submit(ask(), late)
    assert isinstance(late.events[0], Queued) and late.events[0].position == 3
    go.set()
    late.wait()
    engine.close()


def test_numbers_that_overflow_are_an_error_not_a_blank_picture(
    engine: Engine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        core, "guided_velocity", lambda model, latents, *_: torch.full_like(latents, torch.nan)
    )
    reader = Reader()
    engine.submit(ask(), reader)
    error = reader.wait().error
    assert isinstance(error, InternalError) and "overflowed" in error.message


def test_pixels_that_overflow_are_an_error_too(
    engine: Engine, model: Model, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model.frames, "forward", lambda latents: torch.full((1, 3, 48, 64), torch.nan)
    )
    reader = Reader()
    engine.submit(ask(), reader)
    assert isinstance(reader.wait().error, InternalError)


def test_what_cannot_load_refuses_every_request_and_does_not_hang(ask: Ask) -> None:
    def load() -> Model:
        raise CheckpointMissing("It is gone.", "Get it back.")

    engine = Engine(load)
    readers = [Reader() for _ in range(3)]
    for reader in readers:
        engine.submit(ask(), reader)
    assert all(isinstance(reader.wait().error, CheckpointMissing) for reader in readers)
    assert engine.ended
    engine.close()


def test_requests_past_the_token_budget_wait_their_turn(model: Model, ask: Ask) -> None:
    batch = Core(model, token_budget=2 * 2 * 12)  # two guided images of 4x3 tokens
    generation = Generation(ask(num_images=3))
    batch.start(generation)
    assert batch.has_room(generation.request)
    batch.start(generation)
    assert not batch.has_room(generation.request)
    assert batch.has_room(ask(guidance_scale=1.0)) is False
    assert Core(model, token_budget=1).has_room(generation.request), "one image always fits"


def test_previews_are_small_pictures_of_the_steps(model: Model, ask: Ask) -> None:
    reader = Reader()
    engine = Engine(lambda: model, previews=True)
    engine.submit(ask(), reader)
    engine.close()
    previews = [event.preview for event in reader.wait().events if isinstance(event, Step)]
    assert len(previews) == 4
    assert all(preview and pixels(preview).shape == (6, 8, 3) for preview in previews)
