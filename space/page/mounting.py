"""Puts the page into an app, at its root, behind its guard."""

from __future__ import annotations

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
from space.page import examples
from space.page.guard import Guard
from space.page.layout import create_page
from space.page.theme import STYLE, CygnetTheme
from space.page.workshop import Workshop

HEAD = Path(__file__).parent / "head.html"


def mount_page(app: FastAPI, backend: Backend, gallery: Gallery, options: ApiOptions) -> None:
    """Serve the page at `/`, behind the routes that `app` has already."""
    workshop = Workshop(backend, gallery, app.state.rate_limit.take)  # the API's, not one more
    page = create_page(workshop, options.concurrency, options.max_queued)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=CygnetTheme(),
        css_paths=[STYLE],
        head_paths=[HEAD],
        allowed_paths=[str(examples.FOLDER)],
        max_file_size=MAX_FILE_BYTES,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
    )
    gradio_mount = app.router.routes.pop()
    assert isinstance(gradio_mount, Mount)
    guard = Guard(gradio_mount.app, options)
    app.router.routes.append(_PageMount("/", guard))
    app.state.on_stop.append(guard.stop)


class _PageMount(Mount):
    """Everything but what belongs to the API, which has its own way to say that nothing is there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if is_for_the_api(scope.get("path", "")):
            return Match.NONE, {}
        return super().matches(scope)
