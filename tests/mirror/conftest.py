"""A checkout of a few files, which a test may change."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.mirror import tree


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
