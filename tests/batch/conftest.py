"""What the tests of batches share: a way to run one with a fake, and to read what it left."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared import cli
from shared.contract import Event

UseFake = Callable[..., None]
Run = Callable[..., int]


@pytest.fixture
def batch(folder: Path, use_fake: UseFake) -> Run:
    """Writes rows into a file and runs `cygnet batch` on it, into `out`, with a fake backend."""

    def run(
        rows: str | bytes,
        *options: str,
        file: str = "prompts.txt",
        before_event: Callable[[Event], None] | None = None,
    ) -> int:
        use_fake(before_event)
        (folder / file).write_bytes(rows.encode() if isinstance(rows, str) else rows)
        return cli.main(["batch", file, "--out", "out", *options])

    return run


def manifest(out: Path) -> list[dict[str, Any]]:
    """The lines of a manifest, in the order of the pictures' numbers."""
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda line: line["number"])


def pictures(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of stderr, which has to be an error in our form."""
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error[") and "Next: " in line
    return line


def wait_for_lines(process: subprocess.Popen[str], path: Path, count: int) -> None:
    """Until a batch in a process of its own has finished so many pictures."""
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)  # the other process is told nothing of us
