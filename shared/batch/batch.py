"""A batch: a file of prompts, and the folder that it goes to. Checked as a whole, then run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.batch.folder import Folder, Terms
from shared.batch.manifest import Entry
from shared.batch.names import DEFAULT
from shared.batch.plan import MAX_PICTURES, Choices, Item, Plan
from shared.batch.run import Generate, run
from shared.batch.source import Kind, Source
from shared.batch.table import write_table
from shared.batch.wordlists import Wordlists
from shared.errors import InvalidRequest
from shared.field_names import OURS, FieldNames
from shared.settings import settings

CONCURRENCY = 32
"""Pictures asked for at once. Of large ones this fills the engine's batch many times over, and the others
wait there. Of the smallest, on two CPU cores, 48 pictures took 9.9 s of CPU time with 8 at once, 8.3
with 16, 8.1 with 24 and 7.9 with 32. A server takes them in turn."""

_SHOWN = 5
LISTED = 20
"""Rows that are wrong, or pictures that failed, told one by one; of more, only their number."""


@dataclass(frozen=True)
class BatchOptions:
    """What a door was given."""

    file: str
    """A path, or `-` for standard input."""
    out: Path
    kind: Kind | None = None
    words: Path | None = None
    """Where wordlists lie; None for the folder of the file."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What the rows leave out."""
    names: FieldNames = OURS
    """What the door's user calls those."""
    batch_seed: int = 0
    sample: int | None = None
    name: str = DEFAULT
    concurrency: int = CONCURRENCY
    limit: int | None = None
    """So many pictures in this run; the next one goes on."""


@dataclass
class Checked:
    """What reading the whole file found."""

    pictures: int = 0
    done: int = 0
    cost_usd: float = 0.0
    damaged: int = 0
    """Lines of the manifest that make no sense."""
    first: list[tuple[str, Item]] = field(default_factory=list)
    """The first pictures, with the names that their files get."""
    refused: int = 0
    """Rows that are wrong, and the first of them."""
    refusals: list[InvalidRequest] = field(default_factory=list)


class Batch:
    """Open until it is closed, or used with `with`. Raises `InvalidRequest`."""

    def __init__(self, options: BatchOptions) -> None:
        self.options = options
        fields = {"checkpoint": settings().checkpoint} | options.fields
        self._terms = Terms(
            name=options.name,
            batch_seed=options.batch_seed,
            sample=options.sample,
            fields=fields,
        )
        self._source = Source(options.file, options.kind)
        beside = Path() if options.file == "-" else Path(options.file).parent
        choices = Choices(fields, options.batch_seed, options.sample, options.names)
        self._plan = Plan(self._source, choices, Wordlists(options.words or beside))

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def check(self) -> Checked:
        """Read every row and look at what is there; nothing is changed.

        Raises `InvalidRequest` if the batch as a whole cannot be made, or not into that folder.
        """
        self._plan.count()
        checked = Checked()

        def refuse(error: InvalidRequest) -> None:
            checked.refused += 1
            if checked.refused <= LISTED:
                checked.refusals.append(error)

        with self._folder(readonly=True) as folder:
            checked.cost_usd = folder.manifest.cost_usd
            checked.damaged = folder.manifest.damaged
            for item in self._plan.items(refuse):
                if item.number > MAX_PICTURES:
                    raise InvalidRequest(
                        f"{self._source.name} asks for more than {MAX_PICTURES:,} pictures.",
                        "Give fewer num_images, choices or rows.",
                    )
                try:
                    name = folder.name(item)
                except InvalidRequest as error:
                    refuse(self._source.refuse(item.line, error.message, error.next_step))
                    continue
                if len(checked.first) < _SHOWN:
                    checked.first.append((name, item))
                checked.pictures += 1
                checked.done += not checked.refused and folder.is_done(item)
        if not checked.pictures and not checked.refused:
            raise InvalidRequest(f"{self._source.name} has no rows.", "Write a prompt on a line.")
        return checked

    async def run(self, generate: Generate, show: Callable[[Entry], None]) -> None:
        """Make what is not there yet; `show` sees each line of the manifest as it is written.

        However it ends, `manifest.csv` is written. Raises what `shared.batch.run.run` raises.
        """
        with self._folder(readonly=False) as folder:
            todo = itertools.islice(self._todo(folder), self.options.limit)
            try:
                await run(todo, generate, folder, self.options.concurrency, show)
            finally:
                write_table(folder.manifest)

    def failures(self, pictures: int) -> Iterator[Entry]:
        """Those of the first `pictures` that failed, and have not been made since.

        What lies behind them are rows that were taken out.
        """
        with self._folder(readonly=True) as folder:
            for entry in itertools.takewhile(
                lambda entry: entry.number <= pictures, folder.manifest.entries()
            ):
                if entry.status == "failed":
                    yield entry

    def _todo(self, folder: Folder) -> Iterator[Item]:
        return (item for item in self._plan.items() if not folder.is_done(item))

    def _folder(self, readonly: bool) -> Folder:
        return Folder(self.options.out, self._terms, readonly=readonly)
