"""How a browser is asked for a key: once, and it keeps it in a cookie that scripts cannot read and that
other sites cannot use."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shared.api.origins import is_https
from shared.api.rate_limit import RateLimit
from shared.errors import RateLimited, Unauthorised

PATH = "/login"
COOKIE = "cygnet-key"
PAGE = (Path(__file__).parent / "login.html").read_text()

_LONGEST_KEY = 4096
_GUESSES = 20
"""Keys that one address may try within a minute."""

_SAID = "<!-- wrong -->"
_WRONG = '<p role="alert">That is none of this server\'s keys.</p>'
_TOO_MANY = '<p role="alert">Too many keys were tried from here. Wait a minute, then try again.</p>'


class Login:
    """`check` raises `Unauthorised` for what is none of the server's keys."""

    def __init__(self, check: Callable[[Request, str], object]) -> None:
        self._check = check
        self._guesses = RateLimit(_GUESSES)

    async def answer(self, request: Request) -> Response:
        if request.method != "POST":
            return HTMLResponse(PAGE.replace(_SAID, ""))
        try:
            self._guesses.take(_network(request))
        except RateLimited as error:
            headers = {"Retry-After": str(error.retry_after)}
            page = PAGE.replace(_SAID, _TOO_MANY)
            return HTMLResponse(page, HTTPStatus.TOO_MANY_REQUESTS, headers)
        given = parse_qs((await request.body()).decode(errors="replace")).get("key", [""])[0]
        try:
            self._check(request, given)
        except Unauthorised:
            return HTMLResponse(PAGE.replace(_SAID, _WRONG), HTTPStatus.UNAUTHORIZED)
        response = RedirectResponse(_next(request), HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE,
            quote(given[:_LONGEST_KEY]),
            httponly=True,
            samesite="lax",  # a link from elsewhere opens the page
            secure=is_https(request),
        )
        return response


def redirect(request: Request) -> Response:
    """To the login, and from there back to what was asked for."""
    query = f"?{request.url.query}" if request.url.query else ""
    here = quote(request.url.path + query, safe="")
    return RedirectResponse(f"{PATH}?next={here}", HTTPStatus.SEE_OTHER)


def key_of(request: Request) -> str:
    """The key in the header, else in the cookie."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else unquote(request.cookies.get(COOKIE, ""))


def _next(request: Request) -> str:
    """Where the login leads: within this server, whatever the link says that led to it."""
    path = request.query_params.get("next", "/")
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _network(request: Request) -> str:
    """Who guesses: an address or, of IPv6, the network that one customer is given."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((host, 64), strict=False))
