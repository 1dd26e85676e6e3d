"""Puts the page into an app, at its root, behind its guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Match, Mount
from starlette.types import Scope

from shared.api import ApiOptions
from shared.api.unknown_calls import is_for_the_api
from shared.backends import Backend
from shared.gallery import Gallery
from shared.images import MAX_FILE_BYTES
from space.page.answers import tell_in_our_words
from space.page.files import PageFiles
from space.page.guard import Guard
from space.page.layout import create_page
from space.page.theme import STYLE, CygnetTheme
from space.page.workshop import Workshop

HEAD = Path(__file__).parent / "head.html"


_SWEEP_SECONDS = 20.0


def mount_page(
    app: FastAPI, backend: Backend, gallery: Gallery, files: PageFiles, options: ApiOptions
) -> None:
    """Serve the page at `/`, behind the routes that `app` has already."""
    workshop = Workshop(backend, gallery, files, app.state.rate_limit.take)  # the API's limit
    page = create_page(workshop, options.concurrency, options.max_queued)
    tell_in_our_words(page, files.folder)
    for block in page.blocks.values():
        block.GRADIO_CACHE = str(
            files.folder
        )  # what lies there is not copied before it is given out
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=CygnetTheme(),
        css_paths=[STYLE],
        head_paths=[HEAD],
        allowed_paths=[str(files.folder)],
        max_file_size=MAX_FILE_BYTES,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
    )
    page.has_launched = True  # else Gradio checks no path, neither a client's nor ours
    with contextlib.suppress(OSError):  # Gradio's, open to all, and nothing comes into it
        (files.folder / "vibe_edit_history").rmdir()
    gradio_mount = app.router.routes.pop()
    assert isinstance(gradio_mount, Mount)
    guard = Guard(gradio_mount.app, page, files, options)
    app.router.routes.append(_PageMount("/", guard))
    app.state.on_stop.append(guard.stop)
    _keep_tidy(app, page, files)


def _keep_tidy(app: FastAPI, page: gr.Blocks, files: PageFiles) -> None:
    """While `app` runs, what has had its time is deleted, and in the end all."""
    lifespan = app.router.lifespan_context

    async def sweep() -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await asyncio.to_thread(files.sweep)
            for names in page.temp_file_sets:  # Gradio's own list of files, which would only grow
                names.clear()

    @contextlib.asynccontextmanager
    async def tidied(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(sweep())
        try:
            async with lifespan(app):
                yield
        finally:
            sweeping.cancel()
            await asyncio.to_thread(files.clear)

    app.router.lifespan_context = tidied


class _PageMount(Mount):
    """Everything but what belongs to the API, which has its own way to say that nothing is there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if is_for_the_api(scope.get("path", "")):
            return Match.NONE, {}
        return super().matches(scope)
