"""Around every call: an id, a line in the log, a count; and which job it made."""

from __future__ import annotations

import logging
import re
import secrets
import time

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.api.metrics import Metrics
from shared.api.options import ApiOptions
from shared.store import Job

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FILE = re.compile(r"/file=.*")
"""A file of the page's, whose name may begin with a prompt."""

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestLog:
    """Every call has an id: the caller's `X-Request-Id` if it is a sane one, else a new one.

    It goes back to the caller and into the log, beside nothing of what the call held.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["id"] = request_id

        status = 0
        started = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            status = status or 500  # what is around this will answer so
            raise
        finally:
            seconds = round(time.monotonic() - started, 4)
            path = _FILE.sub("/file=", scope["path"])
            call = {"method": scope["method"], "path": path, "status": status}
            told = {"request_id": request_id, **call, "seconds": seconds}
            log.info("call", extra={"fields": told})
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.called(method, route, status)


def log_accepted(request: Request, job: Job) -> None:
    """Which job a call made, and what it asks for; the prompts only where the operator wants."""
    options: ApiOptions = request.app.state.options
    hidden = () if options.log_prompts else ("prompt", "negative_prompt")
    asked = {name: value for name, value in job.request.items() if name not in hidden}
    told = {"request_id": request.state.id, "job": job.id, "owner": job.owner, "request": asked}
    log.info("job accepted", extra={"fields": told})
