"""MCP over stdin and stdout, where a line that is no message is answered as well.

The SDK's reader hands such a line on as an exception, which its server drops: the client would wait
for its own time limit.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import anyio
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError

_WHY = {
    "\ufeff": "the line starts with a byte order mark; send UTF-8 without one",
    "[": "batches are not taken; send one message a line",
}


@contextlib.asynccontextmanager
async def streams() -> AsyncIterator[tuple[Messages, Any]]:
    """The two streams that the SDK's server runs on."""
    async with stdio_server() as (lines, answers):
        yield Messages(lines, answers), answers


class Messages:
    """The messages among the lines, as the SDK's read streams are; the other lines are answered."""

    def __init__(self, lines: Any, answers: Any) -> None:
        self._lines, self._answers = lines, answers

    @property
    def last_context(self) -> Any:
        return self._lines.last_context

    async def receive(self) -> SessionMessage | Exception:
        while isinstance(line := await self._lines.receive(), ValidationError):
            if answer := refusal(line):
                await self._answers.send(SessionMessage(answer))
        return line

    async def aclose(self) -> None:
        await self._lines.aclose()

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Messages:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


def refusal(error: ValidationError) -> JSONRPCError | None:
    """What answers a line that the SDK could not read; None if it was blank.

    It has the line's id where one can be read, so that the call that waits for it ends.
    """
    errors = error.errors()
    first = errors[0]
    if first["type"] != "json_invalid":
        # An error holds the part that is wrong. Of a message, which is never all that it may be, each
        # kind that it is not misses something, and so has the whole.
        data = next((one["input"] for one in errors if one["type"] == "missing"), first["input"])
        said = _WHY["["] if isinstance(data, list) else "it is no request of JSON-RPC 2.0"
        return _error(INVALID_REQUEST, said, data)
    line = str(first["input"])
    if not line.strip():
        return None
    said = next((why for start, why in _WHY.items() if line.startswith(start)), None)
    reason = said or str(first.get("ctx", {}).get("error", "it is no JSON"))
    try:  # Python's reader takes half a character, which pydantic's does not
        data = json.loads(line.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        data = None
    return _error(PARSE_ERROR, reason, data)


def _error(code: int, said: str, data: object) -> JSONRPCError:
    id = data.get("id") if isinstance(data, dict) else None
    if isinstance(id, bool) or not isinstance(id, int | str):
        id = None
    elif isinstance(id, str):
        id = id.encode(errors="replace").decode()
    what = "cannot be parsed" if code == PARSE_ERROR else "cannot be used"
    message = f"The message {what}: {said}. Send one JSON object a line, in UTF-8."
    return JSONRPCError(jsonrpc="2.0", id=id, error=ErrorData(code=code, message=message))
