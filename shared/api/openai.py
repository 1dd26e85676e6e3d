"""`POST /v1/images/generations`, as OpenAI's clients call it.

The call is a job like any other, except that it ends when its caller hangs up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from shared.api import sse
from shared.api.job_service import JobService
from shared.api.openai_answers import ANSWERS, answer, completed, encoded_file, partial, with_result
from shared.api.openai_wire import REQUEST_BODY, Wanted, read_call
from shared.api.problems import documented, openai_error
from shared.api.request_log import log_accepted
from shared.api.security import Jobs, LimitedOwner, read_json
from shared.api.unknown_calls import OPENAI_ROUTE
from shared.api.views import image_view
from shared.errors import BackendUnavailable, CygnetError, error_of
from shared.store import Job, Terms

router = APIRouter(tags=["openai"])

CALLER_HUNG_UP = 499  # nginx's number; only a log will ever see it


@router.post(
    OPENAI_ROUTE,
    response_class=Response,
    responses={**ANSWERS, **documented(400, 409, 413, 415, 429, 503, 507)},
    openapi_extra=REQUEST_BODY,
)
async def generate_images(request: Request, owner: LimitedOwner, jobs: Jobs) -> Response:
    """OpenAI's Images API, with our own fields beside theirs. To hang up is to cancel."""
    wanted = read_call(await read_json(request), request.app.state.openai_models)
    job = await jobs.submit(wanted.request, owner, Terms(attended=True))
    log_accepted(request, job)
    if wanted.stream:
        return sse.EventStream(_stream(jobs, job, wanted))
    try:
        waiting = asyncio.ensure_future(jobs.ended(job.id))
        hung_up = asyncio.ensure_future(_hung_up(request))
        try:
            await asyncio.wait({waiting, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                return Response(status_code=CALLER_HUNG_UP)
            return JSONResponse(await _answer(request, jobs, waiting.result(), wanted))
        finally:
            waiting.cancel()
            hung_up.cancel()
    finally:
        await _give_up(jobs, job)


async def _answer(request: Request, jobs: JobService, job: Job, wanted: Wanted) -> dict[str, Any]:
    if wanted.by_url:
        return answer(job, wanted, [{"url": image_view(request, one).url} for one in job.images])
    files = [await jobs.read_image(image) for image in job.images]
    encoded = await asyncio.to_thread(lambda: [encoded_file(file, wanted) for file in files])
    return answer(job, wanted, [{"b64_json": file} for file in encoded])


@router.get(OPENAI_ROUTE, include_in_schema=False)
@router.get("/v1/images/edits", include_in_schema=False)
@router.get("/v1/images/variations", include_in_schema=False)
async def no_image() -> None:
    """In front of `/v1/images/{image}`, which would take these for ids."""
    raise HTTPException(404)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _give_up(jobs: JobService, job: Job) -> None:
    """Nobody waits for the job any more: stop it, if it has not ended."""
    with anyio.CancelScope(shield=True):  # the call itself may just be being cancelled
        await jobs.cancel(job.id)


async def _stream(jobs: JobService, job: Job, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(_events(jobs, job, wanted)) as events:
            async for event in events:
                yield sse.message(event["type"], event) if event else sse.SILENCE
    except CygnetError as error:
        yield sse.message("error", {"error": openai_error(error).model_dump()})
    finally:
        await _give_up(jobs, job)


async def _events(
    jobs: JobService, job: Job, wanted: Wanted
) -> AsyncGenerator[dict[str, Any] | None, None]:
    """OpenAI's events, None for silence. The last image waits for the timings, which it carries."""
    partials = 0
    last: dict[str, Any] | None = None
    async with aclosing(jobs.events(job.id)) as events:
        async for event in events:
            match event.type if event else "":
                case "":
                    yield None
                case "step" if event and event.data["preview"]:
                    if wanted.shows_preview(partials, event.data["step"]):
                        yield partial(job, wanted, event.data, partials)
                        partials += 1
                case "image" if event:
                    if last:
                        yield last
                    last = await asyncio.to_thread(completed, job, wanted, event.data)
                    partials = 0
                case "done" if event and last:
                    yield with_result(last, wanted, event.data["result"])
                    return
                case "error" if event:
                    raise error_of(**event.data)
    raise BackendUnavailable("The server is stopping.", "Try again in a moment.")
