"""The table of checkpoints, and folders that are made known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import checkpoints
from shared.checkpoints import CHECKPOINTS, Checkpoint, add_folder, get_checkpoint
from shared.contract import parse_request
from shared.errors import CheckpointCorrupt, UnknownCheckpoint


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {row.name: row for row in CHECKPOINTS}
    monkeypatch.setattr(checkpoints, "_registry", known)


def write(folder: Path, **changed: Any) -> Path:
    """A checkpoint's configuration in diffusers' format, without weights."""
    contents = {
        "model_index.json": {"_class_name": "WanPipeline"},
        "transformer/config.json": {"patch_size": [1, 2, 2]},
        "vae/config.json": {"scale_factor_spatial": 8},
        "scheduler/scheduler_config.json": {"_class_name": "UniPC", "flow_shift": 3.0},
    }
    for name, content in contents.items():
        content = changed.get(name.split("/")[0].removesuffix(".json"), content)
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_a_row_makes_sense(row: Checkpoint) -> None:
    assert get_checkpoint(row.name) is row
    assert (row.repository is None) != (row.folder is None)
    assert parse_request({"prompt": "a", "checkpoint": row.name}).checkpoint == row.name
    if row.sigmas:
        assert len(row.sigmas) == row.steps
        assert list(row.sigmas) == sorted(row.sigmas, reverse=True)


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_its_presets_are_sizes_that_a_request_may_have(row: Checkpoint) -> None:
    assert row.sizes[0] == (row.width, row.height)
    assert len(set(row.sizes)) == len(row.sizes)
    for width, height in row.sizes:
        parse_request({"prompt": "a", "checkpoint": row.name, "width": width, "height": height})


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownCheckpoint) as refusal:
        get_checkpoint("cygnet-tny")
    assert "Did you mean cygnet-tiny?" in refusal.value.next_step


def test_the_name_of_a_folder_that_is_not_known_here_asks_for_its_path() -> None:
    with pytest.raises(UnknownCheckpoint, match="give the path of that folder"):
        get_checkpoint("local:mine")


def test_a_path_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint):
        get_checkpoint(str(write(tmp_path)))


def test_a_folder_is_known_by_its_name_and_not_by_its_path(tmp_path: Path) -> None:
    row = add_folder(write(tmp_path / "mine"))
    assert row.name == "local:mine"
    assert get_checkpoint("local:mine") is row
    assert (row.size_multiple, row.shift, row.scheduler) == (16, 3.0, "unipc")
    assert parse_request({"prompt": "a", "checkpoint": "local:mine"}).width == 512


def test_the_grid_follows_the_vae_and_the_patch(tmp_path: Path) -> None:
    row = add_folder(write(tmp_path, vae={"scale_factor_spatial": 16}))
    assert (row.size_multiple, row.min_size, row.max_size) == (32, 32, 1280)


def test_the_size_in_memory_is_counted_from_the_parameters(tmp_path: Path) -> None:
    write(tmp_path)
    # A million numbers, in float32 on the disk and in bfloat16 in memory.
    header = b'{"__metadata__": {}, "w": {"dtype": "F32", "shape": [1024, 1024]}}'
    weights = len(header).to_bytes(8, "little") + header
    (tmp_path / "vae" / "weights.safetensors").write_bytes(weights)
    (tmp_path / "vae" / "damaged.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "vae" / "broken.safetensors").symlink_to(tmp_path / "nowhere")
    assert add_folder(tmp_path).memory_gib == 2 * 2**20 / 2**30


@pytest.mark.parametrize("path", ["nowhere", "~nobody-of-that-name/x", "null\0byte", "x" * 5000])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnknownCheckpoint):
        add_folder(Path(path) if path.startswith("~") else tmp_path / path)


@pytest.mark.parametrize(
    "changed",
    [
        {"model_index": {"_class_name": "FluxPipeline"}},
        {"model_index": "{"},
        {"model_index": "[]"},
        {"transformer": {}},
        {"transformer": {"patch_size": [1, 0, 0]}},
        {"transformer": {"patch_size": [1, -2, 2]}},
        {"transformer": {"patch_size": [1, 9999, 2]}},
        {"vae": "[" * 100_000},
        {"vae": {"scale_factor_spatial": "eight"}},
        {"scheduler": '{"_class_name": "UniPC", "flow_shift": NaN}'},
        {"scheduler": {"_class_name": "UniPC", "flow_shift": -1}},
    ],
    ids=str,
)
def test_a_folder_that_makes_no_sense_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(CheckpointCorrupt) as refusal:
        add_folder(write(tmp_path, **changed))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_a_folder_without_a_part_is_refused_with_the_part(tmp_path: Path) -> None:
    (write(tmp_path) / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointCorrupt, match=r"vae/config\.json: No such file"):
        add_folder(tmp_path)


@given(st.text())
def test_any_name_is_known_or_refused(name: str) -> None:
    if name not in {row.name for row in CHECKPOINTS}:
        with pytest.raises(UnknownCheckpoint):
            get_checkpoint(name)
