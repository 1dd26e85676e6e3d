"""Puts the page into an app, at its root."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from shared.api import ApiOptions
from shared.backends import Backend
from space.page.layout import create_page


def mount_page(app: FastAPI, backend: Backend, options: ApiOptions) -> None:
    """Serve the page at `/`, behind the routes that `app` has already."""
    page = create_page(backend, options.concurrency, options.max_queued)
    gr.mount_gradio_app(
        app, page, path="/", footer_links=[], run_history=False, ssr_mode=False, show_error=True
    )
