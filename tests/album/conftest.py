"""What the tests of `cygnet gallery` share: folders of pictures, and a browser to look at them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.backends.fake import draw
from shared.batch.manifest import Entry
from shared.contract import parse_request
from shared.formats import SUFFIXES
from shared.images import encode_image
from tests.chromium import browser

Put = Callable[..., Path]

__all__ = ["browser"]


def put(folder: Path, name: str, **fields: Any) -> Path:
    """A picture with its recipe inside, as a file."""
    request = parse_request({"prompt": "a fox", "seed": 7} | fields)
    path = folder / f"{name}{SUFFIXES[request.output_format]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = draw(request.seed, request.width, request.height)
    path.write_bytes(encode_image(image, request, None))
    return path


def line(number: int, file: str | None, **fields: Any) -> str:
    """A line of a manifest."""
    request = {"prompt": "a fox", "seed": 7, "steps": 20, "guidance_scale": 3.0}
    entry = Entry(
        number=number,
        line=number,
        status="done",
        file=file,
        seed=7,
        request=request,
        attempts=1,
        finished="2026-01-01T00:00:00+00:00",
    )
    return entry.model_copy(update=fields).model_dump_json() + "\n"
