"""The grid: one or two settings varied over a prompt, as a labelled contact sheet."""

from __future__ import annotations

import asyncio
import contextlib
import html
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from shared.checkpoints import STYLES
from shared.contract import (
    GenerationRequest,
    GenerationResult,
    clean_text,
    collect,
    draws_a_seed,
    parse_request,
    random_seed,
)
from shared.errors import CygnetError, InvalidRequest
from shared.prices import dollars
from space.page import form
from space.page.form import ENDED, QUIET, Form
from space.page.markup import address, error_notice, notice, part
from space.page.sheet import draw_sheet
from space.page.visitor import owner_of
from space.page.workshop import Workshop

AXES = {"Steps": "steps", "Guidance": "guidance_scale", "Seed": "seed", "Style": "style"}
NOTHING = "Nothing"
EXAMPLES = {
    "Steps": "4, 8, 20",
    "Guidance": "1, 3, 6",
    "Seed": "1, 2, 3, 4",
    "Style": ", ".join(STYLES),
    NOTHING: "",
}
MOST_CELLS = 36
_AT_ONCE = 4
_MOST_REMARKS = 4

Cell = tuple[int, int]
"""Its row and its column."""


@dataclass(frozen=True)
class Plan:
    """What will be drawn: a request for each cell, by row and column, and their labels."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: dict[Cell, GenerationRequest]

    @property
    def first(self) -> GenerationRequest:
        return self.cells[0, 0]


def plan(
    fields: dict[str, Any], across: tuple[str, str], down: tuple[str, str] = (NOTHING, "")
) -> Plan:
    """Each axis is a setting and its values, with commas between.

    Raises `InvalidRequest` for values that cannot be drawn, and for too many.
    """
    if across[0] == down[0]:
        raise InvalidRequest(
            f"{across[0]} cannot vary in both directions.", "Choose another setting for the rows."
        )
    columns, rows = _values(*across), _values(*down)
    if len(columns) * len(rows) > MOST_CELLS:
        raise InvalidRequest(
            f"That makes {len(columns) * len(rows)} pictures, and a grid may have {MOST_CELLS}.",
            "Give fewer values.",
        )
    fields = fields | {"num_images": 1}
    cells = {
        (row, column): parse_request(_varied(_varied(fields, across[0], one), down[0], other))
        for (row, other), (column, one) in itertools.product(enumerate(rows), enumerate(columns))
    }
    return Plan(_labels(across[0], columns), _labels(down[0], rows), cells)


def _values(axis: str, text: str) -> tuple[str, ...]:
    if axis == NOTHING:
        return ("",)
    values = tuple(filter(None, (clean_text(part) for part in text.split(","))))
    if not values:
        raise InvalidRequest(
            f"{axis} has no values.", f"Give some with commas between, such as {EXAMPLES[axis]}."
        )
    return values


def _varied(fields: dict[str, Any], axis: str, value: str) -> dict[str, Any]:
    if axis == NOTHING:
        return fields
    if axis == "Style":
        return fields | {"prompt": f"{fields['prompt'] or ''}, {value}"}
    return fields | {AXES[axis]: value}


def _labels(axis: str, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(value if axis in ("Style", NOTHING) else f"{axis} {value}" for value in values)


class Grid:
    """The tab: made inside it, over the settings of the form `asked`."""

    def __init__(
        self, workshop: Workshop, asked: Form, kept: gr.BrowserState, concurrency: int
    ) -> None:
        self._workshop = workshop
        part(
            "<p>Vary one or two settings. All the others, the prompt too, are those of the first tab."
            "</p>",
            elem_id="grid-intro",
        )
        with gr.Row(elem_classes="fields"):
            self._across = gr.Dropdown([*AXES], value="Steps", label="Columns", scale=1)
            self._columns = gr.Textbox(EXAMPLES["Steps"], label="Values", scale=3)
        with gr.Row(elem_classes="fields"):
            self._down = gr.Dropdown([NOTHING, *AXES], value=NOTHING, label="Rows", scale=1)
            self._rows = gr.Textbox("", label="Values of the rows", scale=3)
        estimate = part(elem_id="estimate")
        with gr.Row(elem_id="grid-press"):
            self.start = gr.Button(
                "Draw the grid", variant="primary", elem_id="draw-grid", interactive=False
            )
            stop = gr.Button("Stop", variant="stop", elem_id="stop-grid")
        said = part(elem_id="grid-said")
        sheet = part(elem_id="sheet")

        for axis, values in ((self._across, self._columns), (self._down, self._rows)):
            axis.input(EXAMPLES.get, axis, values, **QUIET)
        asking = [*asked.parts, self._across, self._columns, self._down, self._rows]
        changes = [part.change for part in asking]
        gr.on(changes, self.estimate, asking, estimate, trigger_mode="always_last", **QUIET)
        drawn = self.start.click(
            self.draw,
            [kept, *asking],
            [sheet, said],
            concurrency_limit=concurrency,
            concurrency_id="page",
            show_progress="minimal",
            show_progress_on=sheet,
            api_visibility="private",
        )
        drawn.then(None, js=ENDED, **QUIET)
        stop.click(None, cancels=drawn, js=ENDED)

    def estimate(self, *values: Any) -> str:
        """What the grid will take, before it runs."""
        try:
            planned = _read(values)
        except CygnetError as error:
            return error_notice(error)
        requests = planned.cells.values()
        steps = sum(request.steps for request in requests)
        text = f"{len(requests)} pictures, {steps} steps."
        seconds = [self._workshop.pace.seconds(request) for request in requests]
        prices = [self._workshop.pace.dollars(request) for request in requests]
        if all(seconds):
            text += f" About {sum(filter(None, seconds)):.0f} s, by what {planned.first.checkpoint}"
            text += " took last, one picture after the other."
        else:
            text += " How long it takes is known after the first picture."
        if all(prices):
            text += f" About {dollars(sum(filter(None, prices)))}."
        return f'<p class="facts" role="status">{html.escape(text)}</p>'

    async def draw(
        self, browser: gr.Request, token: str, *values: Any
    ) -> AsyncGenerator[tuple[Any, Any], None]:
        """Yields the sheet, more complete each time, and a notice."""
        try:
            planned = _read(values)
            files: dict[Cell, str] = {}
            images: dict[Cell, bytes] = {}
            remarks: dict[str, None] = {}
            keys: list[str] = []
            yield _sheet(planned, files), ""
            async with aclosing(self._draw(planned, browser)) as drawn:
                async for cell, image, result in drawn:
                    picture = await self._workshop.keep(image, owner_of(browser, token), result)
                    keys.append(picture.id if picture else "")
                    images[cell] = image
                    remarks |= dict.fromkeys(result.remarks)
                    files[cell] = await self._workshop.source(
                        image, planned.cells[cell], browser, keys[-1:]
                    )
                    yield _sheet(planned, files), gr.skip()
            told = notice(" ".join([*remarks][:_MOST_REMARKS])) if remarks else gr.skip()
            whole = await self._whole(planned, images, browser, keys)
            yield _sheet(planned, files, whole), told
        except CygnetError as error:
            yield gr.skip(), error_notice(error)

    async def _draw(
        self, planned: Plan, browser: gr.Request
    ) -> AsyncGenerator[tuple[Cell, bytes, GenerationResult], None]:
        """Cells with their images as they are ready; the first error ends all."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(
            cell: Cell, request: GenerationRequest
        ) -> tuple[Cell, bytes, GenerationResult]:
            async with turns:
                result, [image] = await collect(self._workshop.events(request, browser))
            return cell, image, result

        tasks = [asyncio.create_task(one(*item)) for item in planned.cells.items()]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(
        self, planned: Plan, images: dict[Cell, bytes], browser: gr.Request, keys: list[str]
    ) -> str:
        first = planned.first
        size = (first.width, first.height)
        labels = planned.columns, planned.rows
        png = await asyncio.to_thread(draw_sheet, images, *labels, size, first.prompt)
        named = first.model_copy(update={"output_format": "png"})
        return await self._workshop.source(png, named, browser, keys)


