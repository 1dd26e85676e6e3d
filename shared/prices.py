"""What a machine costs by the second, and whose seconds they were.

The prices are Modal's, in dollars, for the base region and preemptible machines. They are copied from
other people's copies of modal.com/pricing: T4, L4, L40S, A100-80GB and H100 from one of May 2026, which one
of June 2026 confirms for H100, cores and memory; the others stand in an undated one only. The page itself
could not be reached from where this was written. An estimate, then, and no bill: starting, and
waiting idle for the next request, cost as much a second and are in no result.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PRICES_OF = "2026-06-27"
"""The day of the newest copy."""

GPU_SECOND = {
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "L40S": 0.000542,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "RTX-PRO-6000": 0.000842,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
}
"""By the name that Modal gives a GPU; "A100" alone is not one that could be priced."""
GPU_NAMES = (*GPU_SECOND, "A10G", "A100", "H100!", "B200+", "ANY")
"""All that Modal takes for a GPU; some names leave open which it gives."""
CORE_SECOND = 0.0000131
GIB_SECOND = 0.00000222


@dataclass(frozen=True)
class Machine:
    """What is paid for while a container runs."""

    cores: float
    memory_gib: float
    gpu: str | None = None

    @property
    def second_usd(self) -> float | None:
        """Dollars a second; None for a GPU without a known price."""
        if self.gpu and self.gpu not in GPU_SECOND:
            return None
        gpu = GPU_SECOND[self.gpu] if self.gpu else 0.0
        return gpu + CORE_SECOND * self.cores + GIB_SECOND * self.memory_gib


def gpu_of(device: str, memory_gib: float) -> str:
    """Modal's name of a GPU from what CUDA calls it: "NVIDIA L40S" is L40S, "Tesla T4" is T4.

    The name as it is where nothing fits. Only the memory tells the two kinds of A100 apart.
    """
    words = set(re.split(r"[\s-]+", device.upper().replace("A10G", "A10")))
    if "A100" in words:
        return "A100-80GB" if memory_gib > 60 else "A100-40GB"
    if {"PRO", "6000"} <= words:
        return "RTX-PRO-6000"
    return next((name for name in GPU_SECOND if name in words), device)


@dataclass(eq=False)
class Share:
    """The seconds of a machine that one request has used so far."""

    seconds: float = 0.0


class Meter:
    """Divides each second of a machine among the requests that it serves in that second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = 0.0
        self._running: list[Share] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[], float]]:
        """While a request runs: what tells its seconds so far."""
        self._divide()
        share = Share()
        self._running.append(share)

        def seconds() -> float:
            self._divide()
            return share.seconds

        try:
            yield seconds
        finally:
            self._divide()
            self._running.remove(share)

    def _divide(self) -> None:
        now = self._now()
        for share in self._running:
            share.seconds += (now - self._last) / len(self._running)
        self._last = now


def dollars(usd: float) -> str:
    """For people: in cents, or to three digits where that would say too little."""
    small = usd < 0.1 and round(usd, 2) != usd
    return f"${usd:,.{2 - math.floor(math.log10(usd)) if small else 2}f}"
