"""A process that dies again and again: innocent jobs are done, and the one that kills it is found.

A process dies here by losing its database at once, in the middle of whatever it did: what it wrote
before is what the next one finds. That a real kill leaves no less is tested in test_serve.
"""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from shared.api import ApiOptions
from shared.api.metrics import Metrics
from shared.api.runner import Runner
from shared.backends.fake import FakeBackend
from shared.contract import Event, GenerationRequest, Queued, Step, parse_request
from shared.store import Job, Store
from shared.store.suspects import MAX_ATTEMPTS, MAX_DEATHS

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

Fatal = Callable[[GenerationRequest, Event], bool]


class Mortal(FakeBackend):
    """Takes its process with it before an event that is `fatal`; remembers how much was at work."""

    def __init__(self, fatal: Fatal) -> None:
        super().__init__()
        self.die: Callable[[], None] = lambda: None
        self.at_work: list[int] = []
        self._fatal = fatal
        self._now = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self._now += 1
        self.at_work.append(self._now)
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    if self._fatal(request, event):
                        self.die()
                        await asyncio.Event().wait()
                    yield event
        finally:
            self._now -= 1


class Process:
    """A server's jobs, without HTTP, from its start to its death."""

    def __init__(self, folder: Path, fatal: Fatal, *, warm_up: bool = False) -> None:
        self.backend = Mortal(fatal)
        self.store = Store(folder)
        options = ApiOptions(warm_up=warm_up, grace=0)
        self.runner = Runner(self.backend, self.store, options, Metrics())
        self._died = asyncio.Event()
        self.backend.die = self.kill

    def kill(self) -> None:
        self.store.close()
        self._died.set()

    async def live(self) -> bool:
        """Work until nothing is left to do, or until it is killed; whether it survived."""
        before = asyncio.all_tasks()
        await self.runner.start()
        while not (self._died.is_set() or all(job.ended for job in jobs(self.store))):
            await asyncio.sleep(0)
        if survived := not self._died.is_set():
            await self.runner.aclose()
        tasks = asyncio.all_tasks() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return survived


def jobs(store: Store) -> list[Job]:
    return store.jobs("", limit=100)


def ask(folder: Path, *prompts: str, **fields: object) -> None:
    store = Store(folder)
    for prompt in prompts:
        store.add(parse_request({"prompt": prompt, "steps": 8, "seed": 1} | fields))
    store.close()


def ended(folder: Path) -> dict[str, str]:
    """How each job ended, by its prompt."""
    store = Store(folder)
    found = {job.request["prompt"]: job.status for job in jobs(store)}
    store.close()
    return found


def error_of(folder: Path, prompt: str) -> str:
    store = Store(folder)
    [error] = [job.error for job in jobs(store) if job.request["prompt"] == prompt]
    store.close()
    assert error
    return " ".join(error.values())


def never(_request: GenerationRequest, _event: Event) -> bool:
    return False


def after(events: int) -> Fatal:
    """A kill that has nothing to do with what is at work: so many events after the start."""
    left = iter(range(events))
    return lambda *_: next(left, None) is None


def poison(step: int) -> Fatal:
    def fatal(request: GenerationRequest, event: Event) -> bool:
        return request.prompt == "poison" and isinstance(event, Step) and event.step == step

    return fatal


SWANS = [f"swan {number}" for number in range(29)]


@pytest.mark.parametrize("seed", range(2))
async def test_thirty_jobs_survive_fifteen_kills_at_any_moment(tmp_path: Path, seed: int) -> None:
    ask(tmp_path, *SWANS, "another swan")
    dice = random.Random(seed)
    for _ in range(15):
        await Process(tmp_path, after(dice.randrange(60))).live()
    assert await Process(tmp_path, never).live()
    assert collections.Counter(ended(tmp_path).values()) == {"succeeded": 30}


@pytest.mark.parametrize("step", [1, 8])
async def test_of_thirty_jobs_exactly_the_one_that_kills_fails(tmp_path: Path, step: int) -> None:
    ask(tmp_path, *SWANS[:10], "poison", *SWANS[10:])
    lives = 1
    while not await Process(tmp_path, poison(step)).live():
        lives += 1
    assert lives == 2 + MAX_ATTEMPTS  # once among the others, then alone; and one life without it
    assert ended(tmp_path) == dict.fromkeys(SWANS, "succeeded") | {"poison": "failed"}
    told = error_of(tmp_path, "poison")
    assert f"died {MAX_ATTEMPTS} times while this job, and no other, was at work" in told


