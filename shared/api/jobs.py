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
from shared.api.request_log import log_accepted
from shared.api.schemas import TEXT, json_body
from shared.api.security import Jobs, LimitedOwner, Lister, Owner, fingerprint, read_json
from shared.api.views import JobList, JobView, job_view
from shared.contract import GenerationRequest, parse_request
from shared.errors import CygnetError, InvalidCall, InvalidRequest
from shared.numbers import READ_NUMBER
from shared.store import Status, Terms
from shared.webhooks import LONGEST_URL

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LONGEST_EVENT_ID = 18  # digits: more than any job has events, and still a number for SQLite

_BATCH = re.compile(r"(^|,)\s*u=[5-7]\s*($|[,;])")
"""RFC 9218: an urgency below that of what is shown to somebody, which is 3 by default."""


_WEBHOOK = {
    "type": "string",
    "maxLength": LONGEST_URL,
    "description": "an https:// address to tell when the job has ended, signed with your key",
}
_REQUEST_BODY = json_body(
    GenerationRequest.model_json_schema()["properties"] | {"webhook": _WEBHOOK}
)
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
    owner: LimitedOwner,
    jobs: Jobs,
    idempotency_key: Annotated[str | None, Header()] = None,
    priority: Annotated[
        str,
        Header(description="RFC 9218; u=5 to u=7 lets requests that somebody waits for go first"),
    ] = "",
) -> JobView:
    """Send a request, and get a job to follow. With an `Idempotency-Key`, sending it again gives
    the same job instead of another one. A `webhook` beside the request's fields is told the end."""
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidCall(
            "The Idempotency-Key is not 1 to 255 visible ASCII characters.", "Send a UUID."
        )
    data = await read_json(request)
    terms = Terms(idempotency_key, fingerprint(data), bool(_BATCH.search(priority)), _webhook(data))
    job = await jobs.submit(parse_request(data), owner, terms)
    log_accepted(request, job)
    response.headers["Location"] = str(request.url_for("get_job", job=job.id))
    return job_view(request, job)


def _webhook(data: dict[str, Any]) -> str | None:
    """Taken out of the body: it is no part of the request. Whoever calls it checks it."""
    url = data.pop("webhook", None)
    if url is None or isinstance(url, str):
        return url
    raise InvalidRequest("webhook is not text.", "Give an https:// address.", ("webhook",))


@router.get("", response_model=JobList, responses=documented(404, 422))
async def list_jobs(
    request: Request,
    owner: Lister,
    jobs: Jobs,
    status: Status | None = None,
    limit: Annotated[int, Query(strict=True, ge=1, le=100), READ_NUMBER] = 20,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
) -> JobList:
    """Your jobs, newest first. A server that is open to strangers refuses: a job is for who knows
    its id."""
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
        200: {"description": "server-sent events", "content": {"text/event-stream": TEXT}},
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
