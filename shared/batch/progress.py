"""What a batch shows while it runs: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from shared import console
from shared.batch.batch import LISTED
from shared.batch.manifest import Entry
from shared.contract import clean_text
from shared.prices import dollars

_WINDOW = 200
"""Pictures over which the rate is taken."""
_EVERY = 10.0
"""Seconds from one line to the next in a log."""


class Tally:
    """Counts what is done, and how fast. `now` tells the time in seconds."""

    def __init__(
        self, total: int, done: int, cost_usd: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done, self.failed, self.cost_usd = total, done, 0, cost_usd
        self.now = now
        self._times = deque([now()], maxlen=_WINDOW)
        self._began = False

    def begin(self) -> None:
        """The first step is being taken: what came before, such as a load, is no part of the rate."""
        if not self._began and len(self._times) == 1:
            self._times[0] = self.now()
        self._began = True

    def count(self, entry: Entry) -> None:
        if entry.status == "done":
            self.done += 1
        else:
            self.failed += 1
        self.cost_usd += entry.cost_usd or 0.0
        self._times.append(self.now())

    def __str__(self) -> str:
        """Done, rate, time left, cost so far, failures; what is not known is left out."""
        parts = [f"{self.done:,} of {self.total:,}"]
        finished, seconds = len(self._times) - 1, self.now() - self._times[0]
        if finished and seconds > 0:
            rate = finished / seconds
            left = timedelta(seconds=round((self.total - self.done - self.failed) / rate))
            parts += [_rate(rate), f"{left} left"]
        if self.cost_usd:
            parts.append(dollars(self.cost_usd))
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return " · ".join(parts)


def _rate(rate: float) -> str:
    return f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"


class BatchProgress:
    """Counts, and shows nothing: what `--quiet` asks for. Failures are listed at the end."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._remarked = 0

    def __enter__(self) -> BatchProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, entry: Entry) -> None:
        self.tally.count(entry)
        self._remarked += bool(entry.remarks)
        if entry.remarks and self._remarked <= LISTED:
            self.note(f"picture {entry.number}, line {entry.line}: {' '.join(entry.remarks)}")
        elif entry.remarks and self._remarked == LISTED + 1:
            self.note("There are remarks on more pictures: the manifest has them all.")

    def note(self, text: str) -> None:
        print(clean_text(text), file=sys.stderr, flush=True)


class BatchLines(BatchProgress):
    """Plain lines, for a log."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self._said = tally.now()

    def __exit__(self, *_: object) -> None:
        self.note(str(self.tally))

    def show(self, entry: Entry) -> None:
        super().show(entry)
        if self.tally.now() - self._said >= _EVERY:
            self._said = self.tally.now()
            self.note(str(self.tally))


class BatchBar(BatchProgress):
    """A bar that is redrawn in place, for a terminal."""

    def __init__(self, tally: Tally) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        super().__init__(tally)
        self._console = console.stderr()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            redirect_stdout=False,  # else what is printed for a pipe would land on stderr
        )
        self._task = self._bar.add_task(str(tally), total=tally.total, completed=tally.done)

    def __enter__(self) -> BatchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, entry: Entry) -> None:
        super().show(entry)
        ended = self.tally.done + self.tally.failed
        self._bar.update(self._task, description=str(self.tally), completed=ended)

    def note(self, text: str) -> None:
        self._console.print(clean_text(text), markup=False, highlight=False, soft_wrap=True)


def progress_for(tally: Tally, quiet: bool) -> BatchProgress:
    if quiet:
        return BatchProgress(tally)
    return BatchBar(tally) if sys.stderr.isatty() else BatchLines(tally)


def describe(entry: Entry) -> str:
    """A picture that failed, in a line."""
    error = entry.error
    return f"picture {entry.number}, line {entry.line}: " + (
        f"[{error.code}] {error.message}" if error else "no reason is known"
    )
