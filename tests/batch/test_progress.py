"""What is shown of a batch while it runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from shared.batch.manifest import Entry, Failure
from shared.batch.progress import BatchLines, Tally

ROOT = Path(__file__).parents[2]


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def made(cost_usd: float | None = None, error: Failure | None = None) -> Entry:
    return Entry(
        number=4,
        line=7,
        status="failed" if error else "done",
        seed=1,
        request={},
        attempts=1,
        finished="",
        cost_usd=cost_usd,
        error=error,
    )


FULL = Failure(code="out_of_memory", message="Too\nlarge.", next_step="")


def test_it_tells_what_is_done_how_fast_what_is_left_what_it_cost_and_what_failed() -> None:
    clock = Clock()
    tally = Tally(total=1010, done=10, cost_usd=0.5, now=clock)
    assert str(tally) == "10 of 1,010 · $0.50"
    for _ in range(20):
        clock.seconds += 0.5
        tally.count(made(cost_usd=0.01))
    assert str(tally) == "30 of 1,010 · 2.0/s · 0:08:10 left · $0.70"
    clock.seconds += 10
    tally.count(made(error=FULL))
    assert str(tally) == "30 of 1,010 · 1.1/s · 0:15:32 left · $0.70 · 1 failed"


def test_a_slow_rate_is_told_by_the_minute() -> None:
    clock = Clock()
    tally = Tally(total=3, done=0, cost_usd=0, now=clock)
    clock.seconds = 40
    tally.count(made())
    assert str(tally) == "1 of 3 · 1.5/min · 0:01:20 left"


def test_the_time_before_the_first_step_is_no_part_of_the_rate() -> None:
    clock = Clock()
    tally = Tally(total=40, done=0, cost_usd=0, now=clock)
    clock.seconds = 60  # the load
    tally.begin()
    for _ in range(3):
        clock.seconds += 2
        tally.begin()
        tally.count(made())
    assert str(tally) == "3 of 40 · 30.0/min · 0:01:14 left"


def test_the_rate_is_that_of_late_and_not_of_the_whole_run() -> None:
    clock = Clock()
    tally = Tally(total=10_000, done=0, cost_usd=0, now=clock)
    for seconds in [10.0] * 100 + [0.1] * 300:
        clock.seconds += seconds
        tally.count(made())
    assert "· 10.0/s ·" in str(tally)


def test_a_log_gets_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with BatchLines(Tally(total=100, done=0, cost_usd=0, now=clock)) as lines:
        for number in range(40):
            clock.seconds += 1
            lines.show(made(error=FULL if number == 14 else None))
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" · ")[0] for line in said] == [
        "10 of 100",
        "19 of 100",
        "29 of 100",
        "39 of 100",
        "39 of 100",
    ]


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"fox {number}" for number in range(30)))
    ours, theirs = pty.openpty()
    command = ["batch", "prompts.txt", "--out", "out", "--backend", "fake"]
    ran = subprocess.Popen(
        [sys.executable, "-m", "shared.cli", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end has gone
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert ran.communicate()[0] == "out/manifest.csv\n"
    assert ran.returncode == 0
    text = shown.decode()
    assert "\x1b[" in text and "30 of 30" in text and "/s" in text
