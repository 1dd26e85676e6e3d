"""Events at a pace that a person can follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator

from shared.contract import Event


async def gathered(
    events: AsyncIterator[Event], seconds: float
) -> AsyncGenerator[list[Event], None]:
    """The events in groups: the first at once, the next not before so many seconds, none ever late.

    Closing it cancels what `events` wait for.
    """
    group: list[Event] = []
    due = 0.0
    coming = asyncio.ensure_future(anext(events))
    try:
        while True:
            wait = max(0.0, due - time.monotonic()) if group else None
            await asyncio.wait([coming], timeout=wait)
            if coming.done():
                try:
                    group.append(coming.result())
                except StopAsyncIteration:
                    break
                coming = asyncio.ensure_future(anext(events))
            if time.monotonic() >= due:
                yield group
                group, due = [], time.monotonic() + seconds
        if group:
            yield group
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
