"""`cygnet batch` beside a loop over stock diffusers: the same prompts and seeds, on disk, in one run.

Three sides take turns: the local backend, the same through a server on this machine, and what anyone
would write with `WanPipeline`. Each has a process of its own. A rate is that of the pictures from the
start of the first to the end of the last file, as the manifest has it, so that loading weights, which
the server has done before, is no part of it; the time of the whole process stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.local import COLOURS, CYGNET, SUBJECTS, cpu, psnr
from shared.checkpoints import Checkpoint, get_checkpoint

SIDES = {
    "local": "`cygnet batch`",
    "api": "`cygnet batch --backend api`, server on this machine",
    "stock": "a loop over `WanPipeline`",
}


class Cost(NamedTuple):
    """Pictures a second once it draws, and seconds of the whole process."""

    rate: float
    seconds: float


def write_prompts(path: Path, count: int) -> None:
    """`count` prompts, each with a seed of its own."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "seed"])
        for number in range(count):
            subject = SUBJECTS[number % len(SUBJECTS)]
            colour = COLOURS[number // len(SUBJECTS) % len(COLOURS)]
            rows.writerow([f"a {subject}, 3d render, on a {colour} background", number])


def measure(side: str, prompts: Path, out: Path, checkpoint: Checkpoint, url: str) -> Cost:
    """One process, from its start to its exit with every picture written."""
    command = [str(CYGNET), "batch", str(prompts), "--out", str(out), "--quiet"]
    command += ["--backend", side, "--name", "{number}"]
    if side == "stock":
        command = [sys.executable, "-m", "benchmarks.batch", "--stock", str(prompts), str(out)]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--checkpoint", checkpoint.name],
        env=os.environ | {"CYGNET_API_URL": url},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{side} failed: {done.stderr[-2000:]}")
    spans = list(drawn(out))
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    return Cost(len(spans) / (last - first), seconds)


def drawn(out: Path) -> Iterator[tuple[float, float]]:
    """When each picture was begun by whoever drew it, and when its file was whole, in seconds."""
    for line in (out / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        end, spent = datetime.fromisoformat(entry["finished"]).timestamp(), entry["timings"]
        yield end - (spent["total"] - spent["queued"] - spent["loading"]), end


def stock(prompts: Path, out: Path, checkpoint: Checkpoint) -> None:
    """The plain loop: load, and then draw and save one picture after the other."""
    from benchmarks.stock import draw, load

    pipe = load(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    out.mkdir()
    with prompts.open(newline="") as file, (out / "manifest.jsonl").open("w") as manifest:
        for number, row in enumerate(csv.DictReader(file), 1):
            start = time.perf_counter()
            [picture] = draw(pipe, checkpoint, [row["prompt"]], [int(row["seed"])])
            picture.save(out / f"{number:06d}.png")
            spent = {"total": time.perf_counter() - start, "queued": 0, "loading": 0}
            entry = {"finished": datetime.now(UTC).isoformat(), "timings": spent}
            manifest.write(json.dumps(entry) + "\n")


@contextlib.contextmanager
def server(folder: Path, checkpoint: Checkpoint) -> Iterator[str]:
    """The address of a server on this machine that has loaded the checkpoint."""
    environment = os.environ | {
        "CYGNET_DATA_DIR": str(folder),
        "CYGNET_CHECKPOINT": checkpoint.name,
    }
    process = subprocess.Popen(
        [str(CYGNET), "serve", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def compare(checkpoint: Checkpoint, count: int, repeats: int) -> Iterator[str]:
    """The lines of the report for one checkpoint."""
    costs: dict[str, list[Cost]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_prompts(folder / "one.csv", 1)
        write_prompts(folder / "all.csv", count)
        with server(folder / "data", checkpoint) as url:
            # Fills the caches of disk and bytecode; the server loads its weights.
            for side in SIDES:
                measure(side, folder / "one.csv", folder / f"{side}-first", checkpoint, url)
            for repeat in range(repeats):
                for side in SIDES:
                    out = folder / f"{side}-{repeat}"
                    costs[side].append(measure(side, folder / "all.csv", out, checkpoint, url))
        difference = min(
            psnr(picture, folder / f"stock-0/{picture.name}")
            for picture in sorted((folder / "local-0").glob("*.png"))[:8]
        )
    size = f"{checkpoint.width}x{checkpoint.height}"
    yield (
        f"`{checkpoint.name}`: {count} pictures of {size}, {checkpoint.steps} steps, guidance "
        f"{checkpoint.guidance_scale:g}."
    )
    yield f"The pictures agree to {difference:.0f} dB or more."
    yield ""
    yield "| | pictures a second | against stock | whole process, s |"
    yield "| --- | ---: | ---: | ---: |"
    rates = {side: statistics.median(cost.rate for cost in costs[side]) for side in SIDES}
    for side, title in SIDES.items():
        seconds = statistics.median(cost.seconds for cost in costs[side])
        ratio = rates[side] / rates["stock"]
        yield f"| {title} | {rates[side]:.2f} | **{ratio:.2f}x** | {seconds:.1f} |"
    yield ""
    yield f"Through the server: {rates['api'] / rates['local']:.2f} of the local rate."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64, help="pictures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--checkpoint", type=get_checkpoint, default=get_checkpoint("cygnet-tiny"))
    parser.add_argument("--stock", type=Path, nargs=2, metavar=("FILE", "DIR"))
    arguments = parser.parse_args()
    if arguments.stock:
        prompts, out = arguments.stock
        stock(prompts, out, arguments.checkpoint)
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(f"{cpu()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}.")
    print(f"Python {platform.python_version()}, {versions}.")
    count = arguments.repeats
    runs = "One repetition" if count == 1 else f"Medians of {count} repetitions"
    print(f"{runs}, the sides taking turns.")
    if (load := os.getloadavg()[0]) > 0.5:
        print(f"The machine was busy (load {load:.1f}): read the ratios rather than the rates.")
    print("", *compare(arguments.checkpoint, arguments.count, arguments.repeats), sep="\n")


if __name__ == "__main__":
    main()
