"""uvicorn around an app whose `state.jobs` has the work: where it listens, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Generator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from shared.api.connections import PATIENCE, Connection, Connections, Patience, QuietLoop
from shared.errors import AddressUnavailable, reason

_ENOUGH_FILES = 8192
"""Open at once, where the system lets us have so many; half of them may be connections."""
_AT_A_TIME = 16
"""Connections taken before others make room for them: what is taken at once is not yet counted."""
_QUEUE = 2048
"""Connections that wait in the system to be taken."""


class Server(uvicorn.Server):
    """Stops the jobs first: streams end then, and uvicorn has no open connection to wait for.

    Callers are waited for as `patience` says; at most `most` connections are open at once.
    """

    def __init__(
        self, app: Starlette, patience: Patience = PATIENCE, most: int | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            timeout_keep_alive=patience.idle,
            backlog=_AT_A_TIME,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,  # ours has the request's id, and no query
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        super().__init__(config)
        self.server_state = self._connections = Connections(patience, most or _most_connections())
        self._jobs = app.state.jobs
        self._on_stop = app.state.on_stop

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn's own, without raising the signal again at the end: to be stopped is no failure."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:  # asked twice; what runs is on the disk, and runs again
            os._exit(1)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(QuietLoop(loop))
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_QUEUE)  # asyncio made this as short as what it takes at a time

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            self._connections.look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._jobs.stop()
        for stop in self._on_stop:
            stop()
        await super().shutdown(sockets)


def _most_connections() -> int:
    """Half of the files that this process may open; it asks for more where they are few."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _ENOUGH_FILES // 2
    infinite = resource.RLIM_INFINITY
    allowed, at_most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != infinite and allowed < _ENOUGH_FILES:
        allowed = _ENOUGH_FILES if at_most == infinite else min(_ENOUGH_FILES, at_most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, at_most))
    return _ENOUGH_FILES // 2 if allowed == infinite else min(_ENOUGH_FILES, allowed) // 2


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes calls at that address. Raises `AddressUnavailable`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_QUEUE)
        # Its connections inherit this. Without it a small write waits for the other side to confirm
        # the one before, which that may put off for 40 ms; asyncio sets it on its own sockets only.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise AddressUnavailable(
            f"The server cannot listen at {host}, port {port}: {why}.",
            "Choose another --port, or stop what uses this one.",
        ) from error
