"""A small client of any MCP server: lists its tools, calls one, follows the job, saves the pictures.

It knows two habits of Cygnet's own server and needs neither: an answer with a `job_id` and `progress`
is asked for again until it is done, and an error carries its code and a next step.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import (
    CONNECTION_CLOSED,
    REQUEST_TIMEOUT,
    BlobResourceContents,
    CallToolResult,
    ImageContent,
    ResourceLink,
    TextContent,
    Tool,
)

from shared import http_clients
from shared.errors import (
    BackendUnavailable,
    CygnetError,
    InvalidRequest,
    OutputExists,
    ToolFailed,
    error_of,
    reason,
)
from shared.files import check_folder, write_atomically
from shared.formats import SUFFIXES, media_type
from shared.numbers import number_from_text
from shared.outputs import slug

_ROOT = str(Path(__file__).parents[2])  # where `shared` is, installed or not
THIS_SERVER = (sys.executable, "-P", "-m", "shared.cli", "mcp")

_SILENCE = 300.0  # seconds without an answer after which a server counts as gone
_LARGEST = 64 * 2**20  # bytes of one message: an original may be large
_OURS = re.compile(r"(.*) Next: (.*) \(error code: (\w+)\)", re.S)
_SUFFIXES = {media_type(name): suffix for name, suffix in SUFFIXES.items()}

Show = Callable[[float, float | None, str], None]
"""Shows how far a call is: so many steps, of how many, and in words."""


@dataclass(frozen=True)
class Target:
    """A server: an address, or a command that speaks MCP over stdio."""

    address: str = ""
    command: Sequence[str] = THIS_SERVER
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Answer:
    """What a tool answered, and the files that its pictures were saved to."""

    text: str
    data: dict[str, Any] | None
    files: list[Path]


async def list_tools(target: Target) -> list[dict[str, Any]]:
    """The server's tools as it describes them. Raises as `connect` does."""
    async with connect(target) as client:
        tools = (await client.list_tools()).tools
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]


async def call(
    target: Target,
    tool: str,
    words: Sequence[str],
    out: Path,
    show: Show,
    options: Collection[str] = (),
) -> Answer:
    """Call the tool with the arguments that `words` spell, follow its job, save its pictures.

    `options` have their place before the tool's name, and are told so unless it has them too.
    Raises the error that the tool told, `InvalidRequest` for words that make no arguments, or what
    connecting and saving may raise.
    """
    check_folder(out)
    async with connect(target) as client:
        tools = {row.name: row for row in (await client.list_tools()).tools}
        if tool not in tools:
            message = f"The server has no tool {tool[:60]!r}."
            raise InvalidRequest(message, f"It has {', '.join(tools)}.")
        arguments = read_arguments(words, tools[tool], options)
        answer = await _follow(client, tool, arguments, show)
        files = await _save(client, answer, out, slug(str(arguments.get("prompt", tool))))
        return Answer(_spoken(answer), answer.structured_content, files)


@contextlib.asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Client]:
    """A client of the server.

    Raises `BackendUnavailable` if there is none, and `ToolFailed` where it refuses a call.
    """
    try:
        async with contextlib.AsyncExitStack() as stack:
            transport = await _transport(target, stack)
            client = Client(transport, read_timeout_seconds=_SILENCE)
            yield await stack.enter_async_context(client)
    except Exception as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):  # of the tasks that move the messages
            error = error.exceptions[0]
        raise _ours(error) from group


async def _transport(target: Target, stack: contextlib.AsyncExitStack) -> Any:
    if not target.address:
        command, *args = target.command
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        env = os.environ | {"PYTHONPATH": path}
        return StdioServerParameters(command=command, args=args, env=env)
    headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    http = await stack.enter_async_context(http_clients.mcp_client(headers))
    return streamable_http_client(target.address, http_client=http, max_sse_event_size=_LARGEST)


def _ours(error: BaseException) -> BaseException:
    match error:
        case CygnetError():
            return error
        case MCPError(code=code) if code in (CONNECTION_CLOSED, REQUEST_TIMEOUT):
            what = reason(error)
        case MCPError():
            return ToolFailed(
                f"The MCP server refused: {reason(error)}.", "See what `tools` lists."
            )
        case OSError() | ValueError():
            what = type(error).__name__
        case Exception() if type(error).__module__.startswith("httpx2"):
            what = http_clients.spoken(error)
        case _:
            return error
    return BackendUnavailable(
        f"The MCP server cannot be reached ({what}).", "Check its address, its key and its command."
    )


