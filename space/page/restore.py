"""To get settings back: from a picture's file, from a link, from a picture on the page.

All three come from outside, and are read as a request like any other: whole and within its limits, or
not at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from shared.contract import GenerationRequest, parse_request
from shared.errors import CygnetError, InvalidRequest
from shared.images import Recipe, read_recipe
from space.page import form
from space.page.markup import error_notice, notice, pressed
from space.page.visitor import upload_of
from space.page.workshop import Workshop

AT_ONCE = 2
"""Pictures whose settings are read."""


def restoring(workshop: Workshop) -> Any:
    """The page's handler of an uploaded picture. Each counts as a request of its key, and few are read at
    a time, also of calls that pass Gradio's queue by."""
    places = asyncio.Semaphore(AT_ONCE)

    async def restore(browser: gr.Request, _none: None) -> list[Any]:  # Gradio itself gets no file
        try:
            workshop.count(browser)
            path = str(upload_of(browser))
        except CygnetError as error:
            return [error_notice(error), *form.unchanged()]
        async with places:
            return await asyncio.to_thread(from_file, path)

    return restore


def from_file(path: str) -> list[Any]:
    """The notice, and updates for the form, from an uploaded picture."""
    try:
        recipe = read_recipe(Path(path))
        request, unusable = _usable(recipe)
    except CygnetError as error:
        return [error_notice(error), *form.unchanged()]
    return [notice(_told(recipe, unusable)), *form.fill(request)]


def from_link(query: Mapping[str, str]) -> list[Any]:
    """The same from the page's address; without a prompt in it only a seed is chosen."""
    fields = {name: query[name] for name in GenerationRequest.model_fields if name in query}
    if not fields.get("prompt"):
        return ["", *form.fresh()]
    try:
        return [notice("These are the settings of the link."), *form.fill(parse_request(fields))]
    except CygnetError as error:
        return [error_notice(error), *form.fresh()]


def from_page(event: gr.EventData) -> GenerationRequest:
    """The request that a button of the page carries. Raises `InvalidRequest` if it is none."""
    try:
        fields = json.loads(pressed(event, "request"))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise InvalidRequest("The button carries no settings.", "Load the page again.")
    return parse_request(fields)


def _usable(recipe: Recipe) -> tuple[GenerationRequest, dict[str, Any]]:
    """The request of a recipe, and the settings of another program that do not fit here.

    What Cygnet wrote is taken whole. What another program wrote is taken field by field, since its
    sizes and steps know nothing of the checkpoint's limits.
    """
    try:
        return parse_request(recipe.fields), {}
    except InvalidRequest as error:
        if recipe.writer == "cygnet" or "prompt" in error.fields:
            raise
        unusable = {name: recipe.fields[name] for name in error.fields if name in recipe.fields}
        kept = {name: value for name, value in recipe.fields.items() if name not in unusable}
        return parse_request(kept), unusable


def _told(recipe: Recipe, unusable: dict[str, Any]) -> str:
    text = "The settings of the picture are in the form."
    left = [f"{name}: {value}" for name, value in (recipe.ignored | unusable).items()]
    if left:
        text += f" Not used, for want of a counterpart here: {', '.join(left)[:500]}."
    return text
