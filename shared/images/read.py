"""Reads the recipe out of a picture's file.

Our own JSON is taken whole. The text of another program is a recipe only if it has that program's form;
anything else that a camera, a phone or a person wrote into the file is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.errors import NoRecipeInImage
from shared.images.a1111 import parse_a1111
from shared.images.comfyui import parse_graph
from shared.images.container import opened
from shared.images.limits import AT_ONCE, MAX_JSON, MAX_TEXT, unreadable
from shared.images.recipe import Recipe, Stored
from shared.images.settings import as_object, parse_dream, parse_settings
from shared.images.texts import OF_ANYTHING, Texts, read_texts


def read_recipe(source: bytes | Path) -> Recipe:
    """The recipe inside a PNG, WebP or JPEG file, ours where there is one, else another program's.

    Raises `UnreadableImage` if the file is missing, damaged or too large, `NoRecipeInImage` if the
    picture is fine but says nothing about how it was made.
    """
    with AT_ONCE, opened(source) as file:
        texts = read_texts(file)
        if texts.ours_fault:
            raise unreadable(texts.ours_fault)
        if texts.ours is not None:
            return _ours(texts.ours)
        if recipe := next(_foreign(texts), None):
            return recipe
    if texts.faults:
        raise unreadable(texts.faults[0])
    raise NoRecipeInImage(
        "The picture does not say how it was made.",
        "Choose one as Cygnet or another image generator wrote it, that was not edited or sent through "
        "a messenger since.",
    )


def _ours(stored: str) -> Recipe:
    try:
        ours = Stored.model_validate_json(stored)
    except ValidationError:
        raise unreadable("its settings are damaged, or from another version") from None
    return Recipe("cygnet", ours.request, ours.revision)


def _foreign(texts: Texts) -> Iterator[Recipe]:
    """The recipes of other programs, the surest first."""
    for name, text in texts.named.items():
        recipe = (
            parse_dream(text)
            if name == "Dream"
            else _parse(text, texts, named=name not in OF_ANYTHING)
        )
        if recipe:
            yield recipe
    if recipe := parse_settings(texts.named):  # Easy Diffusion gives each setting a chunk
        yield recipe
    for text in texts.loose:
        if recipe := _parse(text, texts, named=False):
            yield recipe


# ComfyUI and its savers put a word before what they write into EXIF.
_WORD = re.compile(r"(?:prompt|parameters)\s*:\s*(?=\{)|parameters:\s*", re.I)


def _parse(text: str, texts: Texts, *, named: bool) -> Recipe | None:
    """The recipe in a text, whatever program's; what is too long to be looked at is a fault."""
    text = text.strip("\0 \t\r\n")
    text = text[word.end() :] if (word := _WORD.match(text)) else text
    if text.startswith("{") and len(text) <= MAX_JSON:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None  # a prompt may begin so too: {red|blue} fox
        if isinstance(found, dict):
            return parse_json(found, texts.named)
    if len(text) > MAX_TEXT:
        if named or "Steps: " in text:
            texts.faults.append(f"its settings are longer than {MAX_TEXT // 2**10} KiB")
        return None
    return parse_a1111(text)


def parse_json(found: dict[str, Any], named: dict[str, str]) -> Recipe | None:
    """The recipe in a JSON object: settings by name, or a graph of nodes, perhaps wrapped."""
    if recipe := parse_settings(found, named):
        return recipe
    for graph in (found, as_object(found.get("prompt"))):
        if recipe := parse_graph(graph):
            return recipe
    return None
