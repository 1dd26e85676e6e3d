"""How many pictures' requests a key may send: so many a minute, spread or all at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from shared.errors import RateLimited

_MANY = 10_000
"""Callers that are remembered before those whose bucket is full are forgotten; else whoever has many
addresses fills the memory."""


class RateLimit:
    """The generic cell rate algorithm (ATM Forum TM 4.0): a bucket of tokens in one number a key.

    With a limit of 0 there is none.
    """

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now = now
        self._full_at: dict[str, float] = {}
        """When each key's bucket will be full again."""

    def take(self, owner: str) -> None:
        """Count one request. Raises `RateLimited` with the seconds until the next one may come."""
        if not self._per_minute:
            return
        now, interval = self._now(), 60 / self._per_minute
        full_at = max(self._full_at.get(owner, now), now) + interval
        if (wait := full_at - now - 60) > 1e-6:
            raise RateLimited(
                f"This key may send {self._per_minute} requests a minute.",
                "Send the next one later.",
                retry_after=math.ceil(wait),
            )
        self._full_at[owner] = full_at
        if len(self._full_at) > _MANY:
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
