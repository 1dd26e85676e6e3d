"""What a call to the page has to show before Gradio reads it: a key, a sane size, and nothing of others'.

The keys are the API's: a program sends its key as the API wants it, a browser has it from the login.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Iterator

from fastapi.security import HTTPAuthorizationCredentials
from gradio import Blocks
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.api import ApiOptions
from shared.api.problems import answer
from shared.api.security import owner_of
from shared.errors import CygnetError, InvalidCall, Unauthorised
from shared.images import MAX_FILE_BYTES
from space.page import calls, login
from space.page.files import STRANGERS, PageFiles
from space.page.uploads import send_file, take_upload
from space.page.visitor import Visitors


class Guard:
    """In front of `app`: what gets through has `state.owner`, or None where anyone may come."""

    def __init__(self, app: ASGIApp, page: Blocks, files: PageFiles, options: ApiOptions) -> None:
        self._app = app
        self._page = page
        self._files = files
        self._options = options
        self._login = login.Login(self._owner)
        self._visitors = Visitors()
        self._looking: Counter[str] = Counter()
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
        try:
            if response := await self._answer(request):
                await response(scope, receive, send)
            elif request.method == "POST":
                await self._post(request, send)
            else:
                calls.check_stream(request, self._page)
                with self._looked_at(request):
                    await self._call(scope, receive, self._with_visitor(request, send))
        except HTTPException:
            await _read_to_the_end(request)
            raise
        except CygnetError as error:
            await _read_to_the_end(request)
            await answer(request, error)(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """What is answered here, if Gradio is not to be asked. Raises `CygnetError`, `HTTPException`."""
        size = self._check_size(request)
        path = request.scope["path"]
        if self._options.keys and path == login.PATH:
            return await self._login.answer(request)
        try:
            request.state.owner = self._owner(request, login.key_of(request))
        except Unauthorised:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            return login.redirect(request)
        if path.startswith(calls.FILE) and request.method in ("GET", "HEAD"):
            return send_file(request, self._files, request.state.owner or "")
        if path.rstrip("/") == calls.UPLOAD and request.method == "POST":
            return await self._take_upload(request, size)
        calls.check_route(request)
        return None

    def _owner(self, request: Request, key: str) -> str | None:
        """The API's owner; None on a page that is open to all, where each browser has its own."""
        owner = owner_of(request, HTTPAuthorizationCredentials(scheme="Bearer", credentials=key))
        return owner if self._options.is_private else None

    def _check_size(self, request: Request) -> int:
        if request.method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            return 0
        # What goes with a file besides it, its name for one, is small.
        uploads = request.scope["path"].rstrip("/") == calls.UPLOAD
        limit = MAX_FILE_BYTES + 2**16 if uploads else self._options.max_body
        length = request.headers.get("content-length", "")
        # In chunks a body is as long as it likes, whatever it says beforehand.
        chunked = "transfer-encoding" in request.headers
        if chunked or not (length.isascii() and length.isdigit()):
            raise InvalidCall("The body's length is not given.", "Send Content-Length.", 411)
        if int(length) > limit:
            raise InvalidCall(f"The body is larger than {limit} bytes.", "Send a shorter one.", 413)
        return int(length)

    # What Gradio answers

    async def _post(self, request: Request, send: Send) -> None:
        """A call of a function, in a body that was read and written anew: what was checked is what
        Gradio reads. What it cannot make sense of is the caller's fault."""
        visitor = self._visitor(request)
        owner = _NOBODY if visitor is None else visitor
        upload = functools.partial(self._files.upload, owner=owner)
        body = await calls.read_call(request, self._page, upload)
        MutableHeaders(scope=request.scope)["content-length"] = str(len(body))
        held: list[Message] = []

        async def with_status(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 500:
                told: int | None = getattr(request.state, "status", None)
                message["status"] = told or message["status"]
                if told is None:
                    held.append(message)
                    return
            if held:
                held.append(message)
            else:
                await send(message)

        try:
            await self._call(request.scope, _receiving(body, request.receive), with_status)
        except Exception as error:
            if getattr(request.state, "status", None) is not None:
                return  # it was told
            if not held:
                raise
            raise InvalidCall(
                f"The call cannot be read ({type(error).__name__}).",
                "Look it up in /gradio_api/info.",
                400,
            ) from None
        for message in held:
            await send(message)

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

    # Visitors and what they upload

    def _visitor(self, request: Request) -> str | None:
        """Who may name an upload: an owner or, on a page open to all, a browser that is known."""
        owner: str | None = request.state.owner
        return self._visitors.known(request) if owner is None else owner

    async def _take_upload(self, request: Request, size: int) -> Response:
        known = self._visitor(request)
        visitor = self._visitors.new() if known is None else known
        counted_to = STRANGERS if known is None else known
        response = await take_upload(request, self._files, visitor, counted_to, size)
        if known is None:
            response.headers.append("set-cookie", self._visitors.cookie(visitor, request))
        return response

    def _with_visitor(self, request: Request, send: Send) -> Send:
        """Makes a browser known that opens a page open to all."""
        if request.scope["path"] != "/" or self._visitor(request) is not None:
            return send

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = self._visitors.cookie(self._visitors.new(), request)
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        return with_cookie

    @contextlib.contextmanager
    def _looked_at(self, request: Request) -> Iterator[None]:
        """When the last page of a visitor's is closed, what it uploaded goes."""
        visitor = self._visitor(request)
        if visitor is None or not request.scope["path"].startswith(calls.HEARTBEAT):
            yield
            return
        self._looking[visitor] += 1
        try:
            yield
        finally:
            self._looking[visitor] -= 1
            if not self._looking[visitor]:
                del self._looking[visitor]
                self._files.forget_uploads(visitor)


_NOBODY = "nobody"
"""Owns nothing: whoever shows no name has uploaded nothing that can be named."""


async def _read_to_the_end(request: Request) -> None:
    """A short body that was refused: unread, it would make the connection break before the answer."""
    left = _SHORT
    with contextlib.suppress(RuntimeError, TimeoutError, ClientDisconnect):  # read, slow, or gone
        async with asyncio.timeout(1):
            async for part in request.stream():
                left -= len(part)
                if left < 0:
                    return


_SHORT = 2**16


def _receiving(body: bytes, receive: Receive) -> Receive:
    """Gives `body`, which was read already, and then what `receive` has."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