def _read(values: Sequence[Any]) -> Plan:
    *parts, across, columns, down, rows = values
    fields = form.read(parts)
    if fields["seed"] is None:
        fields["seed"] = 0
    elif draws_a_seed(fields["seed"]):  # one for all cells
        fields["seed"] = random_seed()
    if across not in EXAMPLES or down not in EXAMPLES:
        raise InvalidRequest("No setting is chosen to vary.", "Choose one.")
    return plan(fields, (across, columns or ""), (down, rows or ""))


def _sheet(planned: Plan, files: dict[Cell, str], whole: str = "") -> str:
    """The grid as a table, and the contact sheet to download once it is whole."""
    head = "".join(f'<th scope="col">{html.escape(label)}</th>' for label in planned.columns)
    body = ""
    corner = "<td></td>" if any(planned.rows) else ""
    for row, label in enumerate(planned.rows):
        cells = "".join(_cell(planned, files, (row, c)) for c in range(len(planned.columns)))
        name = f'<th scope="row">{html.escape(label)}</th>' if corner else ""
        body += f"<tr>{name}{cells}</tr>"
    count = f"{len(files)} of {len(planned.cells)} pictures"
    link = ""
    if whole:
        source = html.escape(address(whole))
        link = f' <a class="act" href="{source}" download="grid.png">Download the contact sheet</a>'
    return f"""<div class="scroll"><table class="grid"><caption>{html.escape(planned.first.prompt)}
</caption><thead><tr>{corner}{head}</tr></thead><tbody>{body}</tbody></table></div>
<p class="facts" role="status">{count}{link}</p>"""


def _cell(planned: Plan, files: dict[Cell, str], cell: Cell) -> str:
    request = planned.cells[cell]
    if cell not in files:
        return f'<td><div style="aspect-ratio: {request.width} / {request.height}"></div></td>'
    source = html.escape(address(files[cell]))
    alt = html.escape(f"{request.prompt}, seed {request.seed}")
    return f'<td><a href="{source}" target="_blank"><img src="{source}" alt="{alt}"></a></td>'
