"""A site: the HTTP API and, where Gradio is installed, the page at `/`, in one process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import FastAPI

from shared.api import ApiOptions, create_api
from shared.backends import Backend
from shared.gallery import Gallery
from shared.store import Store


def create_site(backend: Backend, folder: Path, options: ApiOptions | None = None) -> FastAPI:
    """An ASGI app with everything that a browser and a client ask for; it closes the backend.

    Its jobs and the pictures of its page are kept in `folder`. Raises what a folder may raise.
    """
    options = options or ApiOptions()
    site = create_api(backend, Store(folder), options)
    if importlib.util.find_spec("gradio"):
        from space.page.mounting import mount_page

        mount_page(site, backend, Gallery(folder / "gallery", options.keep_bytes), options)
    return site
