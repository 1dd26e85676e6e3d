"""uvicorn around the API: where it listens, and how it stops."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from shared.errors import AddressUnavailable, reason


class Server(uvicorn.Server):
    """Stops the jobs first: streams end then, and uvicorn has no open connection to wait for."""

    def __init__(self, app: FastAPI, log_level: str | None = None) -> None:
        config = uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            log_level=log_level,
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        super().__init__(config)
        self._runner = app.state.runner

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._runner.stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes calls at that address. Raises `AddressUnavailable`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        raise AddressUnavailable(
            f"The server cannot listen at {host}, port {port}: {why}.",
            "Choose another --port, or stop what uses this one.",
        ) from error
