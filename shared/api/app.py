"""Puts the API together: routes, errors, and the life of the runner behind them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from shared import __version__
from shared.api import images, jobs, openai, service
from shared.api.options import ApiOptions
from shared.api.problems import Problem, add_handlers
from shared.api.runner import Runner
from shared.api.security import RequestId
from shared.backends import Backend
from shared.checkpoints import get_checkpoint
from shared.contract import collect, parse_request
from shared.errors import CygnetError
from shared.settings import settings
from shared.store import Store

log = logging.getLogger(__name__)


def create_api(backend: Backend, store: Store, options: ApiOptions | None = None) -> FastAPI:
    """An ASGI app that runs its jobs on `backend` and keeps them in `store`; it closes both."""
    runner = Runner(backend, store, options or ApiOptions())
    app = FastAPI(
        title="Cygnet",
        version=__version__,
        description="A prompt in, a picture out.",
        lifespan=_lifespan,
        redoc_url=None,
    )
    app.state.runner = runner
    for router in (openai.router, jobs.router, images.router, service.router):
        app.include_router(router)
    add_handlers(app)
    _describe_problems(app)
    if runner.options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=runner.options.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["Location", "Retry-After", "X-Request-Id"],
        )
    app.add_middleware(RequestId)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    runner: Runner = app.state.runner
    runner.start()
    warming = asyncio.create_task(_warm_up(runner))
    try:
        yield
    finally:
        warming.cancel()
        await runner.stop()
        await asyncio.gather(warming, return_exceptions=True)
        await runner.backend.aclose()
        runner.store.close()


async def _warm_up(runner: Runner) -> None:
    if not runner.options.warm_up:
        return
    side = get_checkpoint(settings().checkpoint).min_size
    smallest = {"prompt": "a swan", "steps": 1, "width": side, "height": side}
    try:
        await collect(runner.backend.generate(parse_request(smallest)))
    except CygnetError as error:  # each request will get it too
        log.error("the checkpoint could not be loaded: %s", error)


def _describe_problems(app: FastAPI) -> None:
    """In the OpenAPI document, put our problems in place of FastAPI's own errors.

    Those it gives to every route with a parameter, even where none can be refused.
    """
    describe = app.openapi

    def with_problems() -> dict[str, Any]:
        document = describe()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        return document

    app.openapi = with_problems
