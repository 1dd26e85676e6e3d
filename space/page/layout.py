"""What is where on the page, and what leads to what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from shared.errors import CygnetError
from space.page import examples, form, history, restore, stage
from space.page.draw import drawing
from space.page.endpoint import add_endpoint
from space.page.form import ENDED, QUIET, Form
from space.page.grid import Grid
from space.page.history import History
from space.page.markup import error_notice, part, pressed
from space.page.visitor import token
from space.page.workshop import Workshop

HERE = Path(__file__).parent
HEADER = (HERE / "header.html").read_text()


def create_page(workshop: Workshop, concurrency: int = 16, max_queued: int = 64) -> gr.Blocks:
    """The page: so many generations at once, and so many waiting."""
    with gr.Blocks(title="Cygnet", analytics_enabled=False) as page:
        kept = gr.BrowserState("", storage_key="cygnet", secret="cygnet")
        part(HEADER, elem_id="header")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Draw", id="draw"), gr.Row(elem_id="draw-tab"):
                with gr.Column(scale=4, min_width=320, elem_id="left"):
                    asked = Form()
                    upload = gr.UploadButton(
                        "Restore settings: drop a picture, or choose one",
                        file_types=["image"],
                        size="sm",
                        elem_id="restore",
                    )
                with gr.Column(scale=6, min_width=320, elem_id="right"):
                    said = part(elem_id="said")
                    on_stage = part(stage.EMPTY, elem_id="stage")
                    strip = part(elem_id="strip")
                    beforehand = part(examples.buttons(), elem_id="examples")
            with gr.Tab("Grid", id="grid"):
                grid = Grid(workshop, asked, kept, concurrency)
            with gr.Tab("History", id="history") as history_tab:
                words = gr.Textbox(
                    label="Search your pictures",
                    placeholder="words of the prompt, a checkpoint, a seed",
                    elem_id="search",
                )
                wall = part(elem_id="wall")
                limit, one_page = gr.State(history.PAGE), gr.State(history.PAGE)
                more = gr.Button("Show more", size="sm", visible=False)
        add_endpoint(page, workshop, concurrency)

        past = History(workshop)
        outcome = [on_stage, said, asked.seed]
        work = {
            "show_progress_on": on_stage,
            "concurrency_limit": concurrency,
            "concurrency_id": "page",
        } | LIVE
        drawn = [
            asked.draw.click(drawing(workshop), [kept, asked.lock, *asked.parts], outcome, **work),
            on_stage.vary(_vary, None, [said, *asked.settings], **QUIET).success(
                drawing(workshop), [kept, asked.lock, *asked.parts], outcome, **work
            ),
        ]
        asked.stop.click(None, cancels=drawn, js=ENDED)
        for work_done in drawn:
            work_done.then(past.strip, kept, strip, js=ENDED, **QUIET)

        upload.upload(restore.restoring(workshop), upload, [said, *asked.settings], **RESTORE)
        on_stage.use(_use, None, [said, *asked.settings], **QUIET)
        on_stage.seed(_use_seed, None, [asked.seed, asked.lock], **QUIET)
        on_stage.remove(past.remove, kept, [on_stage, said], **QUIET).then(
            past.strip, kept, strip, **QUIET
        )
        strip.show(past.show, kept, [on_stage, said], **QUIET)
        beforehand.example(_example, None, [on_stage, said, *asked.settings], **QUIET)

        found = [wall, more, limit]
        history_tab.select(past.search, [kept, words, limit], found, **QUIET)
        words.change(
            past.search, [kept, words, one_page], found, trigger_mode="always_last", **QUIET
        )
        more.click(past.search_more, [kept, words, limit], found, **QUIET)
        wall.show(past.show, kept, [on_stage, said], **QUIET).then(
            lambda: gr.Tabs(selected="draw"), None, tabs, **QUIET
        )
        arrived = [kept, asked.draw, grid.start, said, *asked.settings]
        page.load(_arrive, kept, arrived, **QUIET).then(past.strip, kept, strip, **QUIET)
    return page.queue(max_size=max_queued)


RESTORE: dict[str, Any] = QUIET | {
    "queue": True,
    "concurrency_limit": restore.AT_ONCE,
    "concurrency_id": "restore",
}
"""What is answered soon, but not to any number at once."""

LIVE: dict[str, Any] = {
    "concurrency_id": "page",
    "show_progress": "minimal",
    "api_visibility": "private",
}
"""What waits its turn: Gradio shows its place in the queue."""


def _arrive(browser: gr.Request, kept: str) -> list[Any]:
    """The visitor's token, leave to draw for whoever has one, and the settings of the link."""
    leave = gr.Button(interactive=True)
    return [token(kept), leave, leave, *restore.from_link(browser.query_params)]


def _use(event: gr.EventData) -> list[Any]:
    try:
        return ["", *form.fill(restore.from_page(event))]
    except CygnetError as error:
        return [error_notice(error), *form.unchanged()]


def _vary(event: gr.EventData) -> list[Any]:
    """The same, with the seed let go."""
    return [*_use(event)[:-1], False]


def _use_seed(event: gr.EventData) -> list[Any]:
    try:
        return [restore.from_page(event).seed, True]
    except CygnetError:
        return [gr.skip(), gr.skip()]


def _example(event: gr.EventData) -> list[Any]:
    try:
        shown = examples.find(pressed(event, "key"))
    except CygnetError as error:
        return [gr.skip(), error_notice(error), *form.unchanged()]
    return [stage.show(shown, "Made beforehand."), "", *form.fill(shown.request)]
