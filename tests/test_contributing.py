"""The worked examples of CONTRIBUTING.md: each patch applies, and the command after it draws."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.images import read_recipe

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = re.findall(r"^### (.*?)\n.*?^```diff\n(.*?)^```\n\n```sh\n(.*?)\n```", PAGE, re.M | re.S)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the sources, with the weights of the original."""
    skip = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "shared", tmp_path / "shared", ignore=skip)
    (tmp_path / "shared/weights").symlink_to(ROOT / "shared/weights")
    return tmp_path


@pytest.mark.parametrize(("title", "patch", "command"), EXAMPLES, ids=[one[0] for one in EXAMPLES])
def test_a_worked_example_does_what_it_says(
    house: Path, title: str, patch: str, command: str
) -> None:
    subprocess.run(["git", "apply", "-"], cwd=house, input=patch, text=True, check=True)
    program, *words = shlex.split(command)
    assert program == "cygnet"
    drawn = subprocess.run(
        [sys.executable, "-m", "shared.cli", *words], cwd=house, capture_output=True, text=True
    )
    assert drawn.returncode == 0, drawn.stderr
    [picture] = house.glob("*.png")
    assert read_recipe(picture).fields["seed"] == 7


def test_there_is_an_example_for_each_thing_that_is_added() -> None:
    titles = re.findall(r"^### (.*)", PAGE, flags=re.M)
    assert titles == [title for title, _, _ in EXAMPLES]
    assert titles == ["Add a checkpoint", "Add a sampler", "Add a backend"]
