"""What a client may ask of Gradio: which of its routes there are, and what a body may hold.

Gradio has many more routes than a page needs, and takes a path in a body, in whatever it is nested, for a
file to read, to copy and to give out. So a route that is not listed here is not there, and no path reaches
Gradio: the guard takes each file out of the body, after it was found to be an upload of the caller's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from gradio import Blocks
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from shared.api.security import read_json
from shared.errors import InvalidCall, NotFound

UPLOAD = "/gradio_api/upload"
FILE = "/gradio_api/file="
HEARTBEAT = "/gradio_api/heartbeat/"

_GET = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    r"|/(?:static|assets|svelte)/.+"
    r"|/gradio_api/(?:info|openapi\.json|app_id|theme\.css)"
    r"|/gradio_api/queue/(?:data|status)"
    r"|/gradio_api/heartbeat/[^/]+"
    r"|/gradio_api/call/(?:v2/)?[^/]+/[^/]+"
)
_POST = re.compile(
    r"/gradio_api/(?:run|api|call|call/v2)/[^/]+|/gradio_api/(?:queue/join|cancel|reset)"
)
_FUNCTION = re.compile(r"/gradio_api/(?:run|api|call|call/v2)/([^/]+)")
_BY_NAME = "/gradio_api/call/"
"""Where the name in the path says which function, whatever the body says."""
_EVENTS = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)")

_OF_A_CALL = {"data", "event_data", "event_id", "fn_index", "session_hash", "trigger_id"}
"""What Gradio's clients send. It takes more, by which one caller could pass for several."""

_OF_A_FILE = {"path", "url", "meta"}
"""Whatever has one of these is a file to some part of Gradio's."""


class _Call(BaseModel):
    fn_index: int | None = None


def check_route(request: Request) -> None:
    """Raises `HTTPException` for what this page does not have."""
    routes = _GET if request.method in ("GET", "HEAD") else _POST
    known = request.method in ("GET", "HEAD", "POST")
    if not (known and routes.fullmatch(_path(request))):
        raise HTTPException(HTTPStatus.NOT_FOUND)


def check_stream(request: Request, page: Blocks) -> None:
    """Raises `NotFound` for events of what was never asked for, or was told to the end."""
    queue = page._queue
    if _path(request) == "/gradio_api/queue/data":
        known = request.query_params.get("session_hash", "") in queue.pending_messages_per_session
    elif found := _EVENTS.fullmatch(_path(request)):
        known = (
            found[1] in queue.event_ids_to_events
            or found[1] in queue.pending_messages_per_session
            or any(found[1] in events for events in queue.pending_event_ids_session.values())
        )
    else:
        return
    if not known:
        raise NotFound("There are no such events.", "Send the call again.")


async def read_call(request: Request, page: Blocks, upload: Callable[[str], Path]) -> bytes:
    """The body as Gradio may have it, its files taken out: they are in `state.uploads`, in order.

    `upload` gives the caller's own upload of a name. Raises `InvalidCall`, `NotFound`.
    """
    body = await read_json(request)
    try:
        uploads: list[Path] = []
        bare = {name: _without_files(item, upload, uploads) for name, item in body.items()}
    except RecursionError:
        raise InvalidCall("The body is nested too deeply.", "Send a flatter one.", 400) from None
    if not _path(request).startswith(f"{_BY_NAME}v2/"):  # where each is a parameter of the function
        bare = {name: item for name, item in bare.items() if name in _OF_A_CALL}
    _check_function(request, page, bare)
    request.state.uploads = uploads
    return json.dumps(bare).encode()


def _without_files(value: Any, upload: Callable[[str], Path], found: list[Path]) -> Any:
    if isinstance(value, list):
        return [_without_files(item, upload, found) for item in value]
    if isinstance(value, str):  # half a character, of a text that was cut, cannot be sent back
        return value.encode(errors="ignore").decode()
    if not isinstance(value, dict):
        return value
    if _OF_A_FILE.isdisjoint(value):
        return {name: _without_files(item, upload, found) for name, item in value.items()}
    path = value.get("path")
    if not isinstance(path, str):
        raise InvalidCall("A file in the body has no path.", "Name an upload of yours.", 422)
    found.append(upload(path))
    return None


def _check_function(request: Request, page: Blocks, body: dict[str, Any]) -> None:
    """Raises `NotFound` for a function that the page does not have."""
    path = _path(request)
    named = _FUNCTION.fullmatch(path)
    if not named and path != "/gradio_api/queue/join":
        return
    try:
        number = _Call.model_validate(body).fn_index if not path.startswith(_BY_NAME) else None
    except ValidationError:
        raise InvalidCall("fn_index is not a whole number.", "Correct fn_index.", 422) from None
    names = {function.api_name for function in page.fns.values()}
    known = number in page.fns if number is not None else bool(named and named[1] in names)
    if not known:
        raise NotFound("There is no such function.", "Look it up in /config.")


def _path(request: Request) -> str:
    """Gradio answers with and without a slash at the end."""
    path: str = request.scope["path"]
    return path.rstrip("/") or "/"
