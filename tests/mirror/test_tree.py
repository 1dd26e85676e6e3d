"""`cygnet space build` and `check`: what lies in the Space's repository, and what is no such thing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from shared import cli
from shared.mirror import tree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def space(checkout: Path, tmp_path: Path) -> Path:
    """A Space as it was laid out."""
    folder = tmp_path / "space"
    assert cli.main(["space", "build", str(folder)]) == 0
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `cygnet space check` says; empty if it is content."""
    capsys.readouterr()
    code = cli.main(["space", "check", str(folder)])
    told = capsys.readouterr().err
    assert code == (2 if told else 0)
    return told


def test_a_space_is_what_the_checkout_has_of_it_byte_for_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["space", "build", str(tmp_path / "space")]) == 0
    known = subprocess.run(
        ["git", "ls-files", "shared", "space", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    to_root = {path: Path(path).name for path in tree.AT_THE_ROOT}
    expected = {to_root.get(path, path): (ROOT / path).read_bytes() for path in known}
    assert files(tmp_path / "space") == expected
    assert not check(tmp_path / "space", capsys)


def test_what_python_and_editors_leave_behind_stays_out(checkout: Path, tmp_path: Path) -> None:
    for path in ("shared/__pycache__/x.pyc", "space/.DS_Store", "shared/.cache/y"):
        (checkout / path).parent.mkdir(exist_ok=True)
        (checkout / path).write_bytes(b"x")
    assert cli.main(["space", "build", str(tmp_path / "space")]) == 0
    assert sorted(files(tmp_path / "space")) == [
        "LICENSE",
        "README.md",
        "app.py",
        "requirements.txt",
        "shared/__init__.py",
        "shared/weights/model.safetensors",
        "space/page/looks.py",
    ]


@pytest.fixture
def clone(checkout: Path) -> Path:
    """The checkout as a clone, with everything tracked."""
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)
    return checkout


def test_of_a_clone_only_what_git_tracks_is_laid_out(clone: Path, tmp_path: Path) -> None:
    (clone / ".gitignore").write_text("*.pem\n")
    for stray in ("shared/my-key.txt", "shared/weights/key.pem", "space/page/notes.md"):
        (clone / stray).write_text("mine")
    (clone / "shared/__init__.py").unlink()
    (clone / "space/page/looks.py").write_text("COLOUR = 'red'\n")
    assert cli.main(["space", "build", str(tmp_path / "space")]) == 0
    laid_out = files(tmp_path / "space")
    assert sorted(laid_out) == [
        "LICENSE",
        "README.md",
        "app.py",
        "requirements.txt",
        "shared/weights/model.safetensors",
        "space/page/looks.py",
    ]
    assert laid_out["space/page/looks.py"] == b"COLOUR = 'red'\n"


def test_nothing_is_laid_out_of_a_clone_where_git_does_not_answer(
    clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clone / ".git/HEAD").unlink()
    assert cli.main(["space", "build", str(tmp_path / "space")]) == 2
    assert "error[space_invalid]: git does not say what it tracks" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


def test_a_folder_that_holds_something_is_left_alone(
    space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(space)
    assert cli.main(["space", "build", str(space)]) == 2
    assert "error[output_exists]" in capsys.readouterr().err
    assert files(space) == before


def test_an_installed_package_says_that_it_takes_a_clone(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(checkout / "space")
    assert cli.main(["space", "build", str(tmp_path / "space")]) == 2
    assert "error[space_invalid]: space/app.py is not beside" in capsys.readouterr().err


def test_every_difference_is_named(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (space / "app.py").write_text("print('by hand')\n")
    (space / "extra.txt").write_text("")
    (space / "shared/__init__.py").unlink()
    told = check(space, capsys)
    assert "app.py differs from space/app.py." in told
    assert "extra.txt does not belong there." in told
    assert "shared/__init__.py is missing." in told


def test_many_faults_are_counted(
    space: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(9):
        (space / f"extra-{number}").touch()
    assert "And 4 more." in check(space, capsys)


def test_a_folder_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "There is no folder" in check(tmp_path / "nowhere", capsys)


def edit(checkout: Path, space: Path, name: str, old: str, new: str) -> None:
    """Change a file of the root, in the checkout and in what was laid out from it."""
    text = (checkout / "space" / name).read_text()
    assert old in text
    for path in (checkout / "space" / name, space / name):
        path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("---\n", "", "no front matter"),
        ("title: Cygnet", "title: [", "is no YAML"),
        ("title: Cygnet\n", "", "title: Field required"),
        ("emoji: 🦢", "emoji: swan", "emoji: Value error, is no emoji"),
        ("colorTo: indigo", "colorTo: mauve", "colorTo: Input should be 'red'"),
        ("sdk: gradio", "sdk: docker", "sdk: Input should be 'gradio'"),
        ("sdk_version: 6.31.0", "sdk_version: '6'", "sdk_version: String should match"),
        ("sdk_version: 6.31.0", "sdk_version: 6.30.0", "gradio is not sdk_version 6.30.0"),
        ("app_file: app.py", "app_file: main.py", "app_file: Input should be 'app.py'"),
        ("3.12.12", "3.11", "python_version: Input should be"),
        ("zero-a10g", "zero-b10g", "suggested_hardware: Input should be"),
        ("30m", "soon", "startup_duration_timeout: String should match"),
        ("A prompt in", "A prompt in" * 9, "short_description: String should have at most 60"),
        ("pinned:", "pined:", "pined: Extra inputs are not permitted"),
        ("- FastVideo/", "- SlowVideo/", "models is not the repositories of shared/checkpoints.py"),
    ],
)
def test_front_matter_that_spaces_would_refuse_is_refused(
    checkout: Path, space: Path, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(checkout, space, "README.md", old, new)
    assert said in check(space, capsys)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rich==15.0.0", "rich", "rich is outside rich>=13 of pyproject.toml"),
        ("rich==15.0.0", "rich==14.0.0", "rich==14.0.0 is not rich==15.0.0 of constraints.txt"),
        ("rich==15.0.0", "", "rich is missing, which pyproject.toml asks for"),
        ("rich==15.0.0", "rich==15.0.0\nsix==1.17.0", "six is not what pyproject.toml asks for"),
        ("pydantic==2.12.5", "pydantic==2.14.3", "gradio[oauth,mcp] wants pydantic"),
        ("torch>=2.8", "torch>=2.7", "torch<=2.13.0,>=2.7 is outside torch>=2.8"),
        ("gradio==6.31.0", "gradio==6.30.0", "gradio is not sdk_version 6.31.0"),
        ("gradio==6.31.0", "", "gradio is not sdk_version 6.31.0"),
    ],
)
def test_pins_that_do_not_fit_are_refused(
    checkout: Path, space: Path, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(checkout, space, "requirements.txt", old, new)
    assert said in check(space, capsys)
