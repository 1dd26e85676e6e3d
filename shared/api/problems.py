"""Errors as HTTP answers: RFC 9457 problem documents, and OpenAI's shape on OpenAI's route."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CheckpointMissing,
    CygnetError,
    DiskFull,
    InputError,
    InternalError,
    InvalidCall,
    InvalidRequest,
    NotFound,
    OutOfMemory,
    QueueFull,
    RateLimited,
    SpendingLimit,
    Unauthorised,
)

log = logging.getLogger(__name__)

OPENAI_ROUTE = "/v1/images/generations"

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


def documented_openai(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for OpenAI's route."""
    schema = {"schema": {"type": "object", "properties": {"error": {"type": "object"}}}}
    described = documented(*statuses)
    for answer_there in described.values():
        answer_there["content"] = {"application/json": schema}
    return described


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
    openai = request.url.path == OPENAI_ROUTE
    body = openai_error(error) if openai else _problem(request, error, status)
    media_type = "application/json" if openai else "application/problem+json"
    # Escaped to ASCII: what a caller sent may hold halves of characters, which UTF-8 cannot.
    content = json.dumps(body).encode()
    return Response(content, _openai_status(status) if openai else status, headers, media_type)


def _problem(request: Request, error: CygnetError, status: int) -> dict[str, Any]:
    problem = Problem(
        type=f"urn:cygnet:error:{error.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        next_step=error.next_step,
        request_id=request.state.id,
        fields=list(error.fields) if isinstance(error, InvalidRequest) else [],
        waiting=error.waiting if isinstance(error, QueueFull) else None,
    )
    return problem.model_dump()


def openai_error(error: CygnetError) -> dict[str, Any]:
    """As OpenAI's clients expect it; the next step is part of the message."""
    kind = "invalid_request_error" if isinstance(error, InputError) else "server_error"
    if isinstance(error, QueueFull | RateLimited):
        kind = "rate_limit_error"
    param = error.fields[0] if isinstance(error, InvalidRequest) and error.fields else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": error.code}}


def _openai_status(status: int) -> int:
    return 400 if status == 422 else status


def add_handlers(app: FastAPI) -> None:
    """Every refusal and every fault leaves as one of our errors."""

    async def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, CygnetError)
        return answer(request, error)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        call = f"{request.method} {request.url.path[:100]}"
        hint = "Look the call up in /openapi.json."
        refusal = InvalidCall(f"{call}: {error.detail}.", hint, error.status_code)
        response = answer(request, refusal)
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return answer(
            request, InvalidRequest(f"{name}: {first['msg']}.", f"Correct {name}.", (name,))
        )

    async def fault(request: Request, error: Exception) -> Response:
        message = f"Something in the server failed ({type(error).__name__})."
        response = answer(request, InternalError(message, "Try again; its log has the cause."))
        response.headers["X-Request-Id"] = request.state.id  # this runs around the request's log
        return response

    app.add_exception_handler(CygnetError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, fault)
