"""What a call has to show before it is read: a key, a host name, a body of a sane size."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.api.job_service import JobService
from shared.api.options import ApiOptions
from shared.errors import InvalidCall, Unauthorised

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_bearer = HTTPBearer(auto_error=False, description="one of the server's keys, if it has any")


def jobs_of(request: Request) -> JobService:
    return request.app.state.jobs


def options_of(request: Request) -> ApiOptions:
    return request.app.state.options


async def owner_of(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """Whose jobs the caller may see: a digest of the key. Raises `Unauthorised`, `InvalidCall`."""
    options = options_of(request)
    if options.hosts and request.url.hostname not in options.hosts:
        # A page in a browser here may have its own host name lead to this machine.
        raise InvalidCall("This server has another name.", f"Call it {options.hosts[0]}.", 421)
    if not options.keys:
        return ""
    given = credentials.credentials.encode() if credentials else b""
    # Every key is compared, each in constant time, so that the time taken tells nothing.
    matches = [hmac.compare_digest(given, key.encode()) for key in options.keys]
    if not any(matches):
        raise Unauthorised(
            "The API key is missing, or is none of this server's.",
            "Send it in the header Authorization: Bearer KEY.",
        )
    return hashlib.sha256(given).hexdigest()[:16]


Owner = Annotated[str, Depends(owner_of)]
Jobs = Annotated[JobService, Depends(jobs_of)]


async def read_json(request: Request) -> dict[str, Any]:
    """The body, a JSON object of at most `max_body` bytes. Raises `InvalidCall`."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidCall(
            f"The body's type is {media_type[:60] or 'not given'}.",
            "Send JSON, with Content-Type: application/json.",
            415,
        )
    body = await _read_body(request, options_of(request).max_body)
    try:
        data = json.loads(body.decode(), parse_constant=_no_number)
    except RecursionError:
        raise _no_json("it is nested too deeply") from None
    except ValueError as error:
        raise _no_json(type(error).__name__) from None
    if not isinstance(data, dict):
        raise _no_json("it is not an object")
    return data


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InvalidCall(f"The body is larger than {limit} bytes.", "Send a shorter one.", 413)
    return bytes(body)


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _no_json(why: str) -> InvalidCall:
    return InvalidCall(f"The body is no JSON object in UTF-8: {why}.", "Correct the body.", 400)


def fingerprint(data: Mapping[str, Any]) -> str:
    """The same for two bodies that ask for the same."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


class RequestId:
    """Every call has an id: the caller's `X-Request-Id` if it is a sane one, else a new one.

    It goes back to the caller and into the log, beside nothing of what the call held.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
        finally:
            call = {"method": scope["method"], "path": scope["path"], "status": status}
            seconds = round(time.monotonic() - started, 4)
            log.info("%s", json.dumps({"request_id": request_id, **call, "seconds": seconds}))