async def _follow(
    client: Client, tool: str, arguments: dict[str, Any], show: Show
) -> CallToolResult:
    """The tool's answer; of one that gives a job, that job's last."""

    async def told(progress: float, total: float | None, message: str | None) -> None:
        show(progress, total, message or "")

    answer = await _call(client, tool, arguments, told)
    data = answer.structured_content or {}
    job = {"job_id": data.get("job_id")}
    try:
        while data.get("progress"):
            answer = await _call(client, "get_job", job, told)
            data = answer.structured_content or {}
    except asyncio.CancelledError:
        await _call(client, "cancel_job", job, told)
        raise
    return answer


async def _call(
    client: Client, tool: str, arguments: dict[str, Any], progress: ProgressFnT
) -> CallToolResult:
    answer = await client.call_tool(tool, arguments, progress_callback=progress)
    if answer.is_error:
        raise _told(_spoken(answer))
    return answer


def _told(text: str) -> CygnetError:
    """The error that a tool told; in our own form it keeps its code, and so its exit code."""
    if found := _OURS.fullmatch(text):
        message, next_step, code = found.groups()
        return error_of(code, message, next_step)
    return ToolFailed(text[:1000] or "The tool failed.", "Call it with other arguments.")


def _spoken(answer: CallToolResult) -> str:
    """The first thing that the answer says in words."""
    return next((block.text for block in answer.content if isinstance(block, TextContent)), "")


def read_arguments(
    words: Sequence[str], tool: Tool, options: Collection[str] = ()
) -> dict[str, Any]:
    """`--name value` and `--name=value`, as the types that the tool's schema asks for.

    Raises `InvalidRequest`.
    """
    properties = tool.input_schema.get("properties", {})
    arguments: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise InvalidRequest(
                f"{word[:60]!r} is no --name.",
                f"Write --name value; {tool.name} takes {', '.join(properties) or 'nothing'}.",
            )
        if f"--{name}" in options and name not in properties:
            raise InvalidRequest(f"--{name} is not for {tool.name}.", "Put it before TOOL.")
        if not equals:
            value = next(rest, None)
            if value is None:
                raise InvalidRequest(f"--{name[:60]} has no value.", f"Give --{name[:60]} VALUE.")
        name = name if name in properties else name.replace("-", "_")
        arguments[name] = _typed(value, properties.get(name, {}))
    return arguments


def _typed(text: str, schema: dict[str, Any]) -> Any:
    kind = schema.get("type", "string")
    if kind in ("integer", "number"):
        return number_from_text(text)
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the server says what it wants


async def _save(client: Client, answer: CallToolResult, out: Path, stem: str) -> list[Path]:
    """Write the originals that the answer names, else the pictures in it, into the folder."""
    files = [file for uri in _originals(answer) for file in await _read(client, uri)]
    if not files:
        blocks = [block for block in answer.content if isinstance(block, ImageContent)]
        files = [(block.data, block.mime_type) for block in blocks]
    return [
        _write(out, stem, base64.b64decode(data), _SUFFIXES[kind])
        for data, kind in files
        if kind in _SUFFIXES
    ]


def _originals(answer: CallToolResult) -> list[str]:
    """The resources of pictures: Cygnet's among its data, another server's as links."""
    data = answer.structured_content or {}
    pictures = data.get("pictures") if isinstance(data, dict) else None
    named = [one.get("uri") for one in pictures or () if isinstance(one, dict)]
    links = [block.uri for block in answer.content if isinstance(block, ResourceLink)]
    return list(dict.fromkeys([*(uri for uri in named if isinstance(uri, str)), *links]))


async def _read(client: Client, uri: str) -> list[tuple[str, str]]:
    contents = (await client.read_resource(uri)).contents
    blobs = [content for content in contents if isinstance(content, BlobResourceContents)]
    return [(blob.blob, blob.mime_type or "") for blob in blobs]


def _write(out: Path, stem: str, data: bytes, suffix: str) -> Path:
    for count in itertools.count(1):
        path = out / f"{stem}{f'-{count}' if count > 1 else ''}{suffix}"
        try:
            write_atomically(path, data)
            return path
        except OutputExists:
            continue
    raise AssertionError("the names of a folder never end")
