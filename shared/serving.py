"""`cygnet serve`: checks who may reach the server, opens what it needs, and runs the site.

Without a key the server is for this machine alone: it listens there only, and answers to its names
only, so that no web page can lead a browser to it under a name of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from shared.api import ApiOptions, create_api
from shared.api.logs import log_to_stderr
from shared.api.options import DAY
from shared.api.server import Server, listen
from shared.backends import Backend, Opening, find_backend, open_backend, read_backends
from shared.browser import open_page
from shared.cli.parser import check_numbers
from shared.contract import Limit
from shared.errors import InvalidSetting
from shared.settings import data_folder, settings
from shared.site import create_site
from shared.store import Store

_LIMITS = {
    "port": Limit(0, 65535),
    "max_queued": Limit(0, 100_000),
    "requests_per_minute": Limit(0, 1_000_000),
    "keep_days": Limit(0, 36_500, whole=False),
    "keep_gib": Limit(0, 1_000_000, whole=False),
}

_LONGEST_STOP = 10.0
"""Seconds in which a child stops of its own; what holds it up must not outlive its parent."""


@dataclass(frozen=True)
class ServeOptions:
    """What the command was given, checked."""

    host: str
    port: int
    backend: str
    child: bool
    """Whether a program of ours started it: it keeps nothing, and ends when its input does."""
    api: ApiOptions


def read_options(given: Mapping[str, Any]) -> ServeOptions:
    """Raises `InvalidRequest`, naming the option; `UnknownBackend`; `InvalidSetting` if a key is
    needed, or the file of backends is wrong.
    """
    check_numbers(given, _LIMITS)
    backend = given["backend"] or settings().backend
    draws_here = read_backends().draws_here(backend)  # elsewhere it may wake a GPU, for money
    host = given["host"]
    keys, hosts = callers(host)
    api = ApiOptions(
        keys=keys,
        hosts=hosts,
        origins=tuple(given["origin"]),
        max_queued=given["max_queued"],
        requests_per_minute=given["requests_per_minute"],
        private_webhooks=given["private_webhooks"],
        log_prompts=given["log_prompts"],
        keep_seconds=given["keep_days"] * DAY,
        keep_bytes=int(given["keep_gib"] * 2**30),
        warm_up=draws_here
        and not given["child"],  # a child is started because a request waits for it
        grace=0 if given["child"] else ApiOptions.grace,
    )
    return ServeOptions(host, given["port"], backend, given["child"], api)


def callers(host: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who may call a server that listens at `host`: the keys, and the names it answers to (all if
    there are none). Raises `InvalidSetting` if a key is needed.
    """
    if keys := tuple(key.get_secret_value() for key in settings().api_keys):
        return keys, ()
    if not _is_this_machine(host):
        raise InvalidSetting(
            f"Without a key the server is for this machine only, and {host} is more than that.",
            "Set CYGNET_API_KEY, or leave --host out.",
        )
    return (), tuple(dict.fromkeys((host, "127.0.0.1", "localhost", "::1")))


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(options: ServeOptions) -> None:
    """Answer until a signal says to stop, then let what runs end, or hand it back.

    Raises `AddressUnavailable`, `UnknownBackend`, `DataUnusable`, or what a folder may raise.
    """
    backend = _backend(options)
    with listen(options.host, options.port) as listener, _folder(options) as folder:
        log_to_stderr()
        server = Server(_app(backend, folder, options))
        if options.child:
            threading.Thread(target=_end_with_input, args=[server], daemon=True).start()
        here = address(options.host, listener.getsockname()[1])
        announce(here, options.api.keys)
        if not options.child:
            open_page(here)
        asyncio.run(server.serve([listener]))


def _app(backend: Backend, folder: Path, options: ServeOptions) -> FastAPI:
    """The whole site; for a program of ours only what it calls."""
    if options.child:
        return create_api(backend, Store(folder), options.api)
    return create_site(backend, folder, options.api)


def _backend(options: ServeOptions) -> Backend:
    """The one of that name; for a child only that, for whoever started it has chosen already."""
    if options.child:
        return open_backend(read_backends().find(options.backend), Opening(previews=True))
    return find_backend(options.backend, previews=True, named=False)()


@contextlib.contextmanager
def _folder(options: ServeOptions) -> Iterator[Path]:
    if not options.child:
        yield data_folder()
        return
    with tempfile.TemporaryDirectory(prefix="cygnet-") as folder:
        yield Path(folder)


def _end_with_input(server: Server) -> None:
    """Stop when the parent closes our standard input, which the system does for one that died."""
    while sys.stdin.buffer.read(2**16):
        pass
    server.should_exit = True
    time.sleep(_LONGEST_STOP)
    os._exit(1)


def announce(address: str, keys: tuple[str, ...]) -> None:
    """Say who may call the server, how it ends, and last, on stdout for a program, where it is."""
    if not keys:
        print("CYGNET_API_KEY is not set: this machine only, no key asked.", file=sys.stderr)
    if sys.stdout.isatty():
        print("Press Ctrl-C to stop. The server is at", file=sys.stderr)
    print(address, flush=True)


def address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
