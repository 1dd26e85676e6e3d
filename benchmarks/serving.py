"""`cygnet serve` beside two plain servers and the engine itself, in one run on one machine.

Same checkpoint, settings and seeds, fp32. The sides take turns, each in a process of its own, while
so many clients ask again as soon as they have their picture. A picture is an encoded PNG that has
arrived. Then: memory over many requests, and time against steps and pixels. Writes its page and its
plot; this module does not compare pictures, which `benchmarks.local` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.local import cpu
from benchmarks.sides import Asked, InProcess, Load, Side, cygnet, plain_fastapi, plain_gradio
from shared.checkpoints import Checkpoint, add_folder, get_checkpoint

HERE = Path(__file__).parent
PLOT = HERE.parent / "docs" / "images" / "serving.png"
MEMORY_CLIENTS = 16


@dataclass(frozen=True)
class Plan:
    """How much is done: for so many clients, rounds and the requests of each."""

    levels: dict[int, tuple[int, int]]
    memory_requests: int
    repeats: int


FULL = Plan({1: (30, 1), 4: (3, 8), 16: (2, 32), 64: (1, 96)}, 2000, 5)
QUICK = Plan({1: (3, 1), 4: (1, 8), 16: (1, 16), 64: (1, 64)}, 200, 1)


@dataclass
class Measured:
    """Of one side at one level."""

    loads: list[Load] = field(default_factory=list)
    previews: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [sample.seconds for load in self.loads for sample in load.samples]

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return len(self.seconds) / sum(load.wall for load in self.loads)

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.seconds, share))


@contextlib.contextmanager
def opened(*sides: Callable[[], Side]) -> Iterator[list[Side]]:
    """The sides, warm; none outlives this."""
    with contextlib.ExitStack() as stack:
        warm = []
        for start in sides:
            side = start()
            stack.callback(side.kill)
            side.load(1, [Asked(0)])  # loads the weights
            warm.append(side)
        yield warm


Results = dict[int, dict[str, Measured]]


def compare(sides: Sequence[Side], plan: Plan) -> Results:
    """Every side at every level, taking turns."""
    results: Results = defaultdict(lambda: defaultdict(Measured))
    seeds = itertools.count(1)
    for clients, (rounds, requests) in plan.levels.items():
        for _ in range(rounds):
            asked = [Asked(next(seeds)) for _ in range(requests)]
            for side in sides:
                results[clients][side.title].loads.append(side.load(clients, asked))
        asked = [Asked(next(seeds), preview=True) for _ in range(max(clients, rounds))]
        for side in sides[:2]:  # the others show nothing before the picture
            load = side.load(clients, asked)
            previews = [sample.preview for sample in load.samples if sample.preview]
            results[clients][side.title].previews += previews
    return results


def memory(side: Side, requests: int) -> list[float]:
    """What the process holds after each of twenty parts of so many requests of one step, in MiB."""
    held = []
    seeds = itertools.count(10_000)
    for _ in range(20):
        asked = [Asked(next(seeds), steps=1) for _ in range(requests // 20)]
        side.load(MEMORY_CLIENTS, asked)
        held.append(side.memory_mib())
    return held


def scaling(checkpoint: Checkpoint, repeats: int) -> Iterator[str]:
    """Time of one request by steps and by pixels; the engine in this process, weights of any size."""
    from shared.backends.local import LocalBackend
    from shared.contract import collect, parse_request

    assert checkpoint.folder
    name = add_folder(checkpoint.folder).name
    backend = LocalBackend()

    async def seconds(side: int, steps: int) -> float:
        wanted = {"prompt": "a fox", "checkpoint": name, "guidance_scale": 1, "seed": 7}
        request = parse_request(wanted | {"width": side, "height": side, "steps": steps})
        await collect(backend.generate(request))  # the first of a size makes room for it
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            await collect(backend.generate(request))
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    with asyncio.Runner() as runner:
        by_steps = {n: runner.run(seconds(256, n)) for n in (5, 10, 20, 40, 80)}
        by_side = {n: runner.run(seconds(n, 4)) for n in (256, 384, 512, 768, 1024)}
        runner.run(backend.aclose())
    yield "| steps at 256x256 | seconds | a step, ms |"
    yield "| ---: | ---: | ---: |"
    yield from (f"| {n} | {s:.3f} | {1e3 * s / n:.1f} |" for n, s in by_steps.items())
    yield ""
    yield "| pixels, 4 steps | seconds | a megapixel, s |"
    yield "| ---: | ---: | ---: |"
    yield from (f"| {n}x{n} | {s:.3f} | {1e6 * s / n**2:.2f} |" for n, s in by_side.items())
    yield ""
    steps, pixels = growth(by_steps), growth({n * n: s for n, s in by_side.items()})
    yield (
        f"Time grows as steps to the power of {steps:.2f} and as pixels to the power of {pixels:.2f};"
        " 1 is in proportion."
    )


def growth(times: dict[int, float]) -> float:
    """The exponent of the power law that fits best."""
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def table(results: Results, peaks: dict[str, float]) -> Iterator[str]:
    yield "| clients | | pictures/s | p50, s | p95, s | first preview, s |"
    yield "| ---: | --- | ---: | ---: | ---: | ---: |"
    for clients, measured in results.items():
        for title, one in measured.items():
            preview = f"{statistics.median(one.previews):.2f}" if one.previews else "none"
            row = [f"{one.rate:.2f}", f"{one.percentile(50):.2f}", f"{one.percentile(95):.2f}"]
            yield f"| {clients} | {title} | {' | '.join(row)} | {preview} |"
    yield ""
    yield "Peak memory of each process, MiB: " + ", ".join(
        f"{title} {peak:.0f}" for title, peak in peaks.items()
    )


def summary(results: Results, titles: Sequence[str], held: Sequence[float]) -> Iterator[str]:
    ours, engine, fastapi, _ = titles
    for clients, measured in results.items():
        ratio = measured[ours].rate / measured[fastapi].rate
        yield f"- {clients} clients: **{ratio:.1f}x** the pictures a second of plain FastAPI."
    alone = results[1]
    overhead = alone[ours].percentile(50) / alone[engine].percentile(50) - 1
    yield f"- One client: {100 * overhead:+.1f}% time over the engine called in process (medians)."
    grown = statistics.median(held[-3:]) / statistics.median(held[2:5]) - 1
    yield f"- Memory from a tenth of the requests to the last: {100 * grown:+.1f}%."


def plot(results: Results, titles: Sequence[str], path: Path) -> None:
    """Pictures a second and the wait for one, by clients; every side in its colour."""
    colours = ("#0f766e", "#94a3b8", "#ea580c", "#7c3aed")
    figure, (rate, wait) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    levels = list(results)
    for title, colour in zip(titles, colours, strict=True):
        side = [results[clients][title] for clients in levels]
        style = {"color": colour, "marker": "o", "linewidth": 2, "label": title.strip("`")}
        rate.plot(levels, [one.rate for one in side], **style)
        wait.plot(levels, [one.percentile(50) for one in side], **style)
        wait.fill_between(
            levels,
            [one.percentile(50) for one in side],
            [one.percentile(95) for one in side],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    rate.set_title("pictures a second", loc="left")
    rate.set_ylim(bottom=0)
    wait.set_title("seconds to a picture: median, and up to p95", loc="left")
    wait.set_yscale("log")
    for axes in (rate, wait):
        axes.set_xscale("log", base=2)
        axes.set_xticks(levels, [str(clients) for clients in levels])
        axes.set_xlabel("clients at once")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    rate.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=get_checkpoint, default="cygnet-tiny-fast")
    parser.add_argument("--quick", action="store_true", help="few requests, to try it out")
    parser.add_argument("--out", type=Path, default=HERE / "serving.md")
    parser.add_argument("--plot", type=Path, default=PLOT)
    arguments = parser.parse_args()
    matplotlib.use("Agg")
    plan = QUICK if arguments.quick else FULL
    checkpoint: Checkpoint = arguments.checkpoint
    load = os.getloadavg()[0]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        with opened(
            lambda: cygnet(checkpoint, Path(folder, "compared")),
            lambda: InProcess(checkpoint),
            lambda: plain_fastapi(checkpoint),
            lambda: plain_gradio(checkpoint),
        ) as sides:
            titles = [side.title for side in sides]
            results = compare(sides, plan)
            peaks = {side.title: side.stop() for side in sides}
        with opened(lambda: cygnet(checkpoint, Path(folder, "many"))) as [server]:
            held = memory(server, plan.memory_requests)
    plot(results, titles, arguments.plot)
    names = ("torch", "diffusers", "fastapi", "gradio", "uvicorn")
    lines = [
        f"{cpu()}, {os.cpu_count()} cores, OMP_NUM_THREADS"
        f" {os.environ.get('OMP_NUM_THREADS', 'unset')}.",
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + ".",
        f"`{checkpoint.name}`: {checkpoint.width}x{checkpoint.height}, {checkpoint.steps} steps,"
        f" guidance {checkpoint.guidance_scale:g}.",
    ]
    if load > 0.5:
        lines.append(f"The machine was busy (load {load:.1f}): read the ratios, not the seconds.")
    if arguments.quick:
        lines.append("With `--quick`: few requests, so that the numbers say little.")
    lines += ["", *summary(results, titles, held), "", *table(results, peaks), ""]
    lines += [
        f"Memory of `cygnet serve` during {plan.memory_requests} requests of one step, MiB: "
        + ", ".join(f"{mib:.0f}" for mib in held),
        "",
        *scaling(get_checkpoint("cygnet-tiny"), plan.repeats),
    ]
    arguments.out.write_text("\n".join(lines) + "\n")
    print(arguments.out.read_text(), f"Took {time.monotonic() - start:.0f} s.", sep="\n")


if __name__ == "__main__":
    main()
