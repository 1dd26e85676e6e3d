"""The columns of tables: a request's fields, however a spreadsheet writes their names, and those of our
own `manifest.csv`.

Spreadsheets run what begins like a formula, and prompts come from anywhere: in the manifest such a text
has an apostrophe before it, which is taken off again where the table is read as a file of prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shared.contract import GenerationRequest, Timings

REQUEST = [name for name in GenerationRequest.model_fields if name not in ("seed", "num_images")]

SECONDS = list(Timings.model_fields)

MANIFEST = (
    *("number", "line", "status", "file", "seed", "template"),
    *REQUEST,
    *("backend", "backend_reason", "device"),
    *(f"{phase}_s" for phase in SECONDS),
    *("cost_usd", "attempts", "finished", "error", "error_message", "remarks"),
)
"""Those of `manifest.csv`."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_BETWEEN_WORDS = re.compile(r"[\s_-]+")


def _bare(name: str) -> str:
    return _BETWEEN_WORDS.sub("", name.strip().strip("\"'")).lower()


_FIELDS = {_bare(name): name for name in GenerationRequest.model_fields}


def named(text: str) -> str:
    """The name of a column: a field's own for `Prompt` or `"Negative Prompt"`, another as it is."""
    return _FIELDS.get(_bare(text), text.strip())


def is_field(name: str) -> bool:
    return name in GenerationRequest.model_fields


def is_number(name: str) -> bool:
    """Whether it is a field that holds a number."""
    return is_field(name) and GenerationRequest.model_fields[name].annotation in (int, float)


def is_manifest(names: Iterable[str]) -> bool:
    """Whether these are the columns of a table of ours, in whatever order it was saved again."""
    return {"number", "line", "status", "file", "prompt"} <= {*names} <= {*MANIFEST}


def harmless(text: str) -> str:
    """`text` for a spreadsheet."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_written(text: str) -> str:
    """What `harmless` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