async def test_what_kills_at_a_different_place_each_time_is_found_too(tmp_path: Path) -> None:
    ask(tmp_path, "poison", *SWANS)
    steps = iter([1, 2, 3, 4, 5, 6, 7, 8])
    lives = 0
    while True:
        fatal = poison(next(steps))
        lives += 1
        if await Process(tmp_path, fatal).live():
            break
    assert lives == 2 + MAX_DEATHS
    assert ended(tmp_path) == dict.fromkeys(SWANS, "succeeded") | {"poison": "failed"}


async def test_a_few_kills_of_a_job_that_gets_on_do_not_end_it(tmp_path: Path) -> None:
    ask(tmp_path, "a long one")
    for events in range(1, MAX_DEATHS):
        assert not await Process(tmp_path, after(events)).live()
    assert await Process(tmp_path, never).live()
    assert ended(tmp_path) == {"a long one": "succeeded"}


async def test_what_was_at_work_when_the_process_died_runs_one_at_a_time_and_then_all_together(
    tmp_path: Path,
) -> None:
    ask(tmp_path, *SWANS)
    first = Process(tmp_path, after(40))
    await first.live()
    together = max(first.backend.at_work)
    assert together > 1
    second = Process(tmp_path, never)
    await second.live()
    assert second.backend.at_work[:together] == [1] * together
    assert max(second.backend.at_work) > 1


async def test_a_process_killed_while_the_weights_load_speaks_against_no_job(
    tmp_path: Path,
) -> None:
    ask(tmp_path, *SWANS)
    for _ in range(3 * MAX_DEATHS):  # the first thing that is drawn is the server's own picture
        process = Process(tmp_path, after(0), warm_up=True)
        assert not await process.live()
        assert process.backend.at_work == [1]
    last = Process(tmp_path, never, warm_up=True)
    assert await last.live()
    assert set(ended(tmp_path).values()) == {"succeeded"}
    assert max(last.backend.at_work) > 1


async def test_a_load_that_kills_ends_the_job_that_alone_asked_for_it(tmp_path: Path) -> None:
    ask(tmp_path, *SWANS[:4], "poison", *SWANS[4:])

    def no_memory(request: GenerationRequest, event: Event) -> bool:
        return request.prompt == "poison" and isinstance(event, Queued)

    while not await Process(tmp_path, no_memory).live():
        pass
    assert ended(tmp_path) == dict.fromkeys(SWANS, "succeeded") | {"poison": "failed"}


async def test_a_process_that_was_told_to_stop_and_then_killed_speaks_against_no_job(
    tmp_path: Path,
) -> None:
    ask(tmp_path, "a long one")
    for _ in range(2 * MAX_DEATHS):
        process = Process(tmp_path, never)

        def stopped_and_killed(
            _request: GenerationRequest, event: Event, process: Process = process
        ) -> bool:
            if isinstance(event, Step):
                process.store.suspects.excuse()  # what `Runner.stop` does first
            return isinstance(event, Step)

        process.backend._fatal = stopped_and_killed
        assert not await process.live()
    assert await Process(tmp_path, never).live()
    assert ended(tmp_path) == {"a long one": "succeeded"}


async def test_a_stop_excuses_what_runs_before_it_waits_for_it(tmp_path: Path) -> None:
    ask(tmp_path, "a long one")
    process = Process(tmp_path, never)
    held = asyncio.Event()

    async def generate(request: GenerationRequest) -> AsyncGenerator[Event, None]:
        yield Queued(position=0)
        held.set()
        await asyncio.Event().wait()

    process.backend.generate = generate
    living = asyncio.create_task(process.live())
    await held.wait()
    process.runner.options = ApiOptions(grace=3600)
    stopping = asyncio.create_task(process.runner.stop())
    await asyncio.sleep(0)
    with process.store._db.reading() as db:
        [began] = db.execute("SELECT began FROM jobs").fetchone()
    process.kill()
    await living
    stopping.cancel()
    assert began is None
