"""What is where on the page."""

from __future__ import annotations

import gradio as gr

from shared.backends import Backend
from space.page.endpoint import add_endpoint


def create_page(backend: Backend, concurrency: int = 16, max_queued: int = 64) -> gr.Blocks:
    """The page over `backend`: so many generations at once, and so many waiting."""
    with gr.Blocks(title="Cygnet", analytics_enabled=False) as page:
        gr.Markdown("# Cygnet")
        add_endpoint(page, backend, concurrency)
    return page.queue(max_size=max_queued)
