"""`cygnet serve`: checks who may reach the server, opens what it needs, and runs it.

Without a key the server is for this machine alone: it listens there only, and answers to its names
only, so that no web page can lead a browser to it under a name of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from shared.api import ApiOptions, create_api
from shared.api.logs import JsonFormatter
from shared.api.options import DAY
from shared.api.server import Server, listen
from shared.backends import find_backend
from shared.contract import Limit
from shared.errors import InvalidRequest, InvalidSetting
from shared.settings import settings
from shared.store import Store

_LIMITS = {
    "port": Limit(0, 65535),
    "max_queued": Limit(0, 100_000),
    "requests_per_minute": Limit(0, 1_000_000),
    "keep_days": Limit(0, 36_500, whole=False),
    "keep_gib": Limit(0, 1_000_000, whole=False),
}


@dataclass(frozen=True)
class ServeOptions:
    """What the command was given, checked."""

    host: str
    port: int
    backend: str
    api: ApiOptions


def read_options(given: Mapping[str, Any]) -> ServeOptions:
    """Raises `InvalidRequest`, naming the option; `InvalidSetting` if a key is needed."""
    for name, limit in _LIMITS.items():
        value = given[name]
        if isinstance(value, str) or not limit.allows(value):
            option = f"--{name.replace('_', '-')}"
            raise InvalidRequest(
                f"{option} {str(value)[:60]} is not {limit}.",
                f"Give {limit} for {option}.",
                (name,),
            )
    keys = tuple(key.get_secret_value() for key in settings().api_keys)
    host = given["host"]
    if not keys and not _is_this_machine(host):
        raise InvalidSetting(
            f"Without a key the server is for this machine only, and {host} is more than that.",
            "Set CYGNET_API_KEY, or leave --host out.",
        )
    api = ApiOptions(
        keys=keys,
        hosts=() if keys else tuple(dict.fromkeys((host, "127.0.0.1", "localhost", "::1"))),
        origins=tuple(given["origin"]),
        max_queued=given["max_queued"],
        requests_per_minute=given["requests_per_minute"],
        private_webhooks=given["private_webhooks"],
        log_prompts=given["log_prompts"],
        keep_seconds=given["keep_days"] * DAY,
        keep_bytes=int(given["keep_gib"] * 2**30),
        warm_up=True,
    )
    return ServeOptions(host, given["port"], given["backend"], api)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def data_folder() -> Path:
    """Where jobs and images are kept."""
    return settings().data_dir or platformdirs.user_data_path("cygnet", appauthor=False)


def serve(options: ServeOptions) -> None:
    """Answer until a signal says to stop, then let what runs end, or hand it back.

    Raises `AddressUnavailable`, `UnknownBackend`, `DataUnusable`, or what a folder may raise.
    """
    open_backend = find_backend(options.backend, previews=True)
    with listen(options.host, options.port) as listener:
        store = Store(data_folder())
        _log_to_stderr()
        app = create_api(open_backend(), store, options.api)
        print(_address(options.host, listener.getsockname()[1]), flush=True)
        if not options.api.keys:
            print("CYGNET_API_KEY is not set: this machine only, no key asked.", file=sys.stderr)
        asyncio.run(Server(app).serve([listener]))


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _log_to_stderr() -> None:
    """The other commands keep logs off the terminal; of a server they are the only sign."""
    logging.disable(logging.NOTSET)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("shared", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
