"""To draw: the form becomes a request, the backend's events become the stage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from shared.contract import GenerationRequest, ImageReady, parse_request, random_seed
from shared.errors import CygnetError
from space.page import form
from space.page.markup import Shown, error_notice, notice
from space.page.pacing import gathered
from space.page.stage import Stage
from space.page.visitor import owner_of
from space.page.workshop import Workshop

Shows = AsyncGenerator[tuple[Any, Any, Any], None]
"""The stage, the notice and the seed, each time they change."""


def drawing(workshop: Workshop) -> Any:
    """The page's handler: yields what changes until the work is done, or an error told."""

    async def draw(browser: gr.Request, token: str, lock: bool, *values: Any) -> Shows:
        try:
            fields = form.read(values)
            if not lock or fields["seed"] is None:
                fields["seed"] = random_seed()
            request = parse_request(fields)
            async with aclosing(_draw(workshop, request, browser, token)) as shows:
                async for show in shows:
                    yield show
        except CygnetError as error:
            yield gr.skip(), error_notice(error), gr.skip()

    return draw


async def _draw(
    workshop: Workshop, request: GenerationRequest, browser: gr.Request, token: str
) -> Shows:
    owner = owner_of(browser, token)
    stage = Stage(request)
    images: dict[int, bytes] = {}
    yield stage.html(), "", request.seed
    async with (
        aclosing(workshop.events(request, browser)) as events,
        aclosing(gathered(events, stage.pause)) as groups,
    ):
        async for group in groups:
            for event in group:
                if isinstance(event, ImageReady):
                    images[event.index] = event.image
                    stage.shown[event.index] = await _shown(
                        workshop, event, request, browser, owner
                    )
                stage.follow(event)
            yield stage.html(), gr.skip(), gr.skip()
    kept = [await workshop.keep(image, owner, stage.result) for image in images.values()]
    if not all(kept):
        yield gr.skip(), notice(NOT_KEPT), gr.skip()


NOT_KEPT = (
    "The history could not keep this picture. Download it, and free some space on the server."
)


async def _shown(
    workshop: Workshop,
    event: ImageReady,
    request: GenerationRequest,
    browser: gr.Request,
    owner: str,
) -> Shown:
    """The finished image, on the disk before it is shown, so that a stop loses nothing."""
    picture = await workshop.keep(event.image, owner)
    alone = request.for_image(event.index)
    key = picture.id if picture else ""
    return Shown(alone, await workshop.source(event.image, alone, browser, [key]), key)
