"""`cygnet mcp`: pictures as a tool of an MCP client, over stdio or HTTP."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.backends import find_backend
from shared.cli import mcp_client
from shared.cli.parser import NUMBER, Commands, check_numbers
from shared.cli.request import add_backend_option
from shared.contract import Limit
from shared.gallery import Gallery
from shared.packages import needed
from shared.settings import at_home, data_folder, settings

if TYPE_CHECKING:
    from shared.backends.router import Router

_LIMITS = {"port": Limit(0, 65535), "max_answer": Limit(200, 100_000)}


def add(commands: Commands) -> None:
    mcp = commands.add_parser("mcp", help="be a tool of an MCP client")
    mcp.set_defaults(run=_serve)
    mcp.add_argument("--http", action="store_true", help="over HTTP instead of stdin and stdout")
    mcp.add_argument(
        "--host", default="127.0.0.1", metavar="NAME", help="address (default: this machine only)"
    )
    mcp.add_argument("--port", default=8001, **NUMBER, help="0 takes a free one (default: 8001)")
    mcp.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that the server is called by",
    )
    mcp.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="lets web pages from there call",
    )
    add_backend_option(mcp, "what draws where a call does not say (local)")
    mcp.add_argument(
        "--out",
        type=lambda given: at_home(Path(given)),  # it stands in a client's settings
        metavar="FOLDER",
        help="where pictures are kept (the user's data folder)",
    )
    mcp.add_argument(
        "--max-answer",
        default=900,
        **NUMBER,
        help="kilobytes of an answer, pictures included (900)",
    )
    mcp_client.add(mcp)


def _serve(args: argparse.Namespace) -> None:
    check_numbers(vars(args), _LIMITS)
    open_router = find_backend(args.backend or settings().backend, apart=True, named=False)
    with contextlib.closing(Gallery(args.out or data_folder() / "gallery")) as gallery:
        serve = _http if args.http else _stdio
        serve(args, open_router, gallery, args.max_answer * 1000)


def _stdio(
    _args: argparse.Namespace, open_router: Callable[[], Router], gallery: Gallery, budget: int
) -> None:
    """Answer on stdin and stdout until stdin ends."""
    with needed("MCP", "mcp"):
        from shared.mcp.server import create_server

    async def serve() -> None:
        async with contextlib.aclosing(open_router()) as router:
            await create_server(router, gallery, budget).run_stdio_async()

    asyncio.run(serve())


def _http(
    args: argparse.Namespace, open_router: Callable[[], Router], gallery: Gallery, budget: int
) -> None:
    """Answer over HTTP until a signal says to stop."""
    with needed("MCP", "mcp"):
        from shared import serving
        from shared.api.server import Server, listen
        from shared.mcp.http import PATH, HttpOptions, mcp_app

    keys, hosts = serving.callers(args.host)
    options = HttpOptions(keys, (*hosts, *args.allow_host), tuple(args.origin))

    async def serve(listener: socket.socket) -> None:
        async with contextlib.aclosing(open_router()) as router:
            await Server(mcp_app(router, gallery, options, budget)).serve([listener])

    with listen(args.host, args.port) as listener:
        serving.log_to_stderr()
        address = serving.address(args.host, listener.getsockname()[1])
        serving.announce(f"{address}{PATH}", keys)
        asyncio.run(serve(listener))
