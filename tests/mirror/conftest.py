"""A Hub to publish to, and a checkout of a few files, which a test may change."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from shared.mirror import tree
from shared.settings import settings
from tests.mirror.stand_in import TOKEN, Hub, running


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a Space is laid out from: the real files of its root, and a little below, one of it large."""
    root = tmp_path / "checkout"
    for path in (*tree.AT_THE_ROOT, "pyproject.toml", "constraints.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes((tree.CHECKOUT / path).read_bytes())
    (root / "space/page").mkdir()
    (root / "space/page/looks.py").write_text("COLOUR = 'blue'\n")
    (root / "shared/weights").mkdir(parents=True)
    (root / "shared/__init__.py").write_text("")
    (root / "shared/weights/model.safetensors").write_bytes(b"w" * 2_000_000)
    monkeypatch.setattr(tree, "CHECKOUT", root)
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that the environment leads to, with a token that may write there."""
    with running(Hub()) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        settings.cache_clear()
        with warnings.catch_warnings():
            # It uploads large files through a parameter that its own HTTP client calls old.
            warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
            yield hub
