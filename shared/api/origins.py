"""Which web pages may call: one rule in front of the API, the page and MCP alike.

A browser lends a web page its reach: to this machine, to the network that it is in, and to the cookie of
whoever is logged in. So the server's own pages may call, and those of the configured origins; a program
sends neither `Origin` nor `Sec-Fetch-Site`, and is not asked. What a page elsewhere may still do is to link
here, and to show a picture whose address is signed: both are GET and change nothing.
"""

from __future__ import annotations

import re
import secrets
from urllib.parse import urlsplit

from fastapi import Request
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.api.problems import answer
from shared.errors import InvalidCall

_ORIGIN = re.compile(r"(https?)://([^\s/?#@]+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_OWN = ("same-origin", "none")
"""What a browser says of a call by the server's own page, and of an address that its user typed. Another
port or a neighbouring host name is `same-site`, and as strange as any."""

_FRAMES = ("iframe", "frame", "embed", "object", "fencedframe")
_SIGNED = "/v1/images/"


def check_origins(app: Starlette, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
    """Have `app` answer to these host names only (with none, to any), and to the web pages of its own
    and of these origins."""
    origins = tuple(origin.rstrip("/").lower() for origin in origins)
    app.add_middleware(OriginPolicy, hosts, origins)
    # Also where no origin is configured: what is mounted below then adds no answers of its own.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=[
            "Location",
            "Mcp-Session-Id",
            "Retry-After",
            "WWW-Authenticate",
            "X-Request-Id",
        ],
    )


class OriginPolicy:
    """Answers a call that another site's page makes in place of `app`."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], origins: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            self._check_host(request)
            self._check_caller(request)
        except InvalidCall as refusal:
            scope.setdefault("state", {}).setdefault("id", secrets.token_hex(8))
            await answer(request, refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check_host(self, request: Request) -> None:
        """A page in a browser here may have its own host name lead to this machine."""
        address = _address(request.headers.get("host", ""), "http")
        if self._hosts and (address is None or address[0] not in self._hosts):
            raise InvalidCall("This server has another name.", f"Call it {self._hosts[0]}.", 421)

    def _check_caller(self, request: Request) -> None:
        given = [origin.strip().lower() for origin in request.headers.getlist("origin")]
        configured = bool(given) and all(map(self._is_configured, given))
        if configured:
            return
        sites = request.headers.getlist("sec-fetch-site")
        elsewhere = any(site.strip().lower() not in _OWN for site in sites)
        if not all(self._is_own(request, origin) for origin in given):
            raise _foreign()
        if elsewhere and not (self._is_link(request) or _is_signed_picture(request)):
            raise _foreign()

    def _is_configured(self, origin: str) -> bool:
        return "*" in self._origins or origin in self._origins

    def _is_own(self, request: Request, origin: str) -> bool:
        """Whether a page of that origin is one that this server gave out.

        A proxy in front may take TLS off and have another name here; it says both in headers, which no
        page can set without leave.
        """
        found = _ORIGIN.fullmatch(origin)
        if not found:
            return False
        spoken, here = found.groups()
        names = [request.headers.get("host", "")]
        said = _first(request, "x-forwarded-proto")
        scheme = said or request.url.scheme
        if not self._hosts:
            names.append(_first(request, "x-forwarded-host"))
            if not said and spoken == "https":
                scheme = "https"  # a proxy that does not say so
        address = _address(here, spoken)
        known = {_address(name, spoken) for name in names if name}
        return spoken == scheme and address is not None and address in known

    def _is_link(self, request: Request) -> bool:
        """Whether someone follows a link to this server. A frame in another site's page counts, which
        is how Spaces are shown, but not where no key is asked for: clicks there could be led astray."""
        headers = request.headers
        if request.method not in ("GET", "HEAD") or headers.get("sec-fetch-mode") != "navigate":
            return False
        return not (self._hosts and headers.get("sec-fetch-dest", "document") in _FRAMES)


def is_https(request: Request) -> bool:
    """Whether the caller speaks TLS, to this server or to the proxy in front."""
    return (_first(request, "x-forwarded-proto") or request.url.scheme) == "https"


def _is_signed_picture(request: Request) -> bool:
    signed = "signature" in request.query_params and request.url.path.startswith(_SIGNED)
    return signed and request.method in ("GET", "HEAD")


def _foreign() -> InvalidCall:
    return InvalidCall(
        "This call was made by a web page of another site.",
        "Open this server's own page, or have its operator name that site with --origin.",
        403,
    )


def _first(request: Request, header: str) -> str:
    """What the outermost of several proxies says."""
    return request.headers.get(header, "").split(",")[0].strip().lower()


def _address(host: str, scheme: str) -> tuple[str, int] | None:
    """A host's name and port; None for what is no such thing."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "", parts.port or _DEFAULT_PORTS[scheme])
    except ValueError:
        return None
