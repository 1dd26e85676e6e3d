"""Every route that a site answers to, and the page's functions: found, not listed, so that what is added
later is tried too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.routing import Mount, Route

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")


def routes(site: FastAPI, value: str = "x") -> Iterator[str]:
    """The paths of the API, of MCP, and of Gradio behind the guard, their parameters set to `value`."""
    found: list[Any] = list(site.routes)
    while found:
        route = found.pop()
        if included := getattr(route, "original_router", None):  # FastAPI's include_router
            found += included.routes
        elif isinstance(route, Mount) and route.path:
            yield f"{route.path}/{value}"
        elif isinstance(route, Mount):  # the page's, which has a guard in front of Gradio
            found += vars(route.app)["_app"].routes
        else:
            assert isinstance(route, Route), f"{route} is of a kind that was not known"
            yield re.sub(r"\{[^}]*\}", lambda _: value, route.path)


def functions(client: httpx.Client) -> list[dict[str, Any]]:
    """What the page can be asked to do, as its configuration says it."""
    found = client.get("/config").raise_for_status().json()["dependencies"]
    assert len(found) > 20
    return found


def function_of(client: httpx.Client, event: str) -> int:
    """The number of the first function that an event of that name calls."""
    return next(
        one["id"] for one in functions(client) if event in [target[1] for target in one["targets"]]
    )
