"""The command line where the locale's encoding is ASCII, as under cron, systemd and in slim images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.images import read_recipe

ROOT = Path(__file__).parents[1]
PROMPT = "café à gogo 狐"
NAME = "café-à-gogo-狐-1.png"

pytestmark = pytest.mark.skipif(
    os.name == "nt" or sys.getfilesystemencoding() != "utf-8", reason="needs names in UTF-8"
)


def cygnet(*arguments: str, locale: str = "C") -> bytes:
    """What the command says on stdout. Fails if it fails."""
    environment = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-m", "shared.cli", *arguments],
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_prompt_with_accents_is_drawn_and_its_file_found(folder: Path) -> None:
    said = cygnet("generate", PROMPT, "--backend", "fake", "--seed", "1", "--out", "made")
    assert [path.name for path in (folder / "made").iterdir()] == [NAME]
    assert said.splitlines()[0].decode().startswith(f"made/{NAME} ")
    assert read_recipe(folder / "made" / NAME).fields["prompt"] == PROMPT


def test_a_name_with_accents_on_the_command_line_is_that_file(folder: Path) -> None:
    cygnet("generate", "a", "--backend", "fake", "--negative-prompt", "é", "--out", "é.png")
    assert read_recipe(folder / "é.png").fields["negative_prompt"] == "é"
    assert b"png" in cygnet("inspect", "é.png")


def test_a_batch_goes_on_in_another_locale_where_it_stopped(folder: Path) -> None:
    (folder / "prompts.txt").write_text(f"{PROMPT}\nun château\n", encoding="utf-8")
    command = ("batch", "prompts.txt", "--out", "made", "--backend", "fake")
    cygnet(*command)
    made = {path: path.stat().st_mtime_ns for path in (folder / "made").glob("*.png")}
    assert len(made) == 2 and any("château" in path.name for path in made)
    for locale in ("C.UTF-8", "C"):
        cygnet(*command, locale=locale)
        assert {path: path.stat().st_mtime_ns for path in (folder / "made").glob("*.png")} == made


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_folder_of_such_names_is_laid_out(folder: Path, with_manifest: bool) -> None:
    (folder / "prompts.txt").write_text(PROMPT, encoding="utf-8")
    cygnet("batch", "prompts.txt", "--out", "ché", "--backend", "fake")
    if not with_manifest:
        (folder / "ché" / "manifest.jsonl").unlink()
    said = cygnet("gallery", "ché").decode()
    assert said.splitlines() == ["ché/gallery.html", "ché/contact-sheet.png"]
    page = (folder / "ché" / "gallery.html").read_text(encoding="utf-8")
    assert PROMPT in page and "caf%C3%A9" in page


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_name_that_is_no_text_at_all_is_laid_out_too(folder: Path, locale: str) -> None:
    cygnet("generate", "a fox", "--backend", "fake", "--out", "made/fox.png")
    try:
        Path("made/fox.png").rename(os.fsdecode(b"made/caf\xe9.png"))
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    cygnet("gallery", "made", locale=locale)
    assert "caf%E9.png" in (folder / "made" / "gallery.html").read_text(encoding="utf-8")
