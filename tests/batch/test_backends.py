"""A batch on real backends: a server elsewhere, and the engine with the checkpoint that ships."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared import cli
from shared.settings import settings
from tests.batch.conftest import manifest, pictures, wait_for_lines

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server with a fake behind it, which the backend `api` leads to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "shared.cli", "serve", "--backend", "fake", "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CYGNET_DATA_DIR": str(folder / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        monkeypatch.setenv("CYGNET_API_URL", process.stdout.readline().strip())
        settings.cache_clear()
        yield
    finally:
        process.terminate()
        process.communicate()


def jobs(folder: Path) -> tuple[int, int]:
    """How many jobs the server was sent, and whether all of them were a batch's."""
    with contextlib.closing(sqlite3.connect(folder / "data/jobs.sqlite3")) as rows:
        return rows.execute("SELECT count(*), min(batch) FROM jobs").fetchone()


def test_on_a_server_its_jobs_give_way_to_those_somebody_waits_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "prompts.txt").write_text("\n".join(f"fox {number}" for number in range(20)))
    with server(folder, monkeypatch):
        assert cli.main(["batch", "prompts.txt", "--out", "out", "--backend", "api"]) == 0
    assert len(pictures(folder / "out")) == 20
    assert {line["backend"] for line in manifest(folder / "out")} == {"api"}
    assert jobs(folder) == (20, 1)


def test_after_a_kill_it_follows_the_jobs_that_the_server_has_already(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "prompts.txt").write_text("\n".join(f"fox {number}" for number in range(120)))
    command = ["batch", "prompts.txt", "--out", "out", "--backend", "api"]
    with server(folder, monkeypatch):
        for lines in (10, 50):
            killed = subprocess.Popen(
                [sys.executable, "-m", "shared.cli", *command],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_for_lines(killed, folder / "out/manifest.jsonl", lines)
            killed.kill()
            killed.communicate()
        assert cli.main(command) == 0
        assert len(pictures(folder / "out")) == 120
        for path in (folder / "out").glob("00000*.png"):  # now somebody wants them anew
            path.unlink()
        assert cli.main(command) == 0
    assert len(pictures(folder / "out")) == 120
    assert jobs(folder) == (129, 1)


def test_the_engine_draws_in_a_batch_what_it_draws_alone(folder: Path) -> None:
    (folder / "prompts.csv").write_text(
        'prompt,seed\n"a {red fox|tulip|owl}, 3d render, on a {pink|white} background",7\n'
    )
    fast = ("--checkpoint", "cygnet-tiny-fast")
    assert cli.main(["batch", "prompts.csv", "--out", "out", *fast]) == 0
    lines = manifest(folder / "out")
    assert len(lines) == 6
    assert all(line["device"] == "cpu" and line["timings"]["denoising"] > 0 for line in lines)
    prompt = lines[3]["request"]["prompt"]
    assert cli.main(["generate", prompt, "--seed", "7", *fast, "--out", "alone.png"]) == 0
    together, alone = (
        np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)
        for path in (folder / "out" / lines[3]["file"], folder / "alone.png")
    )
    assert np.abs(together - alone).max() <= 1
