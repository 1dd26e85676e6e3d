"""The tools: each turns a call into a request, a search or a question, and answers it in full."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request

from shared.backends.config import AUTO
from shared.backends.router import BackendRow, Router
from shared.checkpoints import CHECKPOINTS, Licence, SchedulerName
from shared.contract import is_left_out, parse_request
from shared.errors import (
    Cancelled,
    InvalidRequest,
    Unauthorised,
    UnknownBackend,
    UnreadableImage,
)
from shared.gallery import Gallery, Picture
from shared.mcp import replies
from shared.mcp.access import Rules, owner
from shared.mcp.jobs import Job, Jobs
from shared.mcp.previews import fit
from shared.mcp.replies import Page, Report
from shared.mcp.schema import (
    WAIT,
    ImageId,
    JobId,
    PageSize,
    Seconds,
    Words,
)

_LOOK = 1.0  # seconds between two looks at whether the client is still there
_ENDING = 10.0  # seconds that a cancelled job gets to say that it has ended


class Backends(BaseModel):
    backends: tuple[BackendRow, ...]


class CheckpointRow(BaseModel):
    """What a client has to know of a checkpoint."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    description: str
    width: int
    height: int
    min_size: int
    max_size: int
    size_multiple: int = Field(description="of pixels; both sides are on this grid")
    steps: int
    guidance_scale: float
    scheduler: SchedulerName
    licence: Licence


class Checkpoints(BaseModel):
    default: str
    checkpoints: tuple[CheckpointRow, ...]


class Tools:
    """The seven tools over one router and one gallery; no answer is larger than `budget` bytes."""

    def __init__(self, router: Router, gallery: Gallery, budget: int, rules: Rules) -> None:
        self.jobs = Jobs(router, gallery)
        chosen = rules.choose_backend or router.name == AUTO
        names = (AUTO, *router.backends.listed, router.name) if chosen else (router.name,)
        self.backends = tuple(dict.fromkeys(names))
        """Those that a call may name."""
        self._router = router
        self._gallery = gallery
        self._budget = budget
        self._rules = rules

    async def generate_image(
        self, context: Context, backend: str = "", wait_seconds: float = WAIT, **fields: Any
    ) -> Annotated[CallToolResult, Report]:
        """Draws pictures from a prompt.

        Done in time, it answers with the pictures, where the originals are, their seeds and
        settings, and who drew them and why. If not, it answers with a job_id for get_job.
        """
        self._rules.limit(owner())
        given = {name: value for name, value in fields.items() if value is not None}
        name = self._router.name if backend == "" else backend
        self._check(name)
        if is_left_out(given.get("checkpoint")):
            given["checkpoint"] = self._router.backends.default_checkpoint(name)
        job = self.jobs.start(parse_request(given), name, owner())
        try:
            await _watch(job, wait_seconds, context)
        except BaseException:
            job.cancel()  # nobody was told its id
            raise
        if job.status == "failed" and job.error and not job.pictures:
            raise job.error
        return await self._answer(job, context)

    async def get_job(
        self, context: Context, job_id: JobId, wait_seconds: Seconds = WAIT
    ) -> Annotated[CallToolResult, Report]:
        """How far a job is; waits for its end for a while. Its pictures come when it is done."""
        job = self.jobs.find(job_id, owner())
        await _watch(job, wait_seconds, context)
        return await self._answer(job, context)

    async def cancel_job(
        self, context: Context, job_id: JobId
    ) -> Annotated[CallToolResult, Report]:
        """Stops a job before its next step. A job that has ended stays as it is."""
        job = self.jobs.find(job_id, owner())
        job.cancel()
        await _watch(job, _ENDING, context)
        return await self._answer(job, context)

    async def show_image(self, id: ImageId) -> CallToolResult:
        """The picture and nothing else, scaled down if it is too large for an answer."""
        picture = await asyncio.to_thread(self._gallery.picture, id, owner())
        data = await asyncio.to_thread(self._gallery.read, picture)
        preview = await asyncio.to_thread(fit, data, self._budget - replies.ENVELOPE)
        if preview is None:
            raise UnreadableImage("The picture does not fit an answer.", "Read its resource.")
        return replies.picture_answer(preview)

    async def list_images(
        self,
        context: Context,
        text: Words = "",
        limit: PageSize = 10,
        after: Annotated[str | None, WithJsonSchema({"type": "string", "maxLength": 40})] = None,
    ) -> Annotated[CallToolResult, Page]:
        """Searches the pictures that were made here, the newest first, with their settings."""
        if not self._rules.is_private:
            raise Unauthorised(
                "This server is open to strangers, so its pictures cannot be searched.",
                "Keep the ids that generate_image gives.",
            )
        found = await asyncio.to_thread(
            self._gallery.search, text, owner=owner(), limit=limit + 1, after=after
        )
        return replies.page_answer(found, _place(context), limit, self._budget)

    async def list_backends(self) -> Annotated[CallToolResult, Backends]:
        """Where pictures can be made: ready or not, warm or cold, expected wait, price."""
        rows = await self._router.statuses([name for name in self.backends if name != AUTO])
        return replies.data_answer(Backends(backends=tuple(rows)))

    async def list_checkpoints(self) -> Annotated[CallToolResult, Checkpoints]:
        """The models that can be asked for: sizes, steps and guidance they were made for, licence."""
        rows = tuple(CheckpointRow.model_validate(row) for row in CHECKPOINTS)
        default = self._router.backends.default_checkpoint(self._router.name)
        return replies.data_answer(Checkpoints(default=default, checkpoints=rows))

    def _check(self, backend: object) -> None:
        """Raises `UnknownBackend`, or `InvalidRequest` for what is no name at all."""
        choice = f"Choose one of {', '.join(self.backends)}."
        if not isinstance(backend, str):
            raise InvalidRequest("backend is not text.", choice, ("backend",))
        if backend not in self.backends:
            raise UnknownBackend(f"There is no backend named {backend[:60]!r}.", choice)

    async def _answer(self, job: Job, context: Context) -> CallToolResult:
        return await replies.job_answer(job, self._gallery, _place(context), self._budget)


async def _watch(job: Job, seconds: float, context: Context) -> None:
    """Report the job's progress until it ends or the time is up.

    Raises `Cancelled` if the client has gone: newer protocols cancel the call themselves, over the
    older HTTP one nobody tells.
    """
    deadline = time.monotonic() + seconds
    told, times = "", 0
    while not job.ended and (left := deadline - time.monotonic()) > 0:
        if (state := _state(job)) != told:
            # Each number has to be above the one before; those of the queue stay below 1.
            await context.report_progress(job.steps_done or times / (times + 1), job.steps, state)
            told, times = state, times + 1
        await job.change(min(left, _LOOK))
        if (http := _http(context)) and await http.is_disconnected():
            raise Cancelled("The client has gone.", "Call again.")


def _state(job: Job) -> str:
    if job.steps_done:
        return f"Step {job.steps_done} of {job.steps}"
    return f"Waiting behind {job.ahead}" if job.ahead else "Starting"


def _http(context: Context) -> Request | None:
    """The call's HTTP request, if it came over HTTP."""
    return context.request_context.request


def _place(context: Context) -> replies.Place:
    """Where this client finds an original: on its own disk, or at this server."""
    if not (http := _http(context)):
        return _path
    address = str(http.url.replace(query="")).rstrip("/")
    return lambda picture: f"{address}/images/{picture.path.name}"


def _path(picture: Picture) -> str:
    return str(picture.path.absolute())
