"""Puts the API together: routes, errors, and the life of the jobs behind them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from shared import __version__
from shared.api import images, openai, service
from shared.api import jobs as job_routes
from shared.api.job_service import JobService
from shared.api.metrics import Metrics
from shared.api.openai_answers import schemas as event_schemas
from shared.api.openai_models import OpenAIModels
from shared.api.options import ApiOptions
from shared.api.origins import check_origins
from shared.api.problems import add_handlers
from shared.api.problems import schemas as problem_schemas
from shared.api.rate_limit import RateLimit
from shared.api.request_log import RequestLog
from shared.api.runner import Runner
from shared.backends import Backend
from shared.errors import BackendUnavailable
from shared.settings import settings
from shared.store import Store


def create_api(backend: Backend, store: Store, options: ApiOptions | None = None) -> FastAPI:
    """An ASGI app that runs its jobs on `backend` and keeps them in `store`; it closes both."""
    options = options or ApiOptions()
    metrics = Metrics()
    return create_app(Runner(backend, store, options, metrics), options, metrics)


def create_app(jobs: JobService, options: ApiOptions, metrics: Metrics | None = None) -> FastAPI:
    """The same over anything that keeps and runs jobs; it starts and closes that.

    `metrics`: what `jobs` counts in, if it does.
    """
    metrics = metrics or Metrics()
    app = FastAPIOffline(
        title="Cygnet",
        version=__version__,
        description="A prompt in, a picture out.",
        lifespan=_lifespan,
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": "none"},  # else it asks swagger.io
    )
    app.state.jobs = jobs
    app.state.options = options
    app.state.metrics = metrics
    app.state.openai_models = OpenAIModels(settings().openai_models)
    app.state.rate_limit = RateLimit(options.requests_per_minute)
    app.state.on_stop = []  # what ends the streams of those who share this app
    for router in (openai.router, job_routes.router, images.router, service.router):
        app.include_router(router)
    add_handlers(app)
    _complete_description(app)
    check_origins(app, options.hosts, options.origins)
    app.add_middleware(RequestLog, metrics)
    return app


def create_refusal(message: str, next_step: str) -> FastAPI:
    """An ASGI app in the place of one that may not serve: it says why, to every call."""
    app = FastAPI(openapi_url=None)

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def refuse(path: str) -> None:
        raise BackendUnavailable(message, next_step)

    add_handlers(app)
    app.add_middleware(RequestLog, Metrics())
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    jobs: JobService = app.state.jobs
    await jobs.start()
    try:
        yield
    finally:
        await jobs.aclose()


def _complete_description(app: FastAPI) -> None:
    """In the OpenAPI document, put our problems in place of FastAPI's own errors, and add the events.

    Those errors it gives to every route with a parameter, even where none can be refused; and it says
    that a key is asked for, even where there is none.
    """
    describe = app.openapi
    keyless = not app.state.options.keys

    def complete() -> dict[str, Any]:
        document = describe()
        schemas = document["components"]["schemas"]
        schemas |= problem_schemas() | event_schemas()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        if keyless:
            document["components"].pop("securitySchemes", None)
        for path in document["paths"].values():
            for operation in path.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
                if keyless:
                    operation.pop("security", None)
        return document

    app.openapi = complete
