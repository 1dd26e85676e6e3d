"""A proxy on the loopback that does to a server's answers what networks do.

One connection carries one call. A fault sees each call first: it may answer it, spoil its answer, or
leave it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Call:
    """A call that has come, and the way back."""

    head: bytes
    body: bytes
    writer: asyncio.StreamWriter
    server: str
    number: int = 0
    """Counted from 1 among the calls of this kind."""

    @property
    def kind(self) -> str:
        """`submit`, `stream`, or another call's method and path."""
        method, path, _ = self.head.decode("latin-1").split(" ", 2)
        if (method, path) == ("POST", "/v1/jobs"):
            return "submit"
        return "stream" if path.endswith("/events") else f"{method} {path}"

    @contextlib.asynccontextmanager
    async def passed_on(self) -> AsyncIterator[asyncio.StreamReader]:
        """The server's answer, as it comes."""
        url = urlsplit(self.server)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        lines = self.head.strip().split(b"\r\n")
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        writer.write(b"\r\n".join([*kept, b"Connection: close", b"", b""]) + self.body)
        try:
            yield reader
        finally:
            writer.close()

    async def whole(self) -> tuple[bytes, bytes]:
        """Head and body of the server's answer."""
        async with self.passed_on() as reader:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return head, body

    def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        """Answer in the server's place, with a true length unless a header gives one."""
        given = any(header.startswith("Content-Length") for header in headers)
        length = [] if given else [f"Content-Length: {len(body)}"]
        lines = [f"HTTP/1.1 {status}", *headers, *length, "Connection: close", "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)

    def reset(self) -> None:
        """Break the connection off, as a machine does that vanishes."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Fault = Callable[[Call], Awaitable[bool]]
"""Whether it has dealt with the call; if not, the call is passed on unharmed."""


@dataclass
class Proxy:
    """Stands before `server`, at `url`."""

    server: str
    fault: Fault
    url: str = ""
    calls: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields.get(b"content-length", 0)))
            call = Call(head, body, writer, self.server)
            self.calls.append(call.kind)
            call.number = self.calls.count(call.kind)
            if not await self.fault(call):
                async with call.passed_on() as answer:
                    while data := await answer.read(2**16):
                        writer.write(data)
                        await writer.drain()
            await writer.drain()


@contextlib.asynccontextmanager
async def faulty(server: str, fault: Fault) -> AsyncIterator[Proxy]:
    """A proxy before `server` for as long as this is open."""
    proxy = Proxy(server, fault)
    handling: set[asyncio.Task[None]] = set()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.create_task(proxy.handle(reader, writer)))

    listener = await asyncio.start_server(take, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)
