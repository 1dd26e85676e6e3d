"""The HTML of our own parts: notices, pictures, thumbnails. Every text in it is escaped here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import gradio as gr

from shared.contract import GenerationRequest
from shared.errors import CygnetError
from space.page.workshop import file_name

PRESSED = (Path(__file__).parent / "pressed.js").read_text()


def part(value: str = "", *, elem_id: str) -> gr.HTML:
    """HTML of our own: without Gradio's styles for prose, and what is pressed in it is an event."""
    return gr.HTML(value, elem_id=elem_id, js_on_load=PRESSED, apply_default_css=False)


@dataclass(frozen=True)
class Shown:
    """One finished picture on the page: `request` makes it alone; `key` is its id in the gallery.

    `file` is its address among the page's files, or the picture itself as a data URL.
    """

    request: GenerationRequest
    file: str
    key: str = ""


def address(file: str) -> str:
    """Relative, so that it holds behind any proxy."""
    return file if file.startswith("data:") else f"gradio_api/file={quote(file)}"


def link(request: GenerationRequest) -> str:
    """The page's address with these settings; see `space.page.restore.from_link`."""
    return f"?{urlencode(request.model_dump())}"


LABELS = {"num_images": "Pictures", "guidance_scale": "Guidance", "negative_prompt": "Avoid"}
"""What the page calls a field that goes by another name elsewhere."""


def error_notice(error: CygnetError) -> str:
    """What was wrong and what to do, in the words of the page."""
    text = str(error)
    for name, label in LABELS.items():
        text = text.replace(name, label)
    return notice(text, "error", error.code)


def notice(text: str, kind: str = "info", code: str = "") -> str:
    """A sentence above the picture; an error interrupts a screen reader, other news waits."""
    role = "alert" if kind == "error" else "status"
    told = f' <code title="docs/errors.md">{html.escape(code)}</code>' if code else ""
    return f'<p class="notice {kind}" role="{role}">{html.escape(text)}{told}</p>'


def picture(shown: Shown) -> str:
    """A finished picture with what can be done with it."""
    request = shown.request
    source = html.escape(address(shown.file))
    name = html.escape(file_name(request))
    remove = _act("remove", "Remove", "out of the history, its file included") if shown.key else ""
    return f"""<figure style="{frame(request)}" data-request="{_json(request)}"
 data-key="{html.escape(shown.key)}">
<a href="{source}" target="_blank" aria-label="Open the original file">
<img src="{source}" width="{request.width}" height="{request.height}" alt="{_alt(request)}"></a>
<figcaption><span class="seed">seed {request.seed}</span>
{_act("use", "Use settings", "put all settings of this picture into the form")}
{_act("seed", "Same seed", "put only its seed into the form, and lock it")}
{_act("vary", "Vary", "draw it again with another seed")}
<a class="act" href="{source}" download="{name}">Download</a>
<a class="act" href="{html.escape(link(request))}" data-act="link"
 title="copy an address that opens the page with these settings">Copy link</a>{remove}
</figcaption></figure>"""


def frame(request: GenerationRequest) -> str:
    """The shape of its pictures, for the style sheet: shown at twice their size at most."""
    shape = f"{request.width} / {request.height}"
    return f"--shape: {shape}; --most: {2 * request.width}px"


def thumbnails(pictures: Iterable[tuple[Shown, str]], act: str = "show") -> str:
    """Small pictures to press, each with the file of its thumbnail."""
    return "".join(
        f'<button type="button" class="thumb" data-act="{act}" data-key="{html.escape(shown.key)}"'
        f' title="{_alt(shown.request)}"><img src="{html.escape(address(small))}"'
        f' alt="{_alt(shown.request)}, seed {shown.request.seed}"></button>'
        for shown, small in pictures
    )


def settings_list(request: GenerationRequest) -> str:
    """All that makes this picture again."""
    rows = {
        "Avoid": request.negative_prompt,
        "Checkpoint": request.checkpoint,
        "Seed": request.seed,
        "Size": f"{request.width} × {request.height}",
        "Steps": request.steps,
        "Guidance": f"{request.guidance_scale:g}",
        "Sampler": request.scheduler,
    }
    items = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in rows.items()
        if value != ""
    )
    return f'<p class="prompt">{html.escape(request.prompt)}</p><dl class="settings">{items}</dl>'


def pressed(event: gr.EventData, name: str) -> str:
    """What a button of the page carries under that name; it may be anything, as all from outside."""
    return str(getattr(event, name, ""))


def _act(name: str, text: str, title: str) -> str:
    return f'<button type="button" class="act" data-act="{name}" title="{title}">{text}</button>'


def _alt(request: GenerationRequest) -> str:
    return html.escape(request.prompt)


def _json(request: GenerationRequest) -> str:
    return html.escape(json.dumps(request.model_dump()))
