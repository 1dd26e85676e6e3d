"""What a call to the page has to show before Gradio reads it: the host's name, a key, a sane size.

The rules are the API's. A program sends its key as the API wants it; a browser is asked for it once,
and keeps it in a cookie that scripts cannot read and that other sites cannot use.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

from fastapi.security import HTTPAuthorizationCredentials
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.api import ApiOptions
from shared.api.problems import answer
from shared.api.security import owner_of
from shared.errors import CygnetError, InvalidCall, Unauthorised
from shared.images import MAX_FILE_BYTES

COOKIE = "cygnet-key"
LOGIN = (Path(__file__).parent / "login.html").read_text()

_UPLOAD = "/gradio_api/upload"
_LONGEST_KEY = 4096
_WRONG = '<p role="alert">That is none of this server\'s keys.</p>'


class Guard:
    """In front of `app`: what gets through has `state.owner`, or None where anyone may come."""

    def __init__(self, app: ASGIApp, options: ApiOptions) -> None:
        self._app = app
        self._options = options
        self._calls: set[asyncio.Future[None]] = set()
        self._stopped = False

    def stop(self) -> None:
        """End what is open: a page keeps a stream for as long as it is looked at."""
        self._stopped = True
        for call in self._calls:
            call.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the page speaks nothing else
            return
        request = Request(scope, receive)
        if response := await self._refusal(request):
            await response(scope, receive, send)
        else:
            await self._call(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = asyncio.ensure_future(self._app(scope, receive, send))
        self._calls.add(call)
        try:
            await call
        except asyncio.CancelledError:
            call.cancel()
            if not self._stopped:
                raise
            with contextlib.suppress(RuntimeError):  # its answer was whole already
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._calls.discard(call)

    async def _refusal(self, request: Request) -> Response | None:
        """What to answer in place of the page, if the call may not reach it."""
        try:
            self._check_size(request)
            if self._options.keys and request.url.path == "/login":
                return await self._login(request)
            request.state.owner = self._owner(request, _key(request))
        except Unauthorised as error:
            if "text/html" in request.headers.get("accept", ""):
                return RedirectResponse(f"/login?next={_here(request)}", HTTPStatus.SEE_OTHER)
            return answer(request, error)
        except CygnetError as error:
            return answer(request, error)
        return None

    def _owner(self, request: Request, key: str) -> str | None:
        """The API's owner; None on a page that is open to all, where each browser has its own."""
        owner = owner_of(request, HTTPAuthorizationCredentials(scheme="Bearer", credentials=key))
        return owner if self._options.keys or self._options.hosts else None

    def _check_size(self, request: Request) -> None:
        if request.method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            return
        # What goes with a file besides it, its name for one, is small.
        uploads = request.url.path == _UPLOAD
        limit = MAX_FILE_BYTES + 2**16 if uploads else self._options.max_body
        length = request.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise InvalidCall("The body's length is not given.", "Send Content-Length.", 411)
        if int(length) > limit:
            raise InvalidCall(f"The body is larger than {limit} bytes.", "Send a shorter one.", 413)

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(LOGIN.replace("<!-- wrong -->", ""))
        given = parse_qs((await request.body()).decode(errors="replace")).get("key", [""])[0]
        try:
            self._owner(request, given)
        except Unauthorised:
            page = LOGIN.replace("<!-- wrong -->", _WRONG)
            return HTMLResponse(page, HTTPStatus.UNAUTHORIZED)
        response = RedirectResponse(_next(request), HTTPStatus.SEE_OTHER)
        # Lax: a link from elsewhere opens the page. Gradio answers scripts of any origin, but with no
        # call that does something, each of which is a POST, does a browser send this for another site.
        response.set_cookie(
            COOKIE,
            quote(given[:_LONGEST_KEY]),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response


def _here(request: Request) -> str:
    """The path and query that were asked for, to come back to."""
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.url.path + query, safe="")


def _next(request: Request) -> str:
    """Where the login leads: within this server, whatever the link says that led to it."""
    path = request.query_params.get("next", "/")
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _key(request: Request) -> str:
    """The key in the header, else in the cookie."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else unquote(request.cookies.get(COOKIE, ""))
