"""Cygnet beside a plain diffusers script: same checkpoint, settings and seeds, in fp32, in one run.

The two sides take turns, so that whatever else the machine does hits both. Each number is the median
of the repetitions, and each side has a process of its own. A request ends with an encoded PNG. This
module measures time and memory; that the pictures are the same is shown by their PSNR.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from shared.checkpoints import Checkpoint, get_checkpoint

SUBJECTS = ("red fox", "tulip", "rocket", "cup of coffee", "turtle", "guitar", "snowman", "owl")
COLOURS = ("sky blue", "white", "yellow", "pink", "purple", "green", "beige", "orange")
SEED = 7
CYGNET = Path(sys.executable).parent / "cygnet"
KIB = 1 if sys.platform == "linux" else 1 / 1024
"""ru_maxrss counts KiB on Linux and bytes on macOS."""

Job = Callable[[int], object]
"""Is told which repetition it is."""

Side = Literal["ours", "stock"]
SIDES: tuple[Side, Side] = ("ours", "stock")


class Cost(NamedTuple):
    """What one job took; the peak is the process's own, since its start."""

    seconds: float
    peak_mib: float


def start_to_file(side: Side, checkpoint: Checkpoint, output: Path) -> Cost:
    """A whole process, from its start to its exit with the file written."""
    command = {
        "ours": [str(CYGNET), "generate", "--quiet"],
        "stock": [sys.executable, "-m", "benchmarks.stock"],
    }[side]
    command += ["--checkpoint", checkpoint.name, "--seed", str(SEED), "--out", str(output)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, *prompts(1, 0)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{side} failed: {said.decode()[-2000:]}")
    return Cost(seconds, usage.ru_maxrss * KIB / 1024)


def prompts(count: int, repeat: int) -> list[str]:
    """New ones at each repetition, so that no cache of encoded prompts helps."""
    colour = COLOURS[repeat % len(COLOURS)]
    return [f"a {subject}, 3d render, on a {colour} background" for subject in SUBJECTS[:count]]


def warm_ours(checkpoint: Checkpoint) -> dict[str, Job]:
    """What the worker of our side can be asked for."""
    from shared.backends.local import LocalBackend
    from shared.contract import collect, parse_request
    from shared.settings import settings

    backend = LocalBackend(settings().acceleration)
    loop = asyncio.new_event_loop()

    async def together(texts: list[str]) -> None:
        requests = [
            parse_request({"prompt": text, "seed": SEED, "checkpoint": checkpoint.name})
            for text in texts
        ]
        await asyncio.gather(*(collect(backend.generate(request)) for request in requests))

    return {
        "single": lambda repeat: loop.run_until_complete(together(prompts(1, repeat))),
        "eight": lambda repeat: loop.run_until_complete(together(prompts(8, repeat))),
        "close": lambda _: loop.run_until_complete(backend.aclose()),
    }


def warm_stock(checkpoint: Checkpoint) -> dict[str, Job]:
    """What the worker of the plain script can be asked for."""
    from benchmarks.stock import draw, load

    pipe = load(checkpoint)
    pipe.set_progress_bar_config(disable=True)

    def png(texts: list[str]) -> None:
        for picture in draw(pipe, checkpoint, texts, [SEED] * len(texts)):
            picture.save(io.BytesIO(), "PNG")

    return {
        "single": lambda repeat: png(prompts(1, repeat)),
        "eight": lambda repeat: [png([text]) for text in prompts(8, repeat)],
        "eight listed": lambda repeat: png(prompts(8, repeat)),
        "close": lambda _: None,
    }


def worker(side: Side, name: str, pipe: Connection) -> None:
    """Answer each job with what it took, until it was to close."""
    jobs = {"ours": warm_ours, "stock": warm_stock}[side](get_checkpoint(name))
    job = ""
    while job != "close":
        job, repeat = pipe.recv()
        start = time.perf_counter()
        jobs[job](repeat)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / 1024
        pipe.send(Cost(seconds, peak))


class Worker:
    """A warm process of one side."""

    def __init__(self, side: Side, checkpoint: Checkpoint) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=worker, args=(side, checkpoint.name, theirs))
        self.process.start()
        theirs.close()  # so that the death of the worker is seen here as EOFError
        self.run("single", -1)  # the first request loads the weights

    def run(self, job: str, repeat: int) -> Cost:
        self.pipe.send((job, repeat))
        return self.pipe.recv()

    def stop(self) -> None:
        self.run("close", 0)
        self.process.join()


