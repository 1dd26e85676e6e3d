"""The manifest as a table: `manifest.csv`, a row for each picture in the order of their numbers.

It begins with UTF-8's mark, without which Excel takes it for another encoding. What would be run as a
formula is made harmless; the exact text is in the JSON Lines.
"""

from __future__ import annotations

import codecs
import csv
from pathlib import Path

from shared.batch.columns import MANIFEST, REQUEST, SECONDS, harmless
from shared.batch.manifest import Entry, Manifest
from shared.files import open_atomically

NAME = "manifest.csv"


def write_table(manifest: Manifest) -> Path:
    """Write the table beside the manifest, in place of an older one. Raises what a file may raise."""
    path = manifest.path.with_name(NAME)
    with open_atomically(path, force=True) as file:
        table = csv.writer(codecs.getwriter("utf-8-sig")(file))
        table.writerow(MANIFEST)
        table.writerows(_row(entry) for entry in manifest.entries())
    return path


def _row(entry: Entry) -> list[object]:
    timings = entry.timings.model_dump() if entry.timings else {}
    cells = [
        *(entry.number, entry.line, entry.status, entry.file, entry.seed),
        entry.template.get("prompt"),
        *(entry.request.get(name) for name in REQUEST),
        *(entry.backend, entry.backend_reason, entry.device),
        *(timings.get(phase) for phase in SECONDS),
        *(entry.cost_usd, entry.attempts, entry.finished),
        *((entry.error.code, entry.error.message) if entry.error else (None, None)),
        " ".join(entry.remarks),
    ]
    return [harmless(cell) if isinstance(cell, str) else cell for cell in cells]
