"""The workflow that keeps the Space in step with main."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared import cli
from shared.settings import settings
from tests.mirror.stand_in import Hub

WORKFLOWS = Path(__file__).parents[2] / ".github/workflows"


@pytest.fixture
def workflow() -> dict[Any, Any]:
    return yaml.safe_load((WORKFLOWS / "mirror-space.yml").read_text())


def test_it_runs_at_every_push_to_main_and_reads_only(workflow: dict[Any, Any]) -> None:
    assert workflow[True]["push"] == {"branches": ["main"]}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is False


def test_its_actions_are_the_pinned_ones_of_ci(workflow: dict[Any, Any]) -> None:
    pins = re.findall(r"uses: (\S+@[0-9a-f]{40}) # v", (WORKFLOWS / "ci.yml").read_text())
    used = [step["uses"] for step in workflow["jobs"]["publish"]["steps"] if "uses" in step]
    assert used and set(used) <= set(pins)


def test_its_last_step_publishes_to_the_space_that_its_settings_name(
    workflow: dict[Any, Any], hub: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = workflow["jobs"]["publish"]["steps"][-1]
    assert step["env"] == {
        "CYGNET_SPACE": "${{ vars.CYGNET_SPACE }}",
        "HF_TOKEN": "${{ secrets.HF_TOKEN }}",
    }
    monkeypatch.setenv("CYGNET_SPACE", "swan/cygnet")
    settings.cache_clear()
    command, *words = shlex.split(os.path.expandvars(step["run"]))
    assert command == "cygnet"
    assert cli.main(words) == 0
    assert "app.py" in hub.spaces["swan/cygnet"].files
