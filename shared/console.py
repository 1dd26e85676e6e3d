"""What the `cygnet` command shows: progress and errors on stderr, tables on stdout.

rich is imported where it draws, because `cygnet --help` needs none of it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shared.checkpoints import CHECKPOINTS, Checkpoint, get_checkpoint
from shared.contract import (
    Event,
    GenerationRequest,
    GenerationResult,
    Queued,
    Starting,
    Step,
    clean_text,
)
from shared.errors import CygnetError
from shared.images import Recipe
from shared.prices import dollars

if TYPE_CHECKING:
    from rich.console import Console


class Progress:
    """Follows a generation's events, and shows nothing: what `--quiet` asks for."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.steps_done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        self.steps_done += isinstance(event, Step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While something else is printed."""
        yield

    def note(self, text: str) -> None:
        """Say something beside the progress."""

    def remark(self, text: str) -> None:
        """Say what the user has to know of the pictures, even if nothing else is shown."""
        print(clean_text(text), file=sys.stderr, flush=True)

    @property
    def all_steps(self) -> int:
        return self.request.steps * self.request.num_images


class LineProgress(Progress):
    """A few plain lines, for a log."""

    def __enter__(self) -> Progress:
        self.note(f"Loading {self.request.checkpoint}")
        return self

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Queued) and event.position:
            self.note(f"Waiting behind {event.position}")
        if isinstance(event, Starting):
            self.note("Starting a machine")
        if isinstance(event, Step) and _quarter(self.steps_done, self.all_steps):
            self.note(f"Step {self.steps_done} of {self.all_steps}")

    def note(self, text: str) -> None:
        self.remark(text)


def _quarter(done: int, total: int) -> bool:
    """Whether this step is the first to complete another quarter of them all."""
    return 4 * done // total > 4 * (done - 1) // total


class BarProgress(Progress):
    """A bar that is redrawn in place, for a terminal.

    While weights are downloaded the Hub's own bars have the terminal, and ours waits.
    """

    def __init__(self, request: GenerationRequest) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        super().__init__(request)
        self._console = stderr()
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # else what is printed for a pipe would land on stderr
        )
        self._task = self._bar.add_task(f"Loading {request.checkpoint}", total=None, count="")

    def __enter__(self) -> Progress:
        checkpoint = get_checkpoint(self.request.checkpoint)
        if checkpoint.folder or is_here(checkpoint):
            self._bar.start()
        else:
            self.note(f"Fetching {checkpoint.name} from the Hub")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Queued) and event.position:
            self._bar.update(self._task, description=f"Waiting behind {event.position}")
        elif isinstance(event, Starting):
            self._bar.update(self._task, description="Starting a machine")
        elif isinstance(event, Step):
            self._bar.start()
            self._bar.update(
                self._task,
                description="Drawing",
                total=self.all_steps,
                completed=self.steps_done,
                count=f"step {self.steps_done} of {self.all_steps}",
            )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self._bar.stop()
        yield
        self._bar.start()

    def note(self, text: str) -> None:
        self._console.print(clean_text(text), markup=False, highlight=False, soft_wrap=True)

    def remark(self, text: str) -> None:
        self.note(text)


def progress_for(request: GenerationRequest, quiet: bool) -> Progress:
    if quiet:
        return Progress(request)
    return BarProgress(request) if sys.stderr.isatty() else LineProgress(request)


def summary(result: GenerationResult) -> str:
    """Where the time went, in one line."""
    images = "1 picture" if len(result.seeds) == 1 else f"{len(result.seeds)} pictures"
    phases = [
        f"{phase} {seconds:.1f} s"
        for phase, seconds in result.timings.model_dump(exclude={"total"}).items()
        if seconds >= 0.05
    ]
    spent = f": {', '.join(phases)}" if phases else ""
    price = f", about {dollars(result.cost_usd)}" if result.cost_usd else ""
    return f"{images} in {result.timings.total:.1f} s on {result.device}{price}{spent}"


def stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def print_error(error: CygnetError) -> None:
    """One line, however long: the code, what was wrong, and what to do next."""
    from rich.text import Text

    line = Text.assemble(
        ("error", "bold red"),
        (f"[{error.code}]", "red"),
        f": {clean_text(error.message)} ",
        ("Next:", "bold"),
        f" {clean_text(error.next_step)}",
    )
    stderr().print(line, soft_wrap=True)


@contextlib.contextmanager
def library_logs() -> Iterator[io.StringIO]:
    """Keeps what libraries log off the terminal; of their errors it keeps the text."""
    kept, before = io.StringIO(), logging.root.manager.disable
    handler = logging.StreamHandler(kept)
    logging.root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield kept
    finally:
        logging.disable(before)
        logging.root.removeHandler(handler)


def write_log(error: CygnetError, logs: str) -> str:
    """Keep the traceback, no reading for a user, in a file of its own; what to report."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="cygnet-", suffix=".log")
        with os.fdopen(descriptor, "w", errors="backslashreplace") as log:
            log.writelines([logs, *traceback.format_exception(error)])
    except OSError:
        return "the command that you ran"
    return name


def checkpoint_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint as JSON, without the paths of this machine, and whether it is here."""
    facts = checkpoint.model_dump(mode="json", exclude={"folder"})
    return facts | {"here": is_here(checkpoint)}


def is_here(checkpoint: Checkpoint) -> bool:
    """Whether the weights are on this machine: their index is, which arrives with the rest."""
    if checkpoint.folder:
        return (checkpoint.folder / "model_index.json").is_file()
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    repository, revision = checkpoint.repository or "", checkpoint.revision
    found = try_to_load_from_cache(repository, "model_index.json", revision=revision)
    return isinstance(found, str)


def print_checkpoints() -> None:
    """The table of checkpoints, in 80 columns: a line of facts each, and then words."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=80)
    columns = "{:<17} {:>9}  {:>5}  {:>8}  {:<9}  {:>9}  {:<6}"
    titles = ("CHECKPOINT", "SIZE", "STEPS", "GUIDANCE", "SCHEDULER", "MEMORY", "HERE")
    console.print(Text(columns.format(*titles).rstrip(), style="dim"))
    for row in CHECKPOINTS:
        facts = columns.format(
            row.name,
            f"{row.width}×{row.height}",
            row.steps,
            row.guidance_scale,
            row.scheduler,
            f"{row.memory_gib:.1f} GiB",
            "yes" if is_here(row) else "no",
        )
        licence = f"{row.licence.name}{'' if row.licence.verified else '?'}"
        console.print(Text.assemble((facts[:17], "bold"), facts[17:].rstrip()), soft_wrap=True)
        for line in (f"{row.description} · {licence}", *_origin(row)):
            console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    console.print(Text("?  as its authors state it; not verified by us", style="dim"))


def _origin(row: Checkpoint) -> Iterator[str]:
    """Where the weights come from, and the rest of the recipe."""
    source = "in this package" if row.folder else row.repository
    yield f"{source}, {(row.revision or 'unpinned')[:12]} · shift {row.shift:g}"
    if row.lora:
        yield f"LoRA {row.lora.filename} × {row.lora.strength:g}"


def print_recipe(recipe: Recipe) -> None:
    """The settings of a picture, one a line."""
    from rich.console import Console
    from rich.text import Text

    rows = {name: clean_text(str(value)) for name, value in recipe.fields.items()}
    if recipe.writer == "cygnet":
        rows["revision"] = clean_text(recipe.revision or "unpinned")
    rows |= {f"({clean_text(name)})": clean_text(text) for name, text in recipe.ignored.items()}
    width = max(map(len, rows), default=0)
    console = Console()
    for name, value in rows.items():
        style = "dim" if name.startswith("(") else "bold"
        console.print(Text.assemble((f"{name:<{width}}", style), f"  {value}"), soft_wrap=True)
    if recipe.ignored:
        print("\nSettings in brackets were written by another program and are not used here.")
