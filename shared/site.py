"""A site: the HTTP API and, where their packages are installed, MCP at `/mcp` and the page at `/`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import FastAPI

from shared.api import ApiOptions, create_api
from shared.backends import Backend
from shared.backends.router import Router
from shared.files import check_folder, make_folder_private
from shared.gallery import Gallery
from shared.store import Store

_OURS = {"calls.sqlite3", "gallery", "images", "jobs.sqlite3", "page"}
"""What there is in a data folder."""


def create_site(backend: Backend, folder: Path, options: ApiOptions | None = None) -> FastAPI:
    """An ASGI app with everything that a browser and a client ask for; it closes the backend.

    Its jobs and the pictures of its page are kept in `folder`. Raises what a folder may raise.
    """
    options = options or ApiOptions()
    _claim(folder)
    # Jobs and the gallery each keep pictures of their own: together what the operator allows. What
    # the page keeps for a while is part of the gallery's half.
    options = dataclasses.replace(options, keep_bytes=options.keep_bytes // 2)
    passing = options.keep_bytes // 4
    site = create_api(backend, Store(folder), options)
    gallery = Gallery(folder / "gallery", options.keep_bytes - passing)
    make_folder_private(folder / "gallery")
    if _has_mcp() and isinstance(backend, Router):  # its callers choose one
        from shared.mcp.http import HttpOptions, mount_mcp

        mount_mcp(site, backend, gallery, HttpOptions(options.keys, options.hosts, options.origins))
    if importlib.util.find_spec("gradio"):  # last, for it answers to every path
        # Gradio makes a folder there when it is imported, and nobody else's business is that either.
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "page")
        from space.page.files import Limits, PageFiles
        from space.page.mounting import mount_page

        mount_page(site, backend, gallery, PageFiles(folder / "page", Limits(passing)), options)
    return site


def _claim(folder: Path) -> None:
    """Close `folder` to everybody else, also if it was there before with nothing but our own in it."""
    check_folder(folder, private=True)
    if {path.name.partition("-")[0] for path in folder.iterdir()} <= _OURS:
        make_folder_private(folder)


def _has_mcp() -> bool:
    """Whether MCP can be served: the package is there, and not the older one that Spaces install."""
    with contextlib.suppress(PackageNotFoundError):
        return int(version("mcp").partition(".")[0]) >= 2
    return False
