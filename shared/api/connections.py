"""What callers owe a connection in time, and how many connections there may be.

uvicorn ends a connection that is idle between two calls, and waits for ever for the rest of a call, or
for somebody to read its answer. Here each of these has a deadline, and is put off by progress: a large
upload over a slow line, or a stream that has nothing to say for hours, is not cut off. Where as many are
open as may be, the one that has kept the server waiting the longest makes room.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

Waiting = Literal["idle", "head", "body", "reader"]
"""For a call, for the rest of its headers, for the rest of its body, for its answer to be read."""

_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True)
class Patience:
    """How long the server waits for its callers, in seconds."""

    head: float = 20.0
    """For all of a call's headers, however they come."""
    body: float = 20.0
    """For the next part of a body; what comes faster than `slowest` gives time back."""
    reader: float = 30.0
    """For the next part of an answer to be read, likewise."""
    idle: int = 75
    """Between two calls: longer than clients keep a connection for, so that none is closed under the
    next call of one that has just taken it up again."""
    slowest: float = 4096.0
    """Bytes a second."""


PATIENCE = Patience()


class Connections(ServerState):
    """All connections of a server. At most `most` are open at once; `look` is to be called every second
    or so."""

    def __init__(self, patience: Patience, most: int) -> None:
        super().__init__()
        self.patience = patience
        self.ended = Counter[str]()
        """How many were ended since the last look, and why."""
        self._most = most
        self._looked = time.monotonic()

    def look(self) -> None:
        """End those whose time has passed."""
        now = time.monotonic()
        # What holds up the server itself is no fault of its callers.
        seconds = min(now - self._looked, 2.0)
        self._looked = now
        for connection in self._all():
            connection.look(seconds)
        if self.ended:  # in one line, however many they are
            log.info("connections ended", extra={"fields": dict(self.ended)})
            self.ended.clear()

    def make_room(self, new: Connection) -> None:
        """Once too many are open, end one: `new` itself if the server works for all others."""
        if len(self.connections) > self._most:
            waited_for = [one for one in self._all() if one.waits]
            min(waited_for, key=lambda one: one.patience_left, default=new).end("crowded")

    def _all(self) -> list[Connection]:
        return cast("list[Connection]", list(self.connections))


class Connection(H11Protocol):
    """One connection."""

    server_state: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._out: Any = _Counted(transport)
        super().connection_made(self._out)
        self._received = self._received_then = 0
        self._read_then = 0
        self._call: object = None
        self._left = {**self._full(), "idle": 0.0}
        self._heard = self.loop.time()
        self.server_state.make_room(self)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._heard = self.loop.time()
        super().data_received(data)

    def _full(self) -> dict[str, float]:
        patience = self.server_state.patience
        return {"head": patience.head, "body": patience.body, "reader": patience.reader}

    @property
    def waits(self) -> Waiting | None:
        """What the server waits for; None while it is the server that works."""
        if self.transport.get_write_buffer_size():
            return "reader"
        if self.transport.is_closing():
            return None
        if self.conn.their_state is h11.IDLE:
            return "idle" if self.timeout_keep_alive_task else "head"
        asked_on = not self.conn.they_are_waiting_for_100_continue and not self.flow.read_paused
        return "body" if self.conn.their_state is h11.SEND_BODY and asked_on else None

    @property
    def patience_left(self) -> tuple[float, float]:
        """Seconds, and when its caller was last heard of: the least is the first to make room."""
        return self._left[self.waits or "idle"], self._heard

    def look(self, seconds: float) -> None:
        """`seconds` have passed since the last time: end the connection if one deadline has."""
        received, read = self._received, self._out.written - self._out.get_write_buffer_size()
        gained = {"body": received - self._received_then, "reader": read - self._read_then}
        self._received_then, self._read_then = received, read
        full, waits = self._full(), self.waits
        if self.cycle is not self._call:  # another call, which has all its time
            self._call = self.cycle
            self._left |= {"head": full["head"], "body": full["body"]}
        if waits != "reader":
            self._left["reader"] = full["reader"]
        if waits is None or waits == "idle":  # the latter is uvicorn's to end
            return
        back = gained.get(waits, 0) / self.server_state.patience.slowest
        self._left[waits] = min(full[waits], self._left[waits] + back - seconds)
        if self._left[waits] <= 0:
            self.end(waits)

    def end(self, why: Waiting | Literal["crowded"]) -> None:
        self.server_state.ended[why] += 1
        self._out.abort()


class _Counted:
    """A transport that counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class QuietLoop:
    """Says once a minute that the system gives no more connections; asyncio says it thousands of times
    a second."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = loop.get_exception_handler() or type(loop).default_exception_handler
        self._said: float | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An event loop's handler of exceptions."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _NO_MORE):
            self._handle(loop, context)
        elif self._said is None or loop.time() - self._said > 60:
            self._said = loop.time()
            log.error("no more connections can be taken for now: %s", error.strerror)
