"""`/v1/jobs`: send work, follow it, stop it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from shared.api import sse
from shared.api.problems import documented, told
from shared.api.runner import Runner
from shared.api.security import Owner, TheRunner, fingerprint, read_json
from shared.api.views import JobList, JobView, job_view
from shared.contract import GenerationRequest, parse_request
from shared.errors import CygnetError, InvalidCall
from shared.store import Status

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
    runner: TheRunner,
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
    job = runner.submit(
        wanted, owner, idempotency_key=idempotency_key, fingerprint=fingerprint(data)
    )
    response.headers["Location"] = str(request.url_for("get_job", job=job.id))
    return job_view(request, job)


@router.get("", response_model=JobList, responses=documented(404, 422))
async def list_jobs(
    request: Request,
    owner: Owner,
    runner: TheRunner,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
) -> JobList:
    """Your jobs, newest first."""
    jobs = runner.store.jobs(owner, status, limit + 1, after)
    data = [job_view(request, job) for job in jobs[:limit]]
    return JobList(data=data, has_more=len(jobs) > limit)


@router.get("/{job}", response_model=JobView, responses=documented(404))
async def get_job(request: Request, job: str, owner: Owner, runner: TheRunner) -> JobView:
    """A job as it is now."""
    return job_view(request, runner.store.job(job, owner))


@router.delete("/{job}", response_model=JobView, responses=documented(404))
async def cancel_job(request: Request, job: str, owner: Owner, runner: TheRunner) -> JobView:
    """Stop a job before its next step. One that has ended stays as it is."""
    return job_view(request, await runner.cancel(job, owner))


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
    runner: TheRunner,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """The job's events as they come: queued, step, image, then done or error. After a break, send
    the last id you have as `Last-Event-ID` and get what came since."""
    ended = runner.store.job(job, owner).ended
    after = _event_id(last_event_id or "0")
    if ended and not runner.store.events(job, after, limit=1):
        return Response(status_code=204)  # tells an EventSource not to connect again
    return sse.EventStream(_messages(runner, job, after))


def _event_id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _LONGEST_EVENT_ID:
        return int(text)
    raise InvalidCall("Last-Event-ID is not an id of an event.", "Send the last id you got.")


async def _messages(runner: Runner, job: str, after: int) -> AsyncGenerator[bytes, None]:
    try:
        async for event in runner.events(job, after):
            yield sse.SILENCE if event is None else sse.message(event.type, event.data, event.id)
    except CygnetError as error:
        yield sse.message("error", told(error))
