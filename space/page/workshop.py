"""What every part of the page works with: a backend, a gallery, and how fast it has been."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from shared.backends import Backend
from shared.contract import Done, Event, GenerationRequest, GenerationResult
from shared.errors import CygnetError, InternalError
from shared.gallery import Gallery, Picture
from shared.images import SUFFIXES
from shared.outputs import slug
from space.page.pace import Pace

log = logging.getLogger(__name__)


class Workshop:
    """Draws, keeps, and measures. The gallery may fail; a picture is shown all the same."""

    def __init__(self, backend: Backend, gallery: Gallery) -> None:
        self.backend = backend
        self.gallery = gallery
        self.pace = Pace()
        self.files: set[str] = set()
        """Those that Gradio serves, and deletes when they are a day old."""

    async def events(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The backend's, until the work is done. Raises `CygnetError` for whatever goes wrong."""
        try:
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

    def file(self, image: bytes, request: GenerationRequest) -> str:
        """Where Gradio serves the file `image` from, byte for byte; it is named after its prompt."""
        name = f"{slug(request.prompt)}-{request.seed}{SUFFIXES[request.output_format]}"
        path = save_bytes_to_cache(image, name, get_upload_folder())
        self.files.add(path)
        return path
