"""A backend that draws without a model: for tests, and to try a door on a machine without torch.

It has the same signature as the real ones and sends the same events; the same request gives the
same picture. What it draws has nothing to do with the prompt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

from PIL import Image, ImageDraw

from shared.checkpoints import checkpoint_names
from shared.contract import (
    BackendStatus,
    Done,
    Event,
    GenerationRequest,
    GenerationResult,
    ImageReady,
    Queued,
    Step,
    Timings,
)
from shared.images import encode_image, preview_jpeg


class FakeBackend:
    """Draws coloured discs. `before_event` sees each event first, and may raise in its place."""

    name = "fake"

    def __init__(self, before_event: Callable[[Event], None] | None = None) -> None:
        self._before_event = before_event

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        async for event in _events(request):
            if self._before_event:
                self._before_event(event)
            await asyncio.sleep(0)  # lets a cancellation in, as waiting for a real step does
            yield event

    async def status(self) -> BackendStatus:
        return BackendStatus(
            name=self.name, healthy=True, warm=True, checkpoints=checkpoint_names()
        )

    async def aclose(self) -> None:
        pass


async def _events(request: GenerationRequest) -> AsyncGenerator[Event, None]:
    yield Queued(position=0)
    requests = [request.for_image(index) for index in range(request.num_images)]
    for index, one in enumerate(requests):
        image = draw(one.seed, one.width, one.height)
        preview = preview_jpeg(image)
        for step in range(1, one.steps + 1):
            yield Step(index=index, step=step, steps=one.steps, preview=preview)
        yield ImageReady(index=index, seed=one.seed, image=encode_image(image, one, None))
    yield Done(
        result=GenerationResult(
            request=request,
            seeds=tuple(one.seed for one in requests),
            timings=Timings(),
            device="none",
            backend=FakeBackend.name,
        )
    )


def draw(seed: int, width: int, height: int) -> Image.Image:
    """An RGB picture of twelve discs, the same for the same seed and size."""
    dice = random.Random(seed)
    image = Image.new("RGB", (width, height), _colour(dice))
    canvas = ImageDraw.Draw(image)
    for _ in range(12):
        radius = dice.uniform(0.05, 0.3) * min(width, height)
        centre = (dice.uniform(0, width), dice.uniform(0, height))
        canvas.circle(centre, radius, fill=_colour(dice))
    return image


def _colour(dice: random.Random) -> tuple[int, int, int]:
    return dice.randrange(256), dice.randrange(256), dice.randrange(256)
