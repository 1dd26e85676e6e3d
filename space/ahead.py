"""CYGNET_COMPILE on ZeroGPU: blocks are compiled when the Space starts, by the package `spaces`.

Each call there has a process of its own, which would compile again at its first step; the host
forbids that. What is compiled ahead of time lies in a file, and those processes load it.
"""

from __future__ import annotations

import tempfile
from typing import Any

from shared.engine.export import export_block, forwards, keep_for_other_shapes, recipe_forward
from shared.engine.loading import Model
from shared.errors import UnsupportedSetting, reason

_LONGEST = 1500
"""Seconds of GPU that the host grants a Space while it starts (huggingface.co/blog/zerogpu-aoti)."""


def compile_ahead(model: Model, spaces: Any) -> None:
    """Replace the blocks by compiled ones; `spaces` is that package, or what stands in for it.

    They are for the checkpoint's default size and guidance, one picture at a time, and any length
    of text; other shapes use the blocks as they were. One call for a GPU compiles, and a second one
    proves it by a forward. Raises `UnsupportedSetting` if that fails.
    """
    folder = tempfile.mkdtemp(prefix="cygnet-compiled-")  # read for as long as the Space runs

    def compile_block() -> None:
        spaces.aoti_compile_and_save(folder, export_block(model), submodule="blocks")

    def prove() -> None:
        recipe_forward(model)

    try:
        spaces.GPU(duration=_LONGEST)(compile_block)()
        ordinary = forwards(model)
        spaces.aoti_load_from_package_dir(model.transformer, folder)
        keep_for_other_shapes(model, ordinary)
        spaces.GPU()(prove)()
    except Exception as error:  # the host's, the compiler's, the kernels': each has its own
        raise UnsupportedSetting(
            f"This Space cannot compile ahead of time: {reason(error)}.", "Unset CYGNET_COMPILE."
        ) from error
