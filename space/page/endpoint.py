"""`/generate`: one generation through Gradio's own API, as the stream of events it is.

Its parameters are the fields of `GenerationRequest`; None leaves one to the checkpoint. Each event
that it yields is the contract's, as JSON, but for two things: the `image` of an `image` event is a
file of Gradio's, which holds the original bytes; and the `done` event, which is all that a client's
`predict` returns, has these files again, as `images`. An error is Gradio's, with our code as its title.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from pydantic.fields import FieldInfo

from shared.contract import Done, Event, GenerationRequest, ImageReady, parse_request
from shared.errors import CygnetError
from space.page.answers import gradio_error
from space.page.workshop import Workshop


def add_endpoint(page: gr.Blocks, workshop: Workshop, concurrency: int) -> None:
    """Add `/generate` to the page that is being built."""

    async def generate(browser: gr.Request, *values: Any) -> AsyncGenerator[dict[str, Any], None]:
        given = dict(zip(GenerationRequest.model_fields, values, strict=True))
        try:
            request = parse_request(given)
            files: dict[int, dict[str, Any]] = {}
            async with aclosing(workshop.events(request, browser)) as events:
                async for event in events:
                    told = await event_json(workshop, event, request, browser)
                    if isinstance(event, ImageReady):
                        files[event.index] = told["image"]
                    if isinstance(event, Done):
                        told["images"] = [files[index] for index in sorted(files)]
                    yield told
        except CygnetError as error:
            raise gradio_error(error) from None

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("browser", kind, annotation=gr.Request)]  # Gradio gives it
    parameters += [_parameter(*field) for field in GenerationRequest.model_fields.items()]
    signature = inspect.Signature(parameters, return_annotation=dict)
    vars(generate)["__signature__"] = signature  # what Gradio describes, and takes by name
    generate.__annotations__ = {one.name: one.annotation for one in parameters}
    dependency = gr.api(
        generate,
        api_name="generate",
        api_description="Draws pictures. What it yields are the events of the work, as JSON: "
        "queued, step, image and done; done has all pictures, as images. To cancel stops it before "
        "its next step.",
        concurrency_limit=concurrency,
    )
    fields = GenerationRequest.model_fields.values()
    for shown, field in zip(page.fns[dependency["id"]].inputs, fields, strict=True):
        vars(shown)["_api_info"]["additional_description"] = field.description


async def event_json(
    workshop: Workshop, event: Event, request: GenerationRequest, browser: gr.Request
) -> dict[str, Any]:
    """The event as JSON, its image as a file that Gradio serves byte for byte."""
    if not isinstance(event, ImageReady):
        return event.model_dump(mode="json")
    alone = request.for_image(event.index)
    address = await asyncio.to_thread(workshop.file, event.image, alone, browser)
    file = FileData(path=str(workshop.files.folder / address), orig_name=Path(address).name)
    return event.model_dump(mode="json", exclude={"image"}) | {"image": file.model_dump()}


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    annotation: Any = field.annotation
    default = inspect.Parameter.empty if field.is_required() else field.default
    if field.default_factory:
        annotation, default = annotation | None, None
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
