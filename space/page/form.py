"""The form: every field of a request as a part of the page, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gradio as gr

from shared.checkpoints import CHECKPOINTS, SAMPLER_NAMES, Checkpoint, get_checkpoint
from shared.contract import GUIDANCE, STEPS, GenerationRequest, random_seed
from shared.errors import InvalidRequest
from shared.formats import FORMATS
from shared.numbers import EXACT
from shared.settings import settings
from space.page.markup import part

FIELDS = (
    "prompt",
    "negative_prompt",
    "checkpoint",
    "size",
    "steps",
    "guidance_scale",
    "scheduler",
    "seed",
    "num_images",
    "output_format",
)
"""What `Form.parts` hold, in their order: a request's, but width and height in one."""

ENDED = "(...given) => (delete document.querySelector('#tabs').dataset.working, given)"
"""Puts the button that starts back in place of the one that stops."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
"""For what is answered at once."""


class Form:
    """Made inside a column of the page. `parts` are its inputs, in the order that `read` takes."""

    def __init__(self) -> None:
        default = get_checkpoint(settings().checkpoint)
        self.prompt = gr.Textbox(
            label="Prompt",
            placeholder="a red fox, 3d render, on a sky blue background",
            lines=3,
            max_lines=10,
            elem_id="prompt",
        )
        part(
            "<p>In Wan's text encoder <code>(word:1.3)</code> changes nothing but the words: "
            "there are no weights. Say it in words.</p>",
            elem_id="no-weights",
        )
        with gr.Row(elem_id="press"):
            self.draw = gr.Button(
                "Draw", variant="primary", elem_id="draw", size="lg", interactive=False
            )
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop", size="lg")
        with gr.Row(elem_classes="fields"):
            self.size = gr.Dropdown(**_sizes(default), label="Size", min_width=130, elem_id="size")
            self.num_images = gr.Number(1, label="Pictures", min_width=80, elem_id="pictures")
        with gr.Row(elem_classes="fields", elem_id="seed-row"):
            self.seed = gr.Number(label="Seed", min_width=140, elem_id="seed")
            self.dice = gr.Button("New", size="sm", min_width=60, scale=0, elem_id="dice")
            self.lock = gr.Checkbox(
                label="Keep", min_width=70, scale=0, elem_id="lock", container=False
            )
        self.checkpoint = gr.Dropdown(
            [checkpoint.name for checkpoint in CHECKPOINTS],
            value=default.name,
            label="Checkpoint",
            info=default.description,
            elem_id="checkpoint",
        )
        with gr.Accordion("More settings", open=False, elem_id="more"):
            self.negative_prompt = gr.Textbox(
                label="Avoid",
                info="Acts when guidance is above 1.",
                lines=2,
                elem_id="avoid",
            )
            self.steps = gr.Slider(
                STEPS.low, STEPS.high, default.steps, step=1, label="Steps", elem_id="steps"
            )
            self.guidance_scale = gr.Slider(
                GUIDANCE.low,
                GUIDANCE.high,
                default.guidance_scale,
                step=0.1,
                label="Guidance",
                elem_id="guidance",
            )
            with gr.Row():
                self.scheduler = gr.Dropdown(
                    [*SAMPLER_NAMES], value=default.scheduler, label="Sampler", min_width=100
                )
                self.output_format = gr.Dropdown(
                    FORMATS, value=FORMATS[0], label="File", min_width=100, elem_id="format"
                )
        self.dice.click(_roll, None, [self.seed, self.lock], **QUIET)
        self.checkpoint.input(_defaults, self.checkpoint, self._of_checkpoint, **QUIET)

    @property
    def parts(self) -> list[gr.components.Component]:
        return [getattr(self, field) for field in FIELDS]

    @property
    def settings(self) -> list[gr.components.Component]:
        """The parts that `fill` fills: all, and the lock of the seed."""
        return [*self.parts, self.lock]

    @property
    def _of_checkpoint(self) -> list[gr.components.Component]:
        return [self.checkpoint, self.size, self.steps, self.guidance_scale, self.scheduler]


def read(values: Sequence[Any]) -> dict[str, Any]:
    """What the parts hold, for `parse_request`. Raises `InvalidRequest` where no size is chosen."""
    fields = dict(zip(FIELDS, values, strict=True))
    size = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", str(fields.pop("size")))
    if not size:
        raise InvalidRequest("No size is chosen.", "Choose a size.", ("width", "height"))
    if isinstance(fields["seed"], int) and abs(fields["seed"]) > EXACT:
        fields["seed"] = float(fields["seed"])  # a browser has rounded it, so it is not repeated
    return fields | {"width": int(size[1]), "height": int(size[2])}


def fill(request: GenerationRequest) -> list[Any]:
    """Updates for `Form.settings`: all of a request, its seed kept."""
    checkpoint = get_checkpoint(request.checkpoint)
    size = _sizes(checkpoint, (request.width, request.height))
    return [
        request.prompt,
        request.negative_prompt,
        gr.Dropdown(value=checkpoint.name, info=checkpoint.description),
        gr.Dropdown(**size),
        request.steps,
        request.guidance_scale,
        request.scheduler,
        request.seed,
        request.num_images,
        request.output_format,
        True,
    ]


def unchanged() -> list[Any]:
    """No update for any of `Form.settings`."""
    return [gr.skip()] * (len(FIELDS) + 1)


def fresh() -> list[Any]:
    """As it is when the page is opened: with a seed of its own."""
    return [random_seed() if field == "seed" else gr.skip() for field in FIELDS] + [gr.skip()]


def _roll() -> tuple[int, bool]:
    return random_seed(), True


def _defaults(name: str | None) -> list[Any]:
    """Updates for what depends on the checkpoint. Raises `UnknownCheckpoint`."""
    checkpoint = get_checkpoint(name or "")
    return [
        gr.Dropdown(info=checkpoint.description),
        gr.Dropdown(**_sizes(checkpoint)),
        checkpoint.steps,
        checkpoint.guidance_scale,
        checkpoint.scheduler,
    ]


def _sizes(checkpoint: Checkpoint, chosen: tuple[int, int] | None = None) -> dict[str, Any]:
    """The presets as choices, and `chosen` among them even if it is none."""
    sizes = checkpoint.sizes
    if chosen and chosen not in sizes:
        sizes = (chosen, *sizes)
    choices = [(f"{width} × {height}", f"{width}x{height}") for width, height in sizes]
    width, height = chosen or (checkpoint.width, checkpoint.height)
    return {"choices": choices, "value": f"{width}x{height}"}
