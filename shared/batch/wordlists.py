"""Wordlists: `{style}` in a template stands for the lines of `style.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shared.batch.source import Source
from shared.errors import InvalidRequest

MAX_WORDS = 100_000


class Wordlists:
    """The wordlists of a folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Sequence[str]] = {}

    def __call__(self, name: str) -> Sequence[str]:
        """The lines of the wordlist, without the empty ones. Raises `InvalidRequest`."""
        if name not in self._read:
            self._read[name] = self._lines(self._folder / f"{name}.txt")
        return self._read[name]

    def _lines(self, path: Path) -> Sequence[str]:
        if not path.is_file():
            raise InvalidRequest(
                f"the wordlist {path} is not there.",
                f"Make it, a line for each choice, or write \\{{{path.stem}\\}} for the text.",
            )
        words = []
        with Source(str(path), "text") as source:
            for row in source.rows():
                words.append(row.fields["prompt"])
                if len(words) > MAX_WORDS:
                    raise InvalidRequest(f"{path} has more than {MAX_WORDS:,} lines.", "Split it.")
        if not words:
            raise InvalidRequest(f"the wordlist {path} is empty.", "Write a choice on each line.")
        return words
