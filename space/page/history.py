"""The history: the visitor's own pictures in the gallery, found by their words."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import gradio as gr

from shared.contract import GenerationRequest, parse_request
from shared.errors import CygnetError, InvalidRequest, NotFound, UnreadableImage
from shared.gallery import Picture
from shared.images import thumbnail
from space.page import stage
from space.page.markup import Shown, error_notice, notice, pressed, thumbnails
from space.page.visitor import key_of, owner_of
from space.page.workshop import Workshop

PAGE = 48
STRIP = 12
_SIDE = 256  # pixels of a thumbnail
_MOST_SMALL = 10_000  # thumbnails that are remembered


class History:
    """The handlers of one gallery."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._gallery = workshop.gallery
        self._small: dict[tuple[str, str], str] = {}

    async def strip(self, browser: gr.Request, token: str) -> str:
        """The newest pictures, for the row under the stage."""
        return await asyncio.to_thread(self._strip, browser, owner_of(browser, token))

    async def search(
        self, browser: gr.Request, token: str, text: str, limit: int
    ) -> tuple[str, gr.Button, int]:
        """The pictures that have every word of `text`, whether there may be more, and `limit`."""
        owner = owner_of(browser, token)
        found = await asyncio.to_thread(self._search, browser, owner, text or "", limit)
        return *found, limit

    async def search_more(
        self, browser: gr.Request, token: str, text: str, limit: int
    ) -> tuple[str, gr.Button, int]:
        return await self.search(browser, token, text, limit + PAGE)

    async def show(self, browser: gr.Request, token: str, event: gr.EventData) -> tuple[Any, Any]:
        """The stage with the picture that was pressed, and a notice."""
        try:
            owner = owner_of(browser, token)
            key = pressed(event, "key")
            shown, note = await asyncio.to_thread(self._shown, browser, key, owner)
        except CygnetError as error:
            return gr.skip(), error_notice(error)
        return stage.show(shown, note), ""

    async def remove(self, browser: gr.Request, token: str, event: gr.EventData) -> tuple[Any, Any]:
        """An empty stage once the picture is gone, and a notice."""
        try:
            owner = owner_of(browser, token)
            await asyncio.to_thread(self._workshop.remove, pressed(event, "key"), owner, browser)
        except CygnetError as error:
            return gr.skip(), error_notice(error)
        return stage.EMPTY, notice("The picture was removed from the history.")

    def _strip(self, browser: gr.Request, owner: str) -> str:
        try:
            found = thumbnails(self._thumbnails(browser, owner, "", STRIP))
        except CygnetError as error:
            return error_notice(error)
        return f'<h2>Earlier</h2><div class="strip">{found}</div>' if found else ""

    def _search(
        self, browser: gr.Request, owner: str, text: str, limit: int
    ) -> tuple[str, gr.Button]:
        try:
            found = self._thumbnails(browser, owner, text, limit)
        except CygnetError as error:
            return error_notice(error), gr.Button(visible=False)
        if not found:
            none = "No picture has all these words." if text.strip() else "No pictures yet."
            return f'<p class="none" role="status">{none}</p>', gr.Button(visible=False)
        wall = f'<div class="wall">{thumbnails(found)}</div>'
        return wall, gr.Button(visible=len(found) == limit)

    def _thumbnails(
        self, browser: gr.Request, owner: str, text: str, limit: int
    ) -> list[tuple[Shown, str]]:
        found = []
        for picture in self._gallery.search(text, owner=owner, limit=limit):
            try:
                shown = Shown(parse_request(picture.request), "", picture.id)
                found.append((shown, self._thumbnail(browser, picture, shown.request)))
            except (NotFound, InvalidRequest, UnreadableImage):
                continue  # its file was deleted or damaged, or its checkpoint is no longer known
        return found

    def _thumbnail(self, browser: gr.Request, picture: Picture, request: GenerationRequest) -> str:
        """The file of a small picture, made once and again when it has had its time."""
        kept = (key_of(browser), picture.id)
        file = self._small.get(kept)
        if file is None or not self._workshop.files.has(file):
            small = thumbnail(self._gallery.read(picture), _SIDE)
            jpeg = request.model_copy(update={"output_format": "jpeg"})
            file = self._workshop.file(small, jpeg, browser, [picture.id])
            self._small[kept] = file
            if len(self._small) > _MOST_SMALL:
                self._small.pop(next(iter(self._small)), None)
        return file

    def _shown(self, browser: gr.Request, key: str, owner: str) -> tuple[Shown, str]:
        picture = self._gallery.picture(key, owner)
        request = parse_request(picture.request)
        file = self._workshop.file(self._gallery.read(picture), request, browser, [key])
        return Shown(request, file, picture.id), _note(picture)


def _note(picture: Picture) -> str:
    made = datetime.datetime.fromtimestamp(picture.created, datetime.UTC)
    by = f" by {picture.backend} on {picture.device}" if picture.backend else ""
    spent = f" in {picture.seconds:.1f} s" if picture.seconds is not None else ""
    return f"Made{by}{spent}, {made:%Y-%m-%d %H:%M} UTC."