@dataclass
class Row:
    """One line of the table: what is measured, and by which job of each side."""

    title: str
    ours: str
    stock: str
    memory: bool = False


ROWS = (
    Row("process start to file written, s", "start", "start"),
    Row("warm, one request, s", "single", "single"),
    Row("warm, 8 requests at once, s (stock: one by one)", "eight", "eight"),
    Row("warm, 8 requests at once, s (stock: one call with 8 prompts)", "eight", "eight listed"),
    Row("peak memory, process start to file, MiB", "start", "start", memory=True),
    Row("peak memory, 8 requests, MiB (stock: one by one)", "eight", "eight", memory=True),
    Row("peak memory, 8 requests, MiB (stock: one call)", "eight", "eight listed", memory=True),
)


def compare(checkpoint: Checkpoint, repeats: int) -> Iterator[str]:
    """The lines of the report for one checkpoint."""
    measured: dict[tuple[Side, str], list[Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        files = {side: Path(folder, f"{side}.png") for side in SIDES}
        for side in SIDES:
            start_to_file(side, checkpoint, files[side])  # fills the caches of disk and bytecode
        difference = psnr(files["ours"], files["stock"])
        for _ in range(repeats):
            for side in SIDES:
                files[side].unlink()
                measured[side, "start"].append(start_to_file(side, checkpoint, files[side]))

    workers = {side: Worker(side, checkpoint) for side in SIDES}
    for job in ("single", "eight"):
        for repeat in range(repeats):
            for side in SIDES:
                measured[side, job].append(workers[side].run(job, repeat))
    for repeat in range(repeats):  # last, because a process's peak never falls
        cost = workers["stock"].run("eight listed", repeat)
        measured["stock", "eight listed"].append(cost)
    for side in SIDES:
        workers[side].stop()

    size = f"{checkpoint.width}x{checkpoint.height}"
    yield f"`{checkpoint.name}`: {size}, {checkpoint.steps} steps, guidance {checkpoint.guidance_scale:g}."
    yield f"The two pictures agree to {difference:.0f} dB."
    yield ""
    yield "| | ours | stock | ratio |"
    yield "| --- | ---: | ---: | ---: |"
    for row in ROWS:
        ours, stock = (
            statistics.median(cost.peak_mib if row.memory else cost.seconds for cost in costs)
            for costs in (measured["ours", row.ours], measured["stock", row.stock])
        )
        digits = 0 if row.memory else 2
        yield (
            f"| {row.title} | {ours:.{digits}f} | {stock:.{digits}f} | **{ours / stock:.2f}x** |"
        )


def psnr(one: Path, other: Path) -> float:
    """Peak signal-to-noise ratio of two pictures in dB, 8 bits a channel."""
    pixels = [
        np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) for path in (one, other)
    ]
    error = np.mean((pixels[0] - pixels[1]) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def cpu() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--checkpoint", action="append", dest="checkpoints", metavar="NAME")
    arguments = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(f"{cpu()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}.")
    print(f"Python {platform.python_version()}, {versions}.")
    print(f"Medians of {arguments.repeats} repetitions, the two sides taking turns.")
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"The machine was busy (load {load:.1f}): read the ratios rather than the seconds.")
    for name in arguments.checkpoints or ("cygnet-tiny", "cygnet-tiny-fast"):
        print("", *compare(get_checkpoint(name), arguments.repeats), sep="\n", flush=True)


if __name__ == "__main__":
    main()
