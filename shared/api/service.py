"""`/healthz`, `/readyz`, `/metrics` and `/v1/models`: what a load balancer and a client ask first."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from shared.api.job_service import JobService
from shared.api.metrics import Metrics
from shared.api.openai_models import OpenAIModels
from shared.api.problems import documented
from shared.api.schemas import TEXT
from shared.api.security import Jobs, Owner
from shared.api.views import Health, ModelList, ModelView, Readiness, model_view
from shared.checkpoints import Checkpoint, get_checkpoint
from shared.errors import NotFound, UnknownCheckpoint

router = APIRouter(tags=["service"])


@router.get("/healthz", response_model=Health)
async def healthz() -> Health:
    """Whether the process answers. Asks nothing of a GPU."""
    return Health()


@router.head("/healthz", response_class=Response)
async def healthz_head() -> None:
    """The same, without a body."""


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def readyz(jobs: Jobs, response: Response) -> Readiness:
    """Whether a request would start at once: 200 if so, else 503."""
    status = await jobs.status()
    ready = status.healthy and status.warm
    if not ready:
        response.status_code = 503
    load = await jobs.load()
    return Readiness(
        ready=ready,
        detail=status.detail or ("" if ready else "The checkpoint is not loaded."),
        queued=load.queued,
        running=load.running,
    )


@router.head(
    "/readyz", response_class=Response, responses={503: {"description": "a request would wait"}}
)
async def readyz_head(jobs: Jobs, response: Response) -> None:
    """The same, without a body."""
    await readyz(jobs, response)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "numbers", "content": {"text/plain": TEXT}}, **documented()},
)
async def metrics(request: Request, owner: Owner, jobs: Jobs) -> Response:
    """Numbers for Prometheus: calls and jobs by outcome, the queue, batches, steps, phases, memory."""
    told: Metrics = request.app.state.metrics
    text = told.exposition(await jobs.load(), await jobs.status())
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", response_model=ModelList, responses=documented())
async def list_models(request: Request, owner: Owner, jobs: Jobs) -> ModelList:
    """The checkpoints that can be asked for, and the names of OpenAI's that some answer to."""
    served = await _checkpoints(jobs)
    own = [model_view(checkpoint) for checkpoint in served]
    models: OpenAIModels = request.app.state.openai_models
    others = [model_view(one, name) for name, one in models.listed() if one in served]
    return ModelList(data=own + others)


@router.get("/v1/models/{model}", response_model=ModelView, responses=documented(404))
async def get_model(request: Request, model: str, owner: Owner, jobs: Jobs) -> ModelView:
    """One checkpoint, under its own name or one of OpenAI's that it answers to."""
    models: OpenAIModels = request.app.state.openai_models
    wanted = models.mapped(model)
    for checkpoint in await _checkpoints(jobs):
        if checkpoint == wanted or checkpoint.name == model:
            return model_view(checkpoint, model)
    raise NotFound(
        f"There is no model named {model[:100]!r} here.", "Choose one of those at GET /v1/models."
    )


async def _checkpoints(jobs: JobService) -> list[Checkpoint]:
    names = (await jobs.status()).checkpoints
    known = []
    for name in names:
        with contextlib.suppress(UnknownCheckpoint):  # a newer server's, behind this one
            known.append(get_checkpoint(name))
    return known
