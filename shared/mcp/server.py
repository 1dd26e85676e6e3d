"""The server: tools, resources, a prompt and a view, put together and kept to our own words.

It answers `initialize` at once: nothing here loads a model, and a backend is opened when it is first
asked for. This module does not know how a client is connected.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.apps import Apps
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
    Tool,
    ToolAnnotations,
)
from pydantic import ValidationError

from shared import __version__
from shared.backends.router import Router
from shared.errors import CygnetError, InternalError
from shared.gallery import Gallery
from shared.mcp import replies, stdio
from shared.mcp.access import Rules
from shared.mcp.jobs import Jobs
from shared.mcp.previews import mime_type
from shared.mcp.resources import add_resources
from shared.mcp.schema import check_names, generate_parameters, published
from shared.mcp.tools import Tools
from shared.refusals import refusal

log = logging.getLogger(__name__)

VIEW = "ui://cygnet/picture.html"
BUDGET = 900_000
"""Bytes of an answer: some clients refuse more than about a million."""

_INSTRUCTIONS = """\
Cygnet draws pictures with Wan 2.1. Call generate_image with a prompt in plain English; the prompt \
wan_prompt has advice. If it answers with a job_id instead of a picture, call get_job until it is done. \
Every answer says where the original file is. A seed draws the same picture again.\
"""


def create_server(
    router: Router,
    gallery: Gallery,
    budget: int = BUDGET,
    rules: Rules | None = None,
    **auth: Any,
) -> Server:
    """A server that draws on `router` and keeps its pictures in `gallery`; it closes neither.

    `auth` goes to the SDK: `token_verifier` with its `auth` settings.
    """
    rules = rules or Rules()
    tools = Tools(router, gallery, budget, rules)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await tools.jobs.stop()

    apps = Apps()
    apps.add_html_resource(
        VIEW,
        (Path(__file__).parent / "view.html").read_text("utf-8"),
        name="picture",
        title="Picture",
        prefers_border=True,
    )
    parameters = generate_parameters(tools.backends, router.name)
    draws = _with_parameters(tools.generate_image, parameters)
    apps.tool(resource_uri=VIEW, **_about(draws, "Draw a picture", _DRAWS))(draws)
    server = Server(
        tools.jobs,
        "cygnet",
        title="Cygnet",
        version=__version__,
        instructions=_INSTRUCTIONS,
        extensions=[apps],
        lifespan=lifespan,
        log_level="WARNING",
        **auth,
    )
    for tool, title, hints in (
        (tools.get_job, "Look at a job", _READS),
        (tools.cancel_job, "Cancel a job", _CANCELS),
        (tools.show_image, "Show a picture", _READS),
        (tools.list_images, "Search the gallery", _READS),
        (tools.list_backends, "List the backends", _ASKS),
        (tools.list_checkpoints, "List the checkpoints", _READS),
    ):
        server.add_tool(tool, **_about(tool, title, hints))
    add_resources(server, gallery, rules.is_private)
    return server


_DRAWS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_ASKS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=True)
_CANCELS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=True
)


def _about(tool: Callable[..., Any], title: str, hints: ToolAnnotations) -> dict[str, Any]:
    words = " ".join((inspect.getdoc(tool) or "").split())
    return {"title": title, "description": words, "annotations": hints}


def _with_parameters(
    tool: Callable[..., Any], parameters: Iterable[inspect.Parameter]
) -> Callable[..., Any]:
    """`tool` with these in place of the fields that it takes by any name."""
    result = inspect.signature(tool, eval_str=True).return_annotation

    @functools.wraps(tool)
    async def described(**arguments: Any) -> CallToolResult:
        return await tool(**arguments)

    vars(described)["__signature__"] = inspect.Signature([*parameters], return_annotation=result)
    return described


class Server(MCPServer[Any]):
    """The SDK's server, with refusals in our form of error, and pictures under their own type."""

    def __init__(self, jobs: Jobs, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.jobs = jobs

    async def run_stdio_async(self) -> None:
        """Answer on stdin and stdout until stdin ends."""
        options = self._lowlevel_server.create_initialization_options()
        async with stdio.streams() as (messages, answers):
            await self._lowlevel_server.run(messages, answers, options)

    async def list_tools(self) -> list[Tool]:
        return [
            tool.model_copy(update={"input_schema": published(tool.input_schema)})
            for tool in await super().list_tools()
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        arguments = {name: value for name, value in arguments.items() if value is not None}
        schemas = {tool.name: tool.input_schema for tool in await super().list_tools()}
        try:
            if name in schemas:
                check_names(arguments, schemas[name])
            return await super().call_tool(name, arguments, context)
        except CygnetError as error:
            return replies.error_answer(error)
        except ToolError as error:
            if not error.__cause__:
                raise  # the SDK's own words: there is no such tool
            return replies.error_answer(_ours(error.__cause__, name, schemas[name]))

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Any, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        try:
            return await super().get_prompt(name, arguments, context)
        except ValueError as error:  # there is none of that name, or an argument is missing
            raise MCPError(INVALID_PARAMS, str(error)) from error

    async def read_resource(
        self, uri: Any, context: Context[Any, Any] | None = None
    ) -> Iterable[Any] | InputRequiredResult:
        contents = await super().read_resource(uri, context)
        if isinstance(contents, InputRequiredResult):
            return contents
        return [
            replace(content, mime_type=mime_type(content.content))
            if isinstance(content.content, bytes)
            else content
            for content in contents
        ]


def _ours(fault: BaseException, tool: str, schema: dict[str, Any]) -> CygnetError:
    """What went wrong in a tool, as an error of ours."""
    match fault:
        case CygnetError():
            return fault
        case ValidationError():
            first = fault.errors()[0]
            field = str(first["loc"][0])
            told = refusal(field, first["input"], schema["properties"][field])
            told.message = f"{field} cannot be used: {told.message}"
            return told
        case _:
            log.error("%s failed", tool, exc_info=fault)
            kind = type(fault).__name__
            return InternalError(f"Something in Cygnet failed ({kind}).", "Try again.")
