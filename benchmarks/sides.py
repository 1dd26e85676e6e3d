"""The sides of the comparison of servers: each draws a picture when asked, in a process of its own.

This module does not know how many ask at once, nor what is made of the times.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx
import psutil

from benchmarks.local import COLOURS, KIB, SUBJECTS
from shared import http_clients
from shared.checkpoints import Checkpoint

START_SECONDS = 300
PNG = b"\x89PNG"


class Asked(NamedTuple):
    """What is asked for; `preview` to see how it gets on."""

    seed: int
    preview: bool = False
    steps: int | None = None

    @property
    def prompt(self) -> str:
        """Another one each time, so that no cache of encoded prompts helps."""
        subject = SUBJECTS[self.seed % len(SUBJECTS)]
        return f"{subject} {self.seed} on a {COLOURS[self.seed % len(COLOURS)]} background"


class Sample(NamedTuple):
    """Seconds to the whole picture; to the first preview, where there is one."""

    seconds: float
    preview: float | None


class Load(NamedTuple):
    """What so many clients got, each asking again as soon as it has its picture."""

    wall: float
    samples: list[Sample]


Call = Callable[[Asked], Awaitable[Sample]]


async def closed_loop(call: Call, clients: int, asked: Sequence[Asked]) -> Load:
    waiting = iter(asked)
    samples: list[Sample] = []

    async def client() -> None:
        for one in waiting:
            samples.append(await call(one))

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(time.perf_counter() - start, samples)


class Side(Protocol):
    """Something that draws pictures, in a process of its own."""

    title: str

    def load(self, clients: int, asked: Sequence[Asked]) -> Load: ...

    def memory_mib(self) -> float:
        """What the process holds now."""
        ...

    def stop(self) -> float:
        """End it; the largest memory it ever held, in MiB."""
        ...

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        ...


class Served:
    """A server in a process of its own, and how to call it."""

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        call: Callable[[httpx.AsyncClient, Asked], Awaitable[Sample]],
        **environment: str,
    ) -> None:
        self.title = title
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._call = call
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, str(port)],
            stdout=self._log,
            stderr=self._log,
            env=os.environ | environment,
        )

    def load(self, clients: int, asked: Sequence[Asked]) -> Load:
        return asyncio.run(self._load(clients, asked))

    async def _load(self, clients: int, asked: Sequence[Asked]) -> Load:
        limits = httpx.Limits(max_connections=2 * clients)
        async with http_clients.client(base_url=self._url, timeout=600, limits=limits) as client:
            await self._answers(client)
            try:
                return await closed_loop(lambda one: self._call(client, one), clients, asked)
            except httpx.HTTPError as error:
                raise self._failed(f"failed ({type(error).__name__})") from error

    async def _answers(self, client: httpx.AsyncClient) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                await client.get("/healthz")
                return
            await asyncio.sleep(0.1)
        raise self._failed("does not answer")

    def _failed(self, how: str) -> SystemExit:
        self._log.seek(0)
        return SystemExit(f"{self.title} {how}: {self._log.read().decode()[-2000:]}")

    def memory_mib(self) -> float:
        return psutil.Process(self._process.pid).memory_info().rss / 2**20

    def stop(self) -> float:
        self._process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * KIB / 1024

    def kill(self) -> None:
        self._process.kill()


def cygnet(checkpoint: Checkpoint, folder: Path) -> Served:
    """Our server; pictures in base64, as OpenAI's clients ask for them."""

    async def call(client: httpx.AsyncClient, asked: Asked) -> Sample:
        wanted: dict[str, Any] = {"prompt": asked.prompt, "seed": asked.seed, "steps": asked.steps}
        if asked.preview:
            wanted |= {"stream": True, "partial_images": 3}
        start = time.perf_counter()
        preview: float | None = None
        async with client.stream("POST", "/v1/images/generations", json=wanted) as answer:
            async for event in _events(answer):
                if event.get("type") == "image_generation.partial_image":
                    preview = preview or time.perf_counter() - start
                    continue
                picture = event["b64_json"] if asked.preview else event["data"][0]["b64_json"]
                _check(base64.b64decode(picture))
        return Sample(time.perf_counter() - start, preview)

    return Served(
        "`cygnet serve`",
        ["shared.cli", "serve", "--port"],
        call,
        CYGNET_CHECKPOINT=checkpoint.name,
        CYGNET_DATA_DIR=str(folder),
    )


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Those of a stream, or the whole answer as the only one."""
    answer.raise_for_status()
    if not answer.headers["content-type"].startswith("text/event-stream"):
        yield json.loads(await answer.aread())
        return
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def plain_fastapi(checkpoint: Checkpoint) -> Served:
    async def call(client: httpx.AsyncClient, asked: Asked) -> Sample:
        start = time.perf_counter()
        wanted = {"prompt": asked.prompt, "seed": asked.seed}
        answer = await client.post("/generate", json=wanted)
        _check(answer.raise_for_status().content)
        return Sample(time.perf_counter() - start, None)

    return Served("plain FastAPI", ["benchmarks.plain_fastapi", checkpoint.name], call)


def plain_gradio(checkpoint: Checkpoint) -> Served:
    async def call(client: httpx.AsyncClient, asked: Asked) -> Sample:
        start = time.perf_counter()
        path, wanted = "/gradio_api/call/generate", {"data": [asked.prompt, asked.seed]}
        accepted = (await client.post(path, json=wanted)).raise_for_status().json()
        async with client.stream("GET", f"{path}/{accepted['event_id']}") as answer:
            told = [line async for line in answer.aiter_lines() if line.startswith("data: [")]
        [file] = json.loads(told[-1].removeprefix("data: "))
        _check((await client.get(file["url"])).raise_for_status().content)
        return Sample(time.perf_counter() - start, None)

    return Served(
        "plain Gradio",
        ["benchmarks.plain_gradio", checkpoint.name],
        call,
        GRADIO_ANALYTICS_ENABLED="False",
    )


def _check(picture: bytes) -> None:
    if not picture.startswith(PNG):
        raise SystemExit("an answer is no PNG")


class InProcess:
    """The engine called in the process that wants the pictures; previews are made here too."""

    title = "engine in process"

    def __init__(self, checkpoint: Checkpoint) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(checkpoint.name, theirs))
        self._process.start()
        theirs.close()  # so that the death of the worker is seen here as EOFError

    def load(self, clients: int, asked: Sequence[Asked]) -> Load:
        self._pipe.send((clients, asked))
        return self._pipe.recv()

    def memory_mib(self) -> float:
        return psutil.Process(self._process.pid).memory_info().rss / 2**20

    def stop(self) -> float:
        self._pipe.send(None)
        peak = self._pipe.recv()
        self._process.join()
        return peak

    def kill(self) -> None:
        self._process.kill()


def _work(checkpoint: str, pipe: Connection) -> None:
    from shared.backends.local import LocalBackend
    from shared.contract import ImageReady, Step, parse_request
    from shared.settings import settings

    backend = LocalBackend(settings().acceleration, previews=True)

    async def call(asked: Asked) -> Sample:
        wanted = {"checkpoint": checkpoint, "prompt": asked.prompt, "seed": asked.seed}
        start = time.perf_counter()
        preview: float | None = None
        async for event in backend.generate(parse_request(wanted | {"steps": asked.steps})):
            if isinstance(event, Step):
                preview = preview or time.perf_counter() - start
            elif isinstance(event, ImageReady):
                _check(event.image)
        return Sample(time.perf_counter() - start, preview)

    with asyncio.Runner() as runner:
        while job := pipe.recv():
            pipe.send(runner.run(closed_loop(call, *job)))
        runner.run(backend.aclose())
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 1024)
