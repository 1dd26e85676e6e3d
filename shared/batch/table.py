"""The manifest as a table: `manifest.csv`, a row for each picture in the order of their numbers.

Spreadsheets run what begins like a formula, and prompts come from anywhere: a text that begins with
one of = + - @, a tab or a line end gets an apostrophe before it. The exact text is in the JSON Lines.
"""

from __future__ import annotations

import codecs
import csv
from pathlib import Path

from shared.batch.manifest import Entry, Manifest
from shared.contract import GenerationRequest, Timings
from shared.files import open_atomically

NAME = "manifest.csv"

_REQUEST = [name for name in GenerationRequest.model_fields if name not in ("seed", "num_images")]
_SECONDS = list(Timings.model_fields)
_COLUMNS = [
    *("number", "line", "status", "file", "seed", "template"),
    *_REQUEST,
    *("backend", "backend_reason", "device"),
    *(f"{phase}_s" for phase in _SECONDS),
    *("cost_usd", "attempts", "finished", "error", "error_message", "remarks"),
]
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_table(manifest: Manifest) -> Path:
    """Write the table beside the manifest, in place of an older one. Raises what a file may raise."""
    path = manifest.path.with_name(NAME)
    with open_atomically(path, force=True) as file:
        table = csv.writer(codecs.getwriter("utf-8")(file))
        table.writerow(_COLUMNS)
        table.writerows(_row(entry) for entry in manifest.entries())
    return path


def _row(entry: Entry) -> list[object]:
    timings = entry.timings.model_dump() if entry.timings else {}
    cells = [
        *(entry.number, entry.line, entry.status, entry.file, entry.seed),
        entry.template.get("prompt"),
        *(entry.request.get(name) for name in _REQUEST),
        *(entry.backend, entry.backend_reason, entry.device),
        *(timings.get(phase) for phase in _SECONDS),
        *(entry.cost_usd, entry.attempts, entry.finished),
        *((entry.error.code, entry.error.message) if entry.error else (None, None)),
        " ".join(entry.remarks),
    ]
    return [_harmless(cell) if isinstance(cell, str) else cell for cell in cells]


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
