"""The gallery page: one HTML file beside the pictures, which needs no server and no network.

Its style and script lie inside it, and a content security policy names them by their digests: nothing
else may run, whatever a prompt holds. Every text is escaped, every address is a path below the page.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from shared.album.pictures import Contents, Shown
from shared.batch.manifest import Entry
from shared.batch.progress import describe
from shared.files import as_text

_HERE = Path(__file__).parent


def page(contents: Contents) -> str:
    """The whole page."""
    frame, style, script = (_asset(kind) for kind in ("html", "css", "js"))
    return Template(frame).substitute(
        title=escape(contents.name),
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
        count=f"{len(contents.pictures):,}",
        cards="\n".join(map(_card, contents.pictures)),
        failures="\n".join(_failures(contents.failures)),
    )


def _asset(kind: str) -> str:
    return (_HERE / f"page.{kind}").read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _card(picture: Shown) -> str:
    width, height = picture.size
    prompt = escape(picture.prompt or as_text(picture.path))
    address = escape(quote(os.fsencode(picture.path)))
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"
        for name, text in picture.settings.items()
    )
    return (
        f'<li><a href="./{address}" aria-label="{prompt}">'
        f'<img src="./{address}" width="{width}" height="{height}" alt="" '
        f'loading="lazy" decoding="async"></a><p>{prompt}</p><dl>{rows}</dl></li>'
    )


def _failures(failures: list[Entry]) -> Iterator[str]:
    if failures:
        yield f"<details><summary>{len(failures):,} failed</summary><ul>"
        yield from (f"<li>{escape(describe(entry))}</li>" for entry in failures)
        yield "</ul></details>"
