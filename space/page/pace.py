"""How long work takes, learned from the work that was done. Knows no one's pictures.

The time for one image grows linearly with its steps, its pixels, and the rows of a forward (two with
guidance). Before anything was measured there is no estimate.
"""

from __future__ import annotations

from shared.contract import GenerationRequest, GenerationResult


class Pace:
    """Seconds and dollars for one unit of work, by checkpoint, as last measured."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._dollars: dict[str, float] = {}

    def learn(self, result: GenerationResult) -> None:
        units = work(result.request)
        timings = result.timings
        self._seconds[result.request.checkpoint] = (
            timings.encoding + timings.denoising + timings.decoding
        ) / units
        if result.cost_usd is not None:
            self._dollars[result.request.checkpoint] = result.cost_usd / units

    def seconds(self, request: GenerationRequest) -> float | None:
        """What the request would take alone, without waiting and loading; None if unknown."""
        each = self._seconds.get(request.checkpoint)
        return None if each is None else each * work(request)

    def dollars(self, request: GenerationRequest) -> float | None:
        each = self._dollars.get(request.checkpoint)
        return None if each is None else each * work(request)


def work(request: GenerationRequest) -> float:
    """Megapixels through the transformer: of every image, at every step, in every row."""
    rows = 2 if request.guidance_scale > 1 else 1
    pixels = request.width * request.height
    return rows * request.steps * request.num_images * pixels / 1e6
