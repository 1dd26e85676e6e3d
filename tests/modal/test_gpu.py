"""A machine for which a GPU was asked: it finds the one that comes with a restore, or serves nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from modal._serialization import deserialize, serialize

from shared.backends.modal.worker import Worker
from shared.engine import acceleration
from shared.errors import DeviceUnavailable
from shared.prices import Machine
from shared.settings import Snapshot

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

LEFT_OUT = "torchao.prototype.mx_formats"
"""Kernels for number formats that Cygnet does not offer; torchao decides on them when imported."""


def machine(scenario: str) -> dict[str, Any]:
    """What `gpu_machine` saw."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.modal.gpu_machine", scenario],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def restored() -> dict[str, Any]:
    return machine("restored")


def test_nothing_before_the_snapshot_reaches_the_driver_whatever_a_library_asks(
    restored: dict[str, Any],
) -> None:
    assert restored["asked"] == []
    assert restored["torchao"]  # which asks when imported, and was
    heard = restored["heard"]
    assert {name: answer for name, answer in heard.items() if answer} == {
        "init": "RuntimeError", "tensor": "RuntimeError",
        "accelerator.current_device_index": "RuntimeError",
    }  # fmt: skip


def test_a_restored_machine_moves_to_its_gpu(restored: dict[str, Any]) -> None:
    assert (restored["places"], restored["gpu"]) == (["cuda"], "L40S")


def test_after_a_restore_nothing_remembers_that_there_was_no_gpu(restored: dict[str, Any]) -> None:
    """The libraries believe what they do on a machine that always had its GPU."""
    there = machine("there")
    assert restored["stale"] == there["stale"] == []
    ours, theirs = restored["beliefs"], there["beliefs"]
    assert theirs["diffusers.utils.torch_utils.torch_device"] == "'cuda'"
    both = {name for name in ours.keys() & theirs.keys() if not name.startswith(LEFT_OUT)}
    # Whether CUDA was used yet is no belief: a build that has it begins to at the first question.
    both = {name for name in both if not name.endswith("_initialized")}
    assert len(both) > 1000
    assert {name: (ours[name], theirs[name]) for name in both if ours[name] != theirs[name]} == {}


def has_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


def starts(snapshot: Snapshot) -> Worker:
    worker = Worker("cygnet-tiny", Machine(1, 1), has_gpu=True, snapshot=snapshot)
    worker.load()
    worker.wake()
    return worker


@pytest.mark.parametrize("snapshot", ["none", "cpu", "gpu"])
def test_a_machine_without_the_gpu_that_was_asked_for_says_so_and_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    has_gpus(monkeypatch, 0)
    with pytest.raises(DeviceUnavailable) as refused:
        starts(snapshot)
    told = deserialize(serialize(refused.value), None)  # as Modal passes it on to the caller
    assert isinstance(told, DeviceUnavailable)
    assert "should have a GPU (L40S or A100-80GB)" in told.message
    assert "CYGNET_MODAL_GPU" in told.next_step


@pytest.mark.parametrize("snapshot", ["none", "cpu", "gpu"])
def test_a_machine_with_a_broken_gpu_says_so_and_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    ones = torch.ones

    def broken(*size: int, **options: Any) -> torch.Tensor:
        if options.get("device") == torch.device("cuda"):
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return ones(*size, **options)

    has_gpus(monkeypatch, 1)
    monkeypatch.setattr(torch, "ones", broken)
    with pytest.raises(DeviceUnavailable, match="uncorrectable ECC error"):
        starts(snapshot)


def test_a_gpu_that_breaks_between_a_snapshot_of_it_and_the_restore_is_not_drawn_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker("cygnet-tiny", Machine(1, 1), has_gpu=True, snapshot="gpu")
    monkeypatch.setattr(acceleration, "choose_device", lambda _: torch.device("cpu"))
    from shared.engine import loading

    monkeypatch.setattr(loading, "choose_device", lambda _: torch.device("cpu"))  # stands for a GPU
    worker.load()
    monkeypatch.undo()
    has_gpus(monkeypatch, 0)
    with pytest.raises(DeviceUnavailable, match="should have a GPU"):
        worker.wake()


@pytest.mark.parametrize("snapshot", ["none", "cpu", "gpu"])
async def test_a_machine_for_which_no_gpu_was_asked_draws_without_one(
    monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot, anyio_backend: str
) -> None:
    has_gpus(monkeypatch, 0)
    worker = Worker("cygnet-tiny", Machine(1, 1), has_gpu=False, snapshot=snapshot)
    worker.load()
    worker.wake()
    request = {"prompt": "a swan", "checkpoint": "cygnet-tiny", "steps": 1, "seed": 7}
    [image, done] = await worker.run(request)
    await worker.aclose()
    assert (image["type"], done["result"]["device"]) == ("image", "cpu")
