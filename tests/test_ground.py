"""The ground the project stands on: make, packaging, pins and continuous integration."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import shared

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TINY = Path("shared/weights/cygnet-tiny")


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make as a person would, whatever the make that runs these tests was given."""
    ours = re.compile("MAKE|MFLAGS|PROMPT$|ARGS$|VENV$")
    outside = {name: value for name, value in os.environ.items() if not ours.match(name)}
    return subprocess.run(
        ["make", "--directory", str(ROOT), "--no-print-directory", *arguments],
        env=outside | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment that looks installed; its `cygnet` says what it was given, as JSON."""
    tell = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
    executable(tmp_path / "venv/bin/cygnet", tell)
    executable(tmp_path / "venv/bin/python", "#!/bin/sh\nexit 1\n")
    (tmp_path / "venv/.local").touch()
    return tmp_path / "venv"


HOSTILE = [
    'it\'s a "red" fox',
    "$HOME $$ ${PATH} $(MAKE)",
    "$(shell touch broken) `touch broken` $(touch broken)",
    "a; touch broken && touch broken | touch broken > broken # a comment",
    "--seed",
    "\\ \\n \\$ %s *.py ~ !! ünïcödé 狐",
]


@pytest.mark.parametrize("prompt", HOSTILE)
@pytest.mark.parametrize("road", ["argument", "environment"])
def test_make_image_hands_any_prompt_on_as_typed(venv: Path, prompt: str, road: str) -> None:
    given = [f"PROMPT={prompt}"] if road == "argument" else []
    environment = {"PROMPT": prompt} if road == "environment" else {}
    done = make("image", f"VENV={venv}", *given, **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["generate", "--", prompt]
    assert not (ROOT / "broken").exists()


def test_make_image_hands_options_on(venv: Path) -> None:
    done = make("image", f"VENV={venv}", "PROMPT=a fox", "ARGS=--seed 7 --out fox.png")
    assert json.loads(done.stdout) == ["generate", "--seed", "7", "--out", "fox.png", "--", "a fox"]


def test_make_image_without_a_prompt_asks_for_one_and_installs_nothing(tmp_path: Path) -> None:
    done = make("image", f"VENV={tmp_path / 'venv'}", PROMPT="")
    assert done.returncode == 2
    assert 'make image PROMPT="' in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ERROR: A\\nERROR: No matching distribution found for torch", "No matching distribution"),
        ("WARNING: connection broken by 'X'\\nERROR: B", "the package index cannot be reached"),
        ("Killed", "pip stopped"),
    ],
)
def test_a_failed_install_is_one_line_with_step_and_reason(
    venv: Path, said: str, reason: str
) -> None:
    (venv / ".local").unlink()
    executable(venv / "bin/python", f"#!/bin/sh\nprintf '{said}\\n'\nexit 1\n")
    done = make("image", f"VENV={venv}", "PROMPT=a fox")
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert line.startswith(f"Installing Cygnet for local use failed: {reason}")
    assert str(venv / "install.log") in line
    assert not (venv / ".local").exists()


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        (None, "no Python 3.11 or newer on the PATH"),
        ("exit 1", "no Python 3.11 or newer on the PATH"),
        ('case "$2" in *ensurepip*) exit 1; esac', "python3.11 has no venv module"),
        ('case "$3" in --clear) echo "disk full" >&2; exit 1; esac', "disk full"),
    ],
)
def test_a_machine_without_a_fitting_python_is_told_so(
    tmp_path: Path, python: str | None, reason: str
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "sh", "rm", "tail"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    if python:
        executable(tools / "python3.11", f"#!/bin/sh\n{python}\n")
    program = shutil.which("make") or "make"
    done = subprocess.run(
        [program, "--directory", str(ROOT), "image", "PROMPT=a", f"VENV={tmp_path / 'venv'}"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert f"Making {tmp_path / 'venv'} failed: " in done.stderr
    assert reason in done.stderr


def test_make_alone_lists_every_target() -> None:
    phony = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), flags=re.M)
    targets = set(phony[0].split()) - {"help", "prompt"}
    shown = set(re.findall(r"make (\w+)", make().stdout))
    assert targets == shown


@pytest.mark.parametrize("command", ["serve", "mcp"])
def test_make_serve_and_make_mcp_hand_options_on(venv: Path, command: str) -> None:
    (venv / f".{command}").touch()
    done = make(command, f"VENV={venv}", "ARGS=--port 0")
    assert json.loads(done.stdout) == [command, "--port", "0"]


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_a_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    if requirement.name == PROJECT["name"]:
        assert requirement.extras <= PROJECT["optional-dependencies"].keys()
        return
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert requirement.specifier.contains(pins[requirement.name])


def test_the_version_is_written_in_one_place() -> None:
    assert version("cygnet") == shared.__version__
    assert "version" in PROJECT["dynamic"]


def test_the_command_is_installed() -> None:
    [script] = entry_points(group="console_scripts", name="cygnet")
    assert callable(script.load())


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for package in ("shared", "space"):
        shutil.copytree(ROOT / package, source / package, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, "-m", *build, str(tmp_path), str(source)], check=True)
    [wheel] = tmp_path.glob("cygnet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        ours = ("shared/", "space/page/")
        packed = {name for name in archive.namelist() if name.startswith(ours)}
        assert not [name for name in archive.namelist() if name.startswith(("tests", "training"))]
        archive.extractall(tmp_path / "installed")
    files = [file for part in ours for file in (source / part).rglob("*") if file.is_file()]
    assert packed == {path.relative_to(source).as_posix() for path in files}
    assert (TINY / "model_index.json").as_posix() in packed

    listed = subprocess.run(
        [sys.executable, "-m", "shared.cli", "checkpoints", "--json"],
        cwd=tmp_path / "installed",
        check=True,
        capture_output=True,
    )
    here = {row["name"] for row in json.loads(listed.stdout) if row["here"]}
    assert {"cygnet-tiny", "cygnet-tiny-fast"} <= here


def test_github_runs_what_every_other_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    for step in steps:
        assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "@" + "0" * 40))
