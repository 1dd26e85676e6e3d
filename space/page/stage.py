"""The stage: what is drawn now, step by step, and what was drawn last.

A `Stage` follows one generation's events and is shown as HTML. Gradio puts each new version into the
page by changing what differs, so that a picture sharpens in place.
"""

from __future__ import annotations

import base64
import html

from shared.backends.router import PLAIN
from shared.console import summary
from shared.contract import Done, Event, GenerationRequest, GenerationResult, Queued, Starting, Step
from space.page.markup import Shown, frame, notice, picture, settings_list

EMPTY = """<div class="stage" data-phase="empty"><div class="blank">
<svg viewBox="0 0 64 64" aria-hidden="true"><path d="M5 37c9-3 18-3 25 1 8 4 15 1 17-4 1.500-4-9-9-9-18
 0-11 17-12 17-1M49 31c6 13-3 24-19 24C16 55 8 47 5 37"/></svg>
<p>Your picture will appear here.</p></div></div>"""

_SECONDS_BETWEEN = 0.1


class Stage:
    """One generation as it is shown: `shown` are its finished pictures, by index; `result` is its end."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.shown: dict[int, Shown] = {}
        self._ahead = 0
        self._starting = False
        self._steps: dict[int, Step] = {}
        self.result: GenerationResult | None = None

    @property
    def pause(self) -> float:
        """Seconds between two versions: what is sent grows with the number of previews in it."""
        return _SECONDS_BETWEEN * self.request.num_images

    def follow(self, event: Event) -> None:
        """Take the next event in."""
        match event:
            case Queued():
                self._ahead = event.position
            case Starting():
                self._starting = True
            case Step():
                self._steps[event.index] = event
            case Done():
                self.result = event.result

    def html(self) -> str:
        phase = "done" if self.result else "running"
        tiles = "".join(map(self._tile, range(self.request.num_images)))
        return f"""<div class="stage" data-phase="{phase}">
<div class="tiles" data-count="{self.request.num_images}">{tiles}</div>
<div class="told"><p class="visually-hidden" role="status">{self._spoken()}</p>{self._told()}</div>
</div>"""

    def _tile(self, index: int) -> str:
        if index in self.shown:
            return picture(self.shown[index])
        step = self._steps.get(index)
        shape = frame(self.request)
        if step is None or step.preview is None:
            return f'<div class="tile" style="{shape}"></div>'
        sharp = step.step / step.steps
        jpeg = base64.b64encode(step.preview).decode()
        return f"""<div class="tile" style="{shape}"><img class="preview"
 style="--blur: {(1 - sharp) * 14:.1f}px" src="data:image/jpeg;base64,{jpeg}" alt=""></div>"""

    def _told(self) -> str:
        if self.result:
            return remarks(self.result) + facts(self.result) + settings_list(self.request)
        done, steps = self._progress()
        return f"""<div class="bar" role="progressbar" aria-label="Progress" aria-valuemin="0"
 aria-valuemax="{steps}" aria-valuenow="{done}"><i style="width: {100 * done / steps:.0f}%"></i></div>
<p class="now" aria-hidden="true">{self._sentence(done, steps)}</p>"""

    def _progress(self) -> tuple[int, int]:
        return sum(step.step for step in self._steps.values()), self._all_steps()

    def _all_steps(self) -> int:
        known = next(iter(self._steps.values()), None)
        return (known.steps if known else self.request.steps) * self.request.num_images

    def _sentence(self, done: int, steps: int) -> str:
        if not done:
            return self._waiting()
        if done == steps:
            return "Developing"
        count = self.request.num_images
        ready = f" · {len(self.shown)} of {count} pictures" if count > 1 else ""
        return f"Step {done} of {steps}{ready}"

    def _waiting(self) -> str:
        if self._starting:
            return "Starting a machine; that takes a minute or two"
        return f"Waiting: {self._ahead} ahead of you" if self._ahead else "Getting ready"

    def _spoken(self) -> str:
        """The same for a screen reader, which would drown in every step: a change at each quarter."""
        if self.result:
            count = len(self.shown)
            return "The picture is ready." if count == 1 else f"{count} pictures are ready."
        done, steps = self._progress()
        if not done:
            return self._sentence(done, steps)
        return f"Drawing: {4 * done // steps} of 4 quarters done."


def show(shown: Shown, note: str = "") -> str:
    """The stage with one picture that was made before."""
    told = f'<p class="facts">{html.escape(note)}</p>' if note else ""
    return f"""<div class="stage" data-phase="done"><div class="tiles" data-count="1">{picture(shown)}</div>
<div class="told">{told}{settings_list(shown.request)}</div></div>"""


def remarks(result: GenerationResult) -> str:
    """What of the request was not done as asked, as a notice."""
    return notice(" ".join(result.remarks)) if result.remarks else ""


def facts(result: GenerationResult) -> str:
    """Who served it and, where nobody had asked for that one, why; on what; how long each phase took."""
    reason = result.backend_reason
    why = "" if reason in PLAIN else f" ({reason.rstrip('.')})"
    return (
        f'<p class="facts">{html.escape(f"Drawn by {result.backend}{why}: {summary(result)}.")}</p>'
    )
