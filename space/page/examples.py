"""Pictures that are there at once: made beforehand with cygnet-tiny, their settings inside.

`python -m space.page.examples` makes them anew.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from shared.contract import GenerationRequest, collect, parse_request
from shared.errors import NotFound
from shared.images import read_recipe
from space.page.markup import Shown, thumbnails

FOLDER = Path(__file__).parent / "examples"
FILES = tuple(sorted(FOLDER.glob("*.webp")))
_ADDRESS = "examples/"

_WISHES = (
    ("a red fox, 3d render, on a sky blue background", 4),
    ("a cup of coffee, flat design, on a yellow background", 1),
    ("a rocket, 3d render, on a dark blue background", 8),
    ("a tulip, flat design, on a pink background", 5),
    ("a strawberry, sticker, on a white background", 1),
    ("a guitar, 3d render, on a purple background", 1),
)


def examples() -> list[Shown]:
    """The pictures with their requests, in the order of their names."""
    return [
        Shown(parse_request(read_recipe(file).fields), f"{_ADDRESS}{file.name}", file.stem)
        for file in FILES
    ]


def find(key: str) -> Shown:
    """The one of that name. Raises `NotFound`."""
    for shown in examples():
        if shown.key == key:
            return shown
    raise NotFound("There is no such example.", "Load the page again.")


def path(address: str) -> Path | None:
    """The file of an example's address, None for any other."""
    return next((file for file in FILES if address == f"{_ADDRESS}{file.name}"), None)


def buttons() -> str:
    """A row of them to press."""
    row = thumbnails(((shown, shown.file) for shown in examples()), act="example")
    return f'<h2>Made beforehand</h2><div class="strip">{row}</div>'


async def main() -> None:
    from shared.backends.local import LocalBackend

    backend = LocalBackend()
    FOLDER.mkdir(exist_ok=True)
    for number, (prompt, seed) in enumerate(_WISHES, 1):
        fields = {"prompt": prompt, "seed": seed, "output_format": "webp"}
        request: GenerationRequest = parse_request(fields | {"checkpoint": "cygnet-tiny"})
        _, [image] = await collect(backend.generate(request))
        (FOLDER / f"{number}.webp").write_bytes(image)
    await backend.aclose()


if __name__ == "__main__":
    asyncio.run(main())
