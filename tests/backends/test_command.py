"""Backends by the command line: the table of them, `--backend`, and one picture wherever it is drawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared import cli
from shared.backends.child import ChildBackend
from shared.backends.local import LocalBackend
from shared.contract import collect, parse_request
from shared.images import read_recipe
from shared.settings import settings
from tests.engine.conftest import pixels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

FILE = """
[backends.studio]
kind = "api"
address = "http://127.0.0.1:9"
checkpoint = "wan2.1-14b"

[backends.dots]
kind = "fake"
price = 0.02

[limits]
per_day = 0.03
"""

NAMES = ("studio", "dots", "local")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file of backends; the first in it cannot be reached."""
    path = folder / "backends.toml"
    path.write_text(FILE)
    monkeypatch.setenv("CYGNET_CONFIG", str(path))
    settings.cache_clear()
    return path


def run(*argv: str) -> int:
    return cli.main(argv)


def test_backends_are_a_table_of_80_columns(file: Path, capsys: Capture) -> None:
    assert run("backends") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines[:-1]) <= 80
    studio, dots, local = (next(line for line in lines if f" {name} " in line) for name in NAMES)
    assert studio.split() == ["1", "studio", "api", "down", "?", "?", "wan2.1-14b"]
    assert dots.split() == ["2", "dots", "fake", "warm", "?", "$0.02", "cygnet-tiny"]
    assert local.split() == ["3", "local", "local", "cold", "?", "$0.00", "cygnet-tiny"]
    assert "   The server does not answer." in lines
    assert str(file) in lines[-1]


def test_what_could_be_set_up_is_shown_with_the_variable_that_does_it(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("backends") == 0
    lines = capsys.readouterr().out.splitlines()
    offered = {words[0]: words[4] for line in lines if (words := line.split())[1:2] == ["not"]}
    assert offered == {"modal": "CYGNET_MODAL_URL", "space": "CYGNET_SPACE"}  # the file has an api
    for line in lines:
        assert line == line.rstrip()
    monkeypatch.setenv("CYGNET_SPACE", "http://127.0.0.1:9")
    settings.cache_clear()
    assert run("backends") == 0
    assert "CYGNET_SPACE" not in capsys.readouterr().out


def test_backends_as_json_are_the_same_table(file: Path, capsys: Capture) -> None:
    assert run("backends", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [*NAMES]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert [(row["healthy"], row["warm"]) for row in rows] == [
        (False, False),
        (True, True),
        (True, False),
    ]
    assert [row["price_usd"] for row in rows] == [None, 0.02, 0]
    assert "cygnet-tiny" in rows[2]["checkpoints"]


def test_auto_says_who_drew_and_why(file: Path, capsys: Capture) -> None:
    assert run("generate", "a fox", "--backend", "auto", "--json", "--out", "fox.png") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)["result"]
    why = "the first that is warm. studio did not serve: The server does not answer."
    assert (result["backend"], result["backend_reason"]) == ("dots", why)
    assert result["cost_usd"] == 0.02
    assert f"Drawn by dots: {why}" in printed.err


def test_a_limit_is_refused_with_the_figure_and_leaves_no_file(file: Path, capsys: Capture) -> None:
    assert run("generate", "a fox", "--backend", "dots", "--out", "fox.png") == 0
    capsys.readouterr()
    assert run("generate", "a fox", "--backend", "dots", "--out", "two.png") == 1
    said = capsys.readouterr().err
    assert "error[spending_limit]: This would cost about $0.02 on dots, and of $0.03" in said
    assert "$0.02 is spent" in said and str(file) in said
    assert not Path("two.png").exists()


def test_the_default_backend_of_the_doors_is_a_setting(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_BACKEND", "dots")
    settings.cache_clear()
    assert run("generate", "a fox", "--json", "--quiet", "--out", "fox.png") == 0
    assert json.loads(capsys.readouterr().out)["result"]["backend"] == "dots"
    monkeypatch.setenv("CYGNET_BACKEND", "clouds")
    settings.cache_clear()
    assert run("generate", "a fox") == 2
    assert "error[unknown_backend]: There is no backend named 'clouds'" in capsys.readouterr().err


def test_a_backend_that_was_named_brings_its_checkpoint(file: Path, capsys: Capture) -> None:
    file.write_text(FILE + '[backends.fast]\nkind = "fake"\ncheckpoint = "cygnet-tiny-fast"\n')
    for name, checkpoint in (("fast", "cygnet-tiny-fast"), ("auto", "cygnet-tiny")):
        assert run("generate", "a fox", "--backend", name, "--json", "--quiet", "--force") == 0
        result = json.loads(capsys.readouterr().out)["result"]
        assert result["request"]["checkpoint"] == checkpoint


def test_a_file_that_is_wrong_is_one_line(file: Path, capsys: Capture) -> None:
    file.write_text('[backends.studio]\nkind = "api"\nkey = "sk-secret"')
    for argv in (["backends"], ["generate", "a fox"], ["serve", "--port", "0"]):
        assert run(*argv) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error[invalid_setting]: {file}: backends.studio.key")
        assert "sk-secret" not in line


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a real `cygnet serve` that has the fast checkpoint loaded."""
    kept = {
        "CYGNET_DATA_DIR": str(tmp_path / "served"),
        "CYGNET_CHECKPOINT": "cygnet-tiny-fast",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "shared.cli", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | kept,
    )
    assert process.stdout
    with process, process.stdout:
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=120) as client:  # the warm-up is in the queue's way
            wanted = {"prompt": "a swan", "checkpoint": "cygnet-tiny-fast", "steps": 1}
            job = client.post("/v1/jobs", json=wanted).json()["id"]
            assert "event: done" in client.get(f"/v1/jobs/{job}/events").text
        yield url
        process.terminate()


@pytest.mark.anyio
async def test_one_request_gives_one_picture_wherever_it_is_drawn(
    server: str, folder: Path
) -> None:
    asked = ("generate", "a red fox, 3d render", "--seed=7", "--checkpoint=cygnet-tiny-fast")
    ran = subprocess.run(
        [sys.executable, "-m", "shared.cli", *asked, "--backend=auto", "--json", "--out=fox.png"],
        env=os.environ | {"CYGNET_API_URL": server, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=300,
    )
    assert json.loads(ran.stdout)["result"]["backend"] == "api", ran.stderr
    request = parse_request(read_recipe(Path("fox.png")).fields)
    assert (request.seed, request.checkpoint) == (7, "cygnet-tiny-fast")
    for backend in (ChildBackend(), LocalBackend()):
        _, [image] = await collect(backend.generate(request))
        await backend.aclose()
        assert (pixels(image) == pixels(Path("fox.png").read_bytes())).all()
