"""What is said to a call that no route takes: what this server does, and where.

It is made for callers that know OpenAI's API, and for those whose address is a little wrong. What
calls there are is read from the OpenAPI document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from shared.errors import InvalidCall

OPENAI_ROUTE = "/v1/images/generations"
LOOK_UP = "Look the call up in /openapi.json."
_DRAW = f"send a prompt to POST {OPENAI_ROUTE}"

_NOT_DONE = {
    "images/edits": "change pictures",
    "images/variations": "vary pictures",
    "videos": "make videos",
    "chat": "chat",
    "completions": "write text",
    "responses": "write text",
    "messages": "write text",
    "assistants": "chat",
    "threads": "chat",
    "conversations": "chat",
    "realtime": "speak or listen",
    "audio": "speak or listen",
    "embeddings": "embed text",
    "rerank": "rank text",
    "moderations": "judge text",
    "files": "keep files",
    "uploads": "keep files",
    "vector_stores": "search files",
    "containers": "run programs",
    "fine_tuning": "train models",
    "evals": "judge models",
    "batches": "take files of calls",
    "engines": "list engines",
}
"""What other servers of OpenAI's API do, by the call's path."""

_OURS = ("images", "models", "jobs")
_NAMES = "|".join(map(re.escape, (*_OURS, *_NOT_DONE)))
_BASE = re.compile(r"/(?:(?:api|openai|v\d\w*)(?:/|$)|deployments/[^/]+/)*")
"""What stands before a call's own path: right or wrong, and a little of what others have there."""
_API = re.compile(
    rf"{_BASE.pattern}(?:{_NAMES})(?:/|$)|/(?:openai/|api/)?v\d\w*(?:/|$)"
    r"|.*/(?:images/(?:generations|edits|variations)|chat/completions)/?$",  # whatever is before it
    re.IGNORECASE,
)


def is_for_the_api(path: str) -> bool:
    """Whether whoever calls `path` wants the API: it begins as its calls do, or as they would with
    the wrong address before them."""
    return _API.match(path) is not None


def refuse(request: Request, error: HTTPException) -> InvalidCall:
    """Why the call that the router answered with 404 or 405 is none, and which to make."""
    path = request.url.path
    call = f"{request.method[:10]} {path[:100]}"
    if methods := allowed_methods(request):
        advice = f"{path[:100]} takes {' and '.join(methods)}. To draw, {_DRAW}."
        return InvalidCall(f"There is no {call}: this server draws pictures.", advice, 405)
    if not is_for_the_api(path):
        return InvalidCall(f"{call}: {error.detail}.", LOOK_UP, error.status_code)
    message = f"There is no {call}: this server draws pictures."
    if what := _not_done(path):
        message = f"There is no {call}: this server draws pictures, and does not {what}."
    address = f"{str(request.base_url).rstrip('/')}/v1"
    if not re.match(r"/v1(/(?!v\d)|$)", path):
        advice = (
            f"Its API is under /v1: add that to the base address, as {address}. There, {_DRAW}."
        )
    elif path in ("/v1", "/v1/"):
        advice = f"This is its base address. There, {_DRAW}."
    else:
        advice = f"To draw, {_DRAW}. /openapi.json has every call."
    return InvalidCall(message, advice, 404)


def allowed_methods(request: Request) -> list[str]:
    """What the path takes; nothing if there is no such path."""
    path = request.url.path
    if _not_done(path):  # else it is taken for the name of something
        return []
    paths: Mapping[str, Mapping[str, object]] = request.app.openapi()["paths"]
    matching = (
        [path] if path in paths else [one for one in paths if compile_path(one)[0].match(path)]
    )
    return sorted({method.upper() for one in matching for method in paths[one]})


def _not_done(path: str) -> str:
    """What a server that had this call would do, and this one does not; or nothing."""
    base = _BASE.match(path)
    own = path[base.end() if base else 0 :]
    return next((what for name, what in _NOT_DONE.items() if f"{own}/".startswith(f"{name}/")), "")
