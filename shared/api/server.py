"""uvicorn around an app whose `state.jobs` has the work: where it listens, and how it stops."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Generator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from shared.errors import AddressUnavailable, reason


class Server(uvicorn.Server):
    """Stops the jobs first: streams end then, and uvicorn has no open connection to wait for."""

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,  # ours has the request's id, and no query
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        super().__init__(config)
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._jobs.stop()
        for stop in self._on_stop:
            stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes calls at that address. Raises `AddressUnavailable`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
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
