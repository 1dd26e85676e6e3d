"""What every part of the page works with: a backend, a gallery, and how fast it has been."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

import gradio as gr

from shared.backends import Backend
from shared.contract import Done, Event, GenerationRequest, GenerationResult
from shared.errors import CygnetError, InternalError
from shared.formats import SUFFIXES, media_type
from shared.gallery import Gallery, Picture
from shared.outputs import slug
from space.page.files import PageFiles
from space.page.pace import Pace
from space.page.visitor import key_of

log = logging.getLogger(__name__)


class Workshop:
    """Draws, keeps, and measures. The gallery may fail; a picture is shown all the same.

    `limit` counts a request for a key, and raises `RateLimited`.
    """

    def __init__(
        self, backend: Backend, gallery: Gallery, files: PageFiles, limit: Callable[[str], None]
    ) -> None:
        self.backend = backend
        self.gallery = gallery
        self.files = files
        self._limit = limit
        self.pace = Pace()

    def count(self, browser: gr.Request) -> None:
        """Count a request of the caller's. Raises `RateLimited`."""
        self._limit(key_of(browser))

    async def events(
        self, request: GenerationRequest, browser: gr.Request
    ) -> AsyncGenerator[Event, None]:
        """The backend's, until the work is done. Raises `CygnetError` for whatever goes wrong."""
        try:
            self.count(browser)
            async with aclosing(self.backend.generate(request)) as events:
                async for event in events:
                    yield event
                    if isinstance(event, Done):
                        self.pace.learn(event.result)
                        return
        except CygnetError:
            raise
        except Exception as fault:
            log.exception("a generation failed")
            message = f"Something behind the page failed ({type(fault).__name__})."
            raise InternalError(message, "Try again; the server's log has the cause.") from fault
        raise InternalError("The backend stopped before the work was done.", "Try again.")

    async def keep(
        self, image: bytes, owner: str, result: GenerationResult | None = None
    ) -> Picture | None:
        """The picture in the gallery, or None if it could not be kept."""
        try:
            return await asyncio.to_thread(self.gallery.add, image, result, owner)
        except CygnetError as error:
            log.error("a picture could not be kept: %s", error)
            return None

    def remove(self, key: str, owner: str, browser: gr.Request) -> None:
        """Take a picture out of the gallery, and delete what the page has of it. Raises `NotFound`."""
        self.gallery.remove(key, owner)
        self.files.forget(key, key_of(browser))

    def file(
        self,
        image: bytes,
        request: GenerationRequest,
        browser: gr.Request,
        about: Collection[str] = (),
    ) -> str:
        """Where this browser may fetch the file `image`, byte for byte, for a while.

        `about` are the ids in the gallery of the pictures in it. Raises `DiskFull` or
        `OutputUnwritable`.
        """
        return self.files.add(image, file_name(request), key_of(browser), about)

    async def source(
        self,
        image: bytes,
        request: GenerationRequest,
        browser: gr.Request,
        about: Collection[str] = (),
    ) -> str:
        """Where the page has a new picture from: that file or, without room for one, itself."""
        try:
            return await asyncio.to_thread(self.file, image, request, browser, about)
        except CygnetError as error:
            log.error("a picture could not be served as a file: %s", error)
            kind = media_type(request.output_format)
            return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def file_name(request: GenerationRequest) -> str:
    """After its prompt and its seed."""
    return f"{slug(request.prompt)}-{request.seed}{SUFFIXES[request.output_format]}"
