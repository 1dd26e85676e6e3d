"""How a command that has begun is stopped."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable
from typing import NoReturn, Protocol


class Shown(Protocol):
    """What is shown of the command while it runs."""

    def note(self, text: str) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class CtrlC:
    """The first Ctrl-C cancels the task that gave itself up to it; the second leaves at once."""

    def __init__(self, progress: Shown) -> None:
        self._progress = progress
        self._cancel: Callable[[], object] | None = None

    def __enter__(self) -> CtrlC:
        self._previous = signal.signal(signal.SIGINT, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def cancels_this_task(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            self._progress.note("Stopping at the next step; Ctrl-C again leaves at once.")
            if task:
                task.cancel()

        self._cancel = functools.partial(loop.call_soon_threadsafe, stop)

    def _first(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._second)
        if self._cancel is None:
            raise KeyboardInterrupt
        self._cancel()

    def _second(self, *_: object) -> NoReturn:
        self._progress.__exit__()  # gives the terminal its cursor back
        os._exit(1)  # threads that still compute would hold up any other way out
