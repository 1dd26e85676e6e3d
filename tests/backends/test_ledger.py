"""What calls cost: kept by day, across processes, and never more than allowed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.backends.config import BackendConfig, Limits
from shared.backends.ledger import Ledger
from shared.errors import CygnetError, DataUnusable, SpendingLimit

ROOT = Path(__file__).parents[2]
HOUR = 3600.0
STUDIO = BackendConfig(name="studio", kind="api", address="http://studio", price=0.25)
UNPRICED = BackendConfig(name="gpu", kind="modal", address="http://gpu")
LOCAL = BackendConfig(name="local", kind="local")


class Clock:
    """Starts at noon, UTC."""

    now = 12 * HOUR

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """Two pictures of the studio's a day."""
    made = Ledger(tmp_path, Limits(per_day=0.5), clock)
    yield made
    made.close()


def test_what_was_spent_counts_until_the_day_is_over(ledger: Ledger, clock: Clock) -> None:
    ledger.book(STUDIO, 2)
    with pytest.raises(SpendingLimit):
        ledger.book(STUDIO, 1)
    clock.now += 11 * HOUR
    with pytest.raises(SpendingLimit):
        ledger.book(STUDIO, 1)
    clock.now += 1 * HOUR
    ledger.book(STUDIO, 1)


def test_what_a_call_really_cost_replaces_what_was_booked(ledger: Ledger) -> None:
    ledger.settle(ledger.book(STUDIO, 2), 0.1, cold=False, waited=1.0)
    ledger.book(STUDIO, 1)
    with pytest.raises(SpendingLimit, match=r"\$0\.35 is spent"):
        ledger.book(STUDIO, 1)


def test_a_call_that_was_not_made_costs_nothing(ledger: Ledger) -> None:
    ledger.release(ledger.book(STUDIO, 2))
    ledger.book(STUDIO, 2)


def test_this_machine_is_never_counted(ledger: Ledger, tmp_path: Path) -> None:
    ledger.book(STUDIO, 2)
    ledger.book(LOCAL, 16)
    counted = Ledger(tmp_path, Limits(calls_per_day=1), Clock())
    counted.book(LOCAL, 1)
    with pytest.raises(SpendingLimit, match="1 calls were made today"):
        counted.book(STUDIO, 1)
    counted.close()


def test_without_a_price_the_dearest_of_the_last_calls_is_expected(tmp_path: Path) -> None:
    free = Ledger(tmp_path, now=Clock())
    for usd in (0.2, 0.6, 0.4):
        free.settle(free.book(UNPRICED, 2), usd, cold=False, waited=None)
    free.close()
    limited = Ledger(tmp_path, Limits(per_image=0.25), Clock())
    with pytest.raises(SpendingLimit, match=r"costs about \$0\.30"):
        limited.book(UNPRICED, 1)
    limited.close()


def test_the_expected_wait_is_the_middle_of_the_last_ones_like_it(ledger: Ledger) -> None:
    assert ledger.wait("local", cold=True) is None
    for waited in (9.0, 8.0, 100.0):
        ledger.settle(ledger.book(LOCAL, 1), None, cold=True, waited=waited)
    ledger.settle(ledger.book(LOCAL, 1), None, cold=False, waited=0.1)
    assert (ledger.wait("local", cold=True), ledger.wait("local", cold=False)) == (9.0, 0.1)


def test_what_is_old_is_forgotten(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    ledger.settle(ledger.book(LOCAL, 1), None, cold=True, waited=9.0)
    clock.now += 31 * 24 * HOUR
    later = Ledger(tmp_path, now=clock)
    assert later.wait("local", cold=True) == 9.0  # nothing since says that the clock is right
    later.book(LOCAL, 1)
    later.close()
    later = Ledger(tmp_path, now=clock)
    assert later.wait("local", cold=True) is None
    later.close()


MANY = """
import sys
from pathlib import Path
from shared.backends.config import BackendConfig, Limits
from shared.backends.ledger import Ledger
from shared.errors import SpendingLimit

studio = BackendConfig(name="studio", kind="api", address="http://studio", price=0.25)
ledger = Ledger(Path(sys.argv[1]), Limits(per_day=5.0))
booked = 0
for _ in range(20):
    try:
        ledger.book(studio, 1)
        booked += 1
    except SpendingLimit:
        pass
print(booked)
"""


def test_what_was_spent_while_the_clock_was_ahead_does_not_count_until_then(
    ledger: Ledger, clock: Clock
) -> None:
    clock.now += 365 * 24 * HOUR
    ledger.book(STUDIO, 2)
    clock.now -= 365 * 24 * HOUR
    ledger.book(STUDIO, 2)
    with pytest.raises(SpendingLimit):
        ledger.book(STUDIO, 1)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "calls.sqlite3") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataUnusable, match="newer version"):
        Ledger(tmp_path, Limits(calls_per_day=9)).book(STUDIO, 1)


def test_processes_at_once_together_keep_to_the_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MANY, str(tmp_path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    booked = [int(process.communicate(timeout=120)[0]) for process in running]
    assert sum(booked) == 20


def test_a_ledger_that_cannot_be_kept_stops_nobody_but_those_with_limits(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite3").write_bytes(b"no database" * 1000)
    unlimited, limited = Ledger(tmp_path), Ledger(tmp_path, Limits(per_day=5.0))
    call = unlimited.book(STUDIO, 1)
    unlimited.settle(call, 0.2, cold=False, waited=1.0)
    assert (call, unlimited.wait("studio", cold=False)) == (None, None)
    with pytest.raises(CygnetError, match="cannot be read"):
        limited.book(STUDIO, 1)


def test_no_word_of_a_request_is_kept(ledger: Ledger, tmp_path: Path) -> None:
    ledger.book(STUDIO, 2)
    with sqlite3.connect(tmp_path / "calls.sqlite3") as db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(calls)")]
    db.close()
    assert columns == ["id", "at", "backend", "images", "free", "usd", "cold", "waited"]
