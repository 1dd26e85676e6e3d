"""Errors as HTTP answers: RFC 9457 problem documents, which OpenAI's clients read too.

Those read the member `error` and nothing else, on whatever path and for whatever status; RFC 9457
allows it beside its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.api.unknown_calls import LOOK_UP, OPENAI_ROUTE, allowed_methods, refuse
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CheckpointMissing,
    CygnetError,
    DiskFull,
    InputError,
    InternalError,
    InvalidCall,
    NotFound,
    OutOfMemory,
    QueueFull,
    RateLimited,
    SpendingLimit,
    Unauthorised,
)
from shared.refusals import refusal

log = logging.getLogger(__name__)

# The first that fits.
_STATUSES: tuple[tuple[type[CygnetError], int], ...] = (
    (Unauthorised, 401),
    (NotFound, 404),
    (InputError, 422),
    (QueueFull, 429),
    (SpendingLimit, 429),
    (RateLimited, 429),
    (Cancelled, 409),
    (BackendUnavailable, 503),
    (CheckpointMissing, 503),
    (OutOfMemory, 503),
    (DiskFull, 507),
    (CygnetError, 500),
)


class OpenAIError(BaseModel):
    """An error as OpenAI's clients show it; the next step is part of the message."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="the first field at fault")
    code: str = Field(examples=["invalid_request"])


class Problem(BaseModel):
    """RFC 9457, with our code, what to do next, and the fields at fault."""

    type: str = Field(examples=["urn:cygnet:error:invalid_request"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["invalid_request"])
    next_step: str
    request_id: str
    fields: list[str] = []
    waiting: int | None = Field(default=None, description="jobs in the queue, if it is full")
    error: OpenAIError


def schemas() -> dict[str, Any]:
    """The schema of a problem, and of what it refers to, for the OpenAPI document."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return schema.pop("$defs") | {"Problem": schema}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's OpenAPI description: the problems it may answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": schema},
        }
        for status in sorted({401, 403, 421, 500, *statuses})
    }


def status_of(error: CygnetError) -> int:
    if isinstance(error, InvalidCall):
        return error.status
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


def told(error: CygnetError) -> dict[str, str]:
    """An error within a stream or a job, where there is no status."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}


def answer(request: Request, error: CygnetError) -> Response:
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthorised):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, QueueFull | RateLimited):
        headers["Retry-After"] = str(error.retry_after)
    if request.url.path == OPENAI_ROUTE and status == 422:
        status = 400  # as OpenAI answers it, which its clients tell from other errors
    # Escaped to ASCII: what a caller sent may hold halves of characters, which UTF-8 cannot.
    content = json.dumps(_problem(request, error, status)).encode()
    return Response(content, status, headers, "application/problem+json")


def _problem(request: Request, error: CygnetError, status: int) -> dict[str, Any]:
    problem = Problem(
        type=f"urn:cygnet:error:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        next_step=error.next_step,
        request_id=request.state.id,
        fields=list(error.fields) if isinstance(error, InputError) else [],
        waiting=error.waiting if isinstance(error, QueueFull) else None,
        error=openai_error(error),
    )
    return problem.model_dump()


def openai_error(error: CygnetError) -> OpenAIError:
    kind = "invalid_request_error" if isinstance(error, InputError) else "server_error"
    if isinstance(error, QueueFull | RateLimited):
        kind = "rate_limit_error"
    param = error.fields[0] if isinstance(error, InputError) and error.fields else None
    return OpenAIError(message=str(error), type=kind, param=param, code=error.code)


def _parameter(request: Request, place: str, name: str) -> Mapping[str, Any]:
    """The schema of a parameter of the call's route, from the OpenAPI document."""
    paths = request.app.openapi()["paths"]
    operation = paths[request.scope["route"].path_format][request.method.lower()]
    found = (one for one in operation["parameters"] if (one["in"], one["name"]) == (place, name))
    return next(found)["schema"]


def add_handlers(app: FastAPI) -> None:
    """Every refusal and every fault leaves as one of our errors."""

    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, CygnetError)
        return answer(request, error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code in (404, 405):
            refusal = refuse(request, error)
        else:
            call = f"{request.method[:10]} {request.url.path[:100]}"
            refusal = InvalidCall(f"{call}: {error.detail}.", LOOK_UP, error.status_code)
        response = answer(request, refusal)
        response.headers.update(error.headers or {})
        if refusal.status == 405 and (methods := allowed_methods(request)):
            response.headers["Allow"] = ", ".join(methods)  # the router names those of one route
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place, name = str(first["loc"][0]), str(first["loc"][-1])
        return answer(request, refusal(name, first["input"], _parameter(request, place, name)))

    async def fault(request: Request, error: Exception) -> Response:
        message = f"Something in the server failed ({type(error).__name__})."
        response = answer(request, InternalError(message, "Try again; its log has the cause."))
        response.headers["X-Request-Id"] = request.state.id  # this runs around the request's log
        return response

    app.add_exception_handler(CygnetError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, fault)
