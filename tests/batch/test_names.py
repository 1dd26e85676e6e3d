"""Files of a batch keep inside their folder, whatever the rows and the template say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared import cli
from tests.batch.conftest import Run, UseFake, error_line, manifest, pictures

Capture = pytest.CaptureFixture[str]


def test_a_file_is_named_by_number_prompt_and_seed(batch: Run, folder: Path) -> None:
    assert batch("A red fox!\nein Bär, 狐\n", "--seed", "7") == 0
    assert pictures(folder / "out") == ["000001-a-red-fox-7.png", "000002-ein-bär-狐-7.png"]
    assert [line["file"] for line in manifest(folder / "out")] == pictures(folder / "out")


def test_a_name_may_have_any_field_and_folders(batch: Run, folder: Path) -> None:
    name = "{checkpoint}/{steps} steps/{number}-{guidance_scale}"
    assert batch("a fox\nan owl", "--name", name, "--guidance-scale", "{2|2.5}") == 0
    assert pictures(folder / "out")[:2] == [
        "cygnet-tiny/20 steps/000001-2.png",
        "cygnet-tiny/20 steps/000002-2.5.png",
    ]


@pytest.mark.parametrize(
    "name",
    ["../{number}", "/tmp/{number}", "a/../{number}", "a//{number}", ".{number}", "{number}.",
     "a\\{number}", "{number}\n", "{number}:x", "{prompt}", "{number}/{prompt}", "{number!r}",
     "{number:>99999999}", "{user}", "{0}", "{number}" + "x" * 300, "", "~/{number}"],
)  # fmt: skip
def test_a_template_of_names_that_is_not_safe_is_refused(
    batch: Run, folder: Path, capsys: Capture, name: str
) -> None:
    assert batch("a fox", "--name", name) == 2
    assert "--name" in error_line(capsys)
    assert [path.name for path in folder.iterdir()] == ["prompts.txt"]


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "/etc/passwd", "C:\\x", ".. ..", "CON"])
def test_a_prompt_cannot_lead_out_of_the_folder(batch: Run, folder: Path, prompt: str) -> None:
    assert batch(prompt, "--name", "{prompt}/{number}") == 0
    [picture] = pictures(folder / "out")
    assert picture.count("/") == 1 and ".." not in picture


def test_a_name_that_is_too_long_is_refused_by_line(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    row = json.dumps({"prompt": "狐" * 60, "negative_prompt": "狸" * 60})
    assert batch(row, "--name", "{number}{prompt}{negative_prompt}", file="a.jsonl") == 2
    assert "line 1: its name would be 000001狐狐" in error_line(capsys)


def test_a_file_of_someone_else_is_kept_and_told(
    batch: Run, folder: Path, capsys: Capture, use_fake: UseFake
) -> None:
    (folder / "out").mkdir()
    (folder / "out/000001-a-fox-7.png").write_text("mine")
    assert batch("a fox\nan owl\n", "--seed", "7") == 1
    assert "[output_exists]" in capsys.readouterr().err
    assert (folder / "out/000001-a-fox-7.png").read_text() == "mine"
    assert [line["status"] for line in manifest(folder / "out")] == ["failed", "done"]
    (folder / "out/000001-a-fox-7.png").unlink()
    assert cli.main(["batch", "prompts.txt", "--out", "out", "--seed", "7"]) == 0
    assert len(pictures(folder / "out")) == 2
