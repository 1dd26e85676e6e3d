"""`/v1/jobs`: send work, follow it, stop it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from shared.api import sse
from shared.api.job_service import JobService
from shared.api.problems import documented, told
from shared.api.security import Jobs, Owner, fingerprint, read_json
from shared.api.views import JobList, JobView, job_view
from shared.contract import GenerationRequest, parse_request
from shared.errors import CygnetError, InvalidCall
from shared.store import Status, Terms

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LONGEST_EVENT_ID = 18  # digits: more than any job has events, and still a number for SQLite

_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": GenerationRequest.model_json_schema()}},
    }
}
_LOCATION = {"headers": {"Location": {"schema": {"type": "string"}}}}


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    responses={202: _LOCATION, **documented(400, 413, 415, 422, 429, 503, 507)},
    openapi_extra=_REQUEST_BODY,
)
async def create_job(
    request: Request,
    response: Response,
    owner: Owner,
    jobs: Jobs,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobView:
    """Send a request, and get a job to follow. With an `Idempotency-Key`, sending it again gives
    the same job instead of another one."""
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidCall(
            "The Idempotency-Key is not 1 to 255 visible ASCII characters.", "Send a UUID."
        )
    data = await read_json(request)
    wanted = parse_request(data)
    job = await jobs.submit(wanted, owner, Terms(idempotency_key, fingerprint(data)))
    response.headers["Location"] = str(request.url_for("get_job", job=job.id))
    return job_view(request, job)


@router.get("", response_model=JobList, responses=documented(404, 422))
async def list_jobs(
    request: Request,
    owner: Owner,
    jobs: Jobs,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
) -> JobList:
    """Your jobs, newest first."""
    found = await jobs.jobs(owner, status, limit + 1, after)
    data = [job_view(request, job) for job in found[:limit]]
    return JobList(data=data, has_more=len(found) > limit)


@router.get("/{job}", response_model=JobView, responses=documented(404))
async def get_job(request: Request, job: str, owner: Owner, jobs: Jobs) -> JobView:
    """A job as it is now."""
    return job_view(request, await jobs.job(job, owner))


@router.delete("/{job}", response_model=JobView, responses=documented(404))
async def cancel_job(request: Request, job: str, owner: Owner, jobs: Jobs) -> JobView:
    """Stop a job before its next step. One that has ended stays as it is."""
    return job_view(request, await jobs.cancel(job, owner))


@router.get(
    "/{job}/events",
    response_class=Response,
    responses={
        200: {"description": "server-sent events", "content": {"text/event-stream": {}}},
        204: {"description": "nothing is left to send"},
        **documented(400, 404),
    },
)
async def get_events(
    job: str,
    owner: Owner,
    jobs: Jobs,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The job's events as they come: queued, step, image, then done or error. After a break, send
    the last id you have as `Last-Event-ID` and get what came since."""
    ended = (await jobs.job(job, owner)).ended
    messages = _messages(jobs, job, _event_id(last_event_id or "0"))
    if ended:
        first = await anext(messages, None)
        if first is None:
            return Response(status_code=204)  # tells an EventSource not to connect again
        messages = _before(first, messages)
    return sse.EventStream(messages)


def _event_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _LONGEST_EVENT_ID:
        return int(text)
    raise InvalidCall("Last-Event-ID is not an id of an event.", "Send the last id you got.")


async def _messages(jobs: JobService, job: str, after: int) -> AsyncGenerator[bytes, None]:
    try:
        async for event in jobs.events(job, after):
            yield sse.SILENCE if event is None else sse.message(event.type, event.data, event.id)
    except CygnetError as error:
        yield sse.message("error", told(error))


async def _before(
    first: bytes, messages: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    async with aclosing(messages):
        yield first
        async for message in messages:
            yield message
