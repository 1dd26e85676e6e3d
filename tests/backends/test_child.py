"""The engine in a process of its own: started when it is needed, gone when it is not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from shared.backends.child import ChildBackend
from shared.contract import Step, collect, parse_request
from shared.errors import BackendUnavailable, PackageMissing
from shared.images import read_recipe

ROOT = Path(__file__).parents[2]
REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2})
ENDLESS = parse_request({"prompt": "a fox", "steps": 100, "num_images": 16})

# A child that draws without a model, and says which process it is where a device is named.
FAKE = """
import asyncio, os, sys
import shared.backends
from shared.backends.fake import FakeBackend
from shared.contract import Done, Step

class Named(FakeBackend):
    async def generate(self, request):
        async for event in super().generate(request):
            if isinstance(event, Done):
                told = {"device": f"{os.getpid()} in {os.environ.get('TMPDIR')}"}
                event = Done(result=event.result.model_copy(update=told))
            if isinstance(event, Step) and event.step > 90:
                await asyncio.Event().wait()
            yield event

shared.backends._OPENERS["local"] = lambda *_: Named()
from shared.cli import main
sys.exit(main())
"""
COMMAND = (sys.executable, "-c", FAKE)

Make = Callable[..., ChildBackend]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes backends whose children leave their traces in `tmp_path`, and closes them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made: list[ChildBackend] = []

    def make(idle_seconds: float = 60.0, command: tuple[str, ...] = COMMAND) -> ChildBackend:
        made.append(ChildBackend(idle_seconds, command))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


async def draw(backend: ChildBackend) -> int:
    """The id of the process that has drawn a picture."""
    result, [image] = await collect(backend.generate(REQUEST))
    assert read_recipe(image).fields["seed"] == 7
    return int(result.device.split()[0])


async def gone(process: int) -> None:
    """Once there is no such process."""
    async with asyncio.timeout(60):
        while True:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.01)


async def test_it_starts_with_the_first_request_and_serves_the_next_ones(make: Make) -> None:
    backend = make()
    cold = await backend.status()
    assert (cold.name, cold.healthy, cold.warm) == ("local", True, False)
    first, *others = await asyncio.gather(*(draw(backend) for _ in range(4)))
    assert {*others} == {first} and first != os.getpid()
    assert (await backend.status()).warm


async def test_it_ends_when_it_was_idle_and_leaves_nothing_behind(
    make: Make, tmp_path: Path
) -> None:
    backend = make(idle_seconds=0)
    first = await draw(backend)
    await gone(first)
    assert [*tmp_path.iterdir()] == []
    assert await draw(backend) != first


async def test_it_is_not_idle_while_another_request_runs(make: Make) -> None:
    backend = make(idle_seconds=0)
    async with aclosing(backend.generate(ENDLESS)) as events:
        first = await anext(events)
        assert await draw(backend) == await draw(backend)
    assert first.type == "queued"


async def test_one_that_died_is_replaced_at_the_next_request(make: Make) -> None:
    backend = make()
    first = await draw(backend)
    os.kill(first, signal.SIGKILL)
    assert await draw(backend) != first


async def test_one_that_dies_at_work_is_an_error_soon_and_the_work_is_not_done_again(
    make: Make,
) -> None:
    backend = make()
    process = await draw(backend)
    with pytest.raises(BackendUnavailable, match="process died") as failure:
        async with aclosing(backend.generate(ENDLESS)) as events:
            async for event in events:
                if isinstance(event, Step) and event.step == 90:
                    os.kill(process, signal.SIGKILL)
    assert not failure.value.began
    assert await draw(backend) != process


async def test_to_stop_reading_stops_the_work_and_leaves_the_process(make: Make) -> None:
    backend = make()
    process = await draw(backend)
    async with aclosing(backend.generate(ENDLESS)) as events:
        async for event in events:
            if isinstance(event, Step):
                break
    assert await draw(backend) == process


async def test_to_close_it_ends_the_process(make: Make, tmp_path: Path) -> None:
    backend = make()
    process = await draw(backend)
    await backend.aclose()
    await gone(process)
    assert [*tmp_path.iterdir()] == []


async def test_a_child_that_cannot_start_says_why(make: Make) -> None:
    words = "error[package_missing]: torch is missing. Next: Install it."
    told = make(command=(sys.executable, "-c", f"import sys; sys.exit({words!r})"))
    with pytest.raises(PackageMissing, match=r"^torch is missing\. Install it\.$"):
        await draw(told)
    silent = make(command=(sys.executable, "-c", "pass"))
    with pytest.raises(BackendUnavailable, match="could not be started"):
        await draw(silent)


PARENT = """
import asyncio, sys
from shared.backends.child import ChildBackend
from shared.contract import collect, parse_request

async def main():
    backend = ChildBackend(command=(sys.executable, "-c", sys.argv[1]))
    result, _ = await collect(backend.generate(parse_request({"prompt": "a fox", "steps": 2})))
    print(result.device.split()[0], flush=True)
    await collect(backend.generate(parse_request({"prompt": "a fox", "steps": 100})))

asyncio.run(main())
"""


async def test_it_dies_with_a_parent_that_is_killed_even_at_work(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, FAKE),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert parent.stdout
    child = int(await parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    await parent.wait()
    await gone(child)
    assert [*tmp_path.iterdir()] == []


async def test_nobody_else_may_use_it(make: Make) -> None:
    backend = make()
    await draw(backend)
    assert backend._child
    server = backend._child.backend._client
    answer = await server.get("/v1/jobs", headers={"Authorization": "Bearer guessed"})
    assert answer.status_code == 401
    assert server.base_url.host == "127.0.0.1"
