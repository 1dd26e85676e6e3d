"""Server-sent events, as the WHATWG's HTML standard describes them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy may hold it back


SILENCE = b": still here\n\n"
"""A comment, which keeps proxies and readers patient."""


def message(event: str, data: Mapping[str, Any], event_id: int | None = None) -> bytes:
    """One event. JSON without line breaks, so that it is one `data` line."""
    number = "" if event_id is None else f"id: {event_id}\n"
    return f"{number}event: {event}\ndata: {json.dumps(data)}\n\n".encode()


class EventStream(StreamingResponse):
    """Sends what `messages` yields.

    When the reader has gone, `messages` is closed at once, not when memory is next cleaned.
    """

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncGenerator[bytes, None]) -> None:
        super().__init__(messages, headers=_HEADERS)
        self._messages = messages

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._messages):
            await super().stream_response(send)
