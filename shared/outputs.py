"""Where the pictures of one request go: a folder, where each gets a name of its own, or a file."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.contract import GenerationRequest, ImageReady
from shared.errors import InvalidRequest, OutputExists
from shared.files import check_folder, check_free, is_folder, native, write_atomically
from shared.formats import FORMAT_OF_SUFFIX, SUFFIXES, OutputFormat

_LONGEST_SLUG = 40


def format_of(out: str) -> OutputFormat | None:
    """The format that the file name `out` asks for, or None if `out` is a folder.

    A name without a suffix is a folder, and so is one that ends with a slash or exists as one.
    """
    suffix = Path(out).suffix.lower()
    if not suffix or out.endswith(("/", os.sep)) or is_folder(out):
        return None
    if suffix not in FORMAT_OF_SUFFIX:
        raise InvalidRequest(
            f"--out {out} has the suffix {suffix}, which is no format of Cygnet's.",
            f"Use {', '.join(FORMAT_OF_SUFFIX)}, or end the name of a folder with /.",
            ("output_format",),
        )
    return FORMAT_OF_SUFFIX[suffix]


class Outputs:
    """Saves images as they come. Found at the start: an unwritable folder, a name that is taken.

    Files: `cat.png` for one image, `cat-1.png`, `cat-2.png`, ... for several. Folders: the prompt
    and the seed, and -2, -3, ... where that name is taken.
    """

    def __init__(self, out: str, request: GenerationRequest, *, force: bool) -> None:
        self.saved: list[dict[str, Any]] = []
        self._request, self._force = request, force
        self._out, self._is_file = Path(out), format_of(out) is not None
        if self._is_file and not force:
            for index in range(request.num_images):
                check_free(self._numbered(index))
        check_folder(self._out.parent if self._is_file else self._out)

    @property
    def count(self) -> str:
        """How many images are saved, in words."""
        saved, wanted = len(self.saved), self._request.num_images
        if wanted == 1:
            return "The image was saved" if saved else "No image was saved"
        return f"{saved} of {wanted} images {'was' if saved == 1 else 'were'} saved"

    def save(self, event: ImageReady) -> Path:
        """Write the image's file; its path."""
        names = iter([self._numbered(event.index)]) if self._is_file else self._names(event.seed)
        path = self._write_first_free(names, event.image)
        self.saved.append({"index": event.index, "seed": event.seed, "path": str(path)})
        return path

    def _write_first_free(self, names: Iterator[Path], data: bytes) -> Path:
        for path in names:
            try:
                write_atomically(path, data, force=self._force)
                return path
            except OutputExists:
                if self._is_file:
                    raise
        raise AssertionError("the names of a folder never end")

    def _numbered(self, index: int) -> Path:
        if self._request.num_images == 1:
            return self._out
        return self._out.with_stem(f"{self._out.stem}-{index + 1}")

    def _names(self, seed: int) -> Iterator[Path]:
        stem = native(f"{slug(self._request.prompt)}-{seed}")
        suffix = SUFFIXES[self._request.output_format]
        yield self._out / f"{stem}{suffix}"
        for count in itertools.count(2):
            yield self._out / f"{stem}-{count}{suffix}"


def slug(prompt: str) -> str:
    """The prompt's first words as part of a file name: letters and digits of any script."""
    words = re.sub(r"[\W_]+", "-", prompt.lower())
    return words[:_LONGEST_SLUG].strip("-") or "picture"
