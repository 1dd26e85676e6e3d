"""The server over streamable HTTP, as an app of its own or as routes of a site.

Which web pages may call is decided in front of it, as for the API. Originals lie beside it, under the
same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.api.origins import check_origins
from shared.api.security import key_digest
from shared.backends.router import Router
from shared.errors import NotFound
from shared.formats import media_type
from shared.gallery import Gallery
from shared.mcp.access import Rules, owner
from shared.mcp.server import BUDGET, create_server

PATH = "/mcp"
IMAGES = f"{PATH}/images/{{name}}"
MAX_BODY = 2**20


@dataclass(frozen=True)
class HttpOptions:
    """Who may call."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    """Any of them opens the server; with none, it is open to whoever reaches it."""
    hosts: tuple[str, ...] = ()
    """The host names it answers to; with none given, to any."""
    origins: tuple[str, ...] = ()
    """Web pages from these origins may call it from a browser."""

    @property
    def is_private(self) -> bool:
        """Whether a stranger may not call."""
        return bool(self.keys or self.hosts)


def mcp_app(
    router: Router, gallery: Gallery, options: HttpOptions | None = None, budget: int = BUDGET
) -> Starlette:
    """An ASGI app that answers at `PATH` and `IMAGES`; it closes neither `router` nor `gallery`."""
    options = options or HttpOptions()
    app = _routes(router, gallery, options, Rules(options.is_private), budget)
    check_origins(app, options.hosts, options.origins)
    return app


def mount_mcp(site: Starlette, router: Router, gallery: Gallery, options: HttpOptions) -> None:
    """Serve the same paths in `site`, which checks origins, and closes `router` when it ends.

    Its callers are not those who pay for other backends, and are limited as those of its API are.
    """
    rules = Rules(options.is_private, choose_backend=False, limit=site.state.rate_limit.take)
    app = _routes(router, gallery, options, rules, BUDGET)
    site.router.routes.extend(Route(path, app) for path in (PATH, IMAGES))
    site.state.on_stop.append(app.state.jobs.cancel)
    lifespan = site.router.lifespan_context

    @contextlib.asynccontextmanager
    async def with_mcp(_: Starlette) -> AsyncIterator[None]:
        async with lifespan(site), app.router.lifespan_context(app):
            yield

    site.router.lifespan_context = with_mcp


def _routes(
    router: Router, gallery: Gallery, options: HttpOptions, rules: Rules, budget: int
) -> Starlette:
    server = create_server(router, gallery, budget, rules, **_auth(options.keys))
    # The SDK's own list of host names and origins takes any port of this machine.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(
        streamable_http_path=PATH, transport_security=unchecked, max_request_body_size=MAX_BODY
    )
    app.state.jobs = server.jobs  # what a server stops first
    app.state.on_stop = []
    app.state.gallery = gallery
    app.state.keys = bool(options.keys)
    app.router.routes.append(Route(IMAGES, _image))
    app.add_middleware(_SaysWhereTheKeyGoes)
    return app


class _SaysWhereTheKeyGoes:
    """Around an app that refuses whoever has no key: the SDK's refusal says only that one is missing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def send_words(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 401:
                refused = True
                await _no_key()(scope, receive, send)
            elif not refused:
                await send(message)

        await self._app(scope, receive, send_words)


def _no_key() -> Response:
    """In the form of RFC 6750, which is what the SDK's clients read."""
    said = (
        "This server asks for a key. Send one of its keys with each call: Authorization: Bearer KEY"
    )
    challenge = f'Bearer error="invalid_token", error_description="{said}"'
    body = {"error": "invalid_token", "error_description": said}
    return JSONResponse(body, 401, {"WWW-Authenticate": challenge})


class _Keys:
    """Lets in who shows one of the keys: the SDK's bearer middleware asks, and nothing is issued."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys

    async def verify_token(self, token: str) -> AccessToken | None:
        # Every key is compared, each in constant time, so that the time taken tells nothing.
        matches = [hmac.compare_digest(token.encode(), key.encode()) for key in self._keys]
        if not any(matches):
            return None
        return AccessToken(token=token, client_id=key_digest(token), scopes=[])


def _auth(keys: tuple[str, ...]) -> dict[str, object]:
    """What has the SDK ask for a key; it wants the name of an issuer too, which is nobody."""
    if not keys:
        return {}
    settings = AuthSettings(issuer_url=AnyHttpUrl("http://localhost"), resource_server_url=None)
    return {"token_verifier": _Keys(keys), "auth": settings}


async def _image(request: Request) -> Response:
    """An original, to whoever may see it."""
    state = request.app.state
    if state.keys and not get_access_token():
        return _no_key()
    key = request.path_params["name"].split(".")[0]
    try:
        picture = await asyncio.to_thread(state.gallery.picture, key, owner())
        data = await asyncio.to_thread(state.gallery.read, picture)
    except NotFound as error:
        return PlainTextResponse(str(error), 404)
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, immutable"}
    return Response(data, media_type=media_type(picture.format), headers=headers)
