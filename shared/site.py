"""A site: the HTTP API and, where Gradio is installed, the page at `/`, in one process."""

from __future__ import annotations

import importlib.util

from fastapi import FastAPI

from shared.api import ApiOptions, create_api
from shared.backends import Backend
from shared.store import Store


def create_site(backend: Backend, store: Store, options: ApiOptions | None = None) -> FastAPI:
    """An ASGI app with everything that a browser and a client ask for; it closes what it is given."""
    options = options or ApiOptions()
    site = create_api(backend, store, options)
    if importlib.util.find_spec("gradio"):
        from space.page import mount_page

        mount_page(site, backend, options)
    return site
