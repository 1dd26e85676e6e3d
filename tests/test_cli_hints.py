"""What the command line says to somebody who mistyped, forgot quotes, lacks a package or presses Tab."""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared import cli
from shared.cli.command import parser
from shared.cli.completion import SHELLS
from shared.errors import PackageMissing
from shared.packages import install_command, needed

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parent.parent


def said(capsys: Capture, *argv: str) -> str:
    assert cli.main(argv) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def subcommands(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Those of a command, as its parser has them."""
    [action] = (a for a in command._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


NAMES = list(subcommands(parser()))


@pytest.mark.parametrize("argv", [(), ("space",)])
def test_a_command_that_needs_another_shows_its_help(
    argv: tuple[str, ...], capsys: Capture
) -> None:
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(" ".join(["usage: cygnet", *argv]))
    command = functools.reduce(lambda above, name: subcommands(above)[name], argv, parser())
    assert all(re.search(rf"^    {name} ", shown, re.M) for name in subcommands(command))


@pytest.mark.parametrize("name", NAMES)
def test_a_mistyped_command_is_told_which_may_be_meant(name: str, capsys: Capture) -> None:
    swapped = name[0] + name[2] + name[1] + name[3:] if name[1] != name[2] else name[:-1]
    assert swapped not in NAMES
    assert said(capsys, swapped).endswith(f"Did you mean {name}?")


def test_a_mistyped_option_is_told_which_may_be_meant(capsys: Capture) -> None:
    for command in ("generate", "batch"):
        files = ["x.txt", "--out", "y"] if command == "batch" else ["a fox"]
        for option in ("--sed", "--step=4", "--checkpiont"):
            line = said(capsys, command, *files, option, "7")
            assert re.search(r"Did you mean --(seed|steps|checkpoint)\?$", line), line
    assert said(capsys, "space", "publish", "a/b", "--privat").endswith("Did you mean --private?")
    assert said(capsys, "checkpoints", "--zzz").endswith("See cygnet checkpoints --help.")


@pytest.mark.parametrize(
    "words",
    [
        ["a", "red", "fox"],
        ["a", "red", "fox", "--seed", "7"],
        ["--seed", "7", "a", "red", "fox"],
        ["--", "a", "red", "fox"],
    ],
)
def test_a_prompt_without_quotes_is_shown_with_them(words: list[str], capsys: Capture) -> None:
    assert said(capsys, "generate", *words).endswith("cygnet generate 'a red fox'")


def test_a_prompt_in_place_of_a_command_is_shown_where_it_belongs(capsys: Capture) -> None:
    assert said(capsys, "a red fox").endswith("cygnet generate 'a red fox'")
    assert said(capsys, "zebra").endswith('draw with: cygnet generate "a red fox"')


def test_no_advice_names_an_index_that_is_not_ours() -> None:
    """Nobody owns `cygnet` there: whoever takes the name would be installed."""
    sources = [*(ROOT / "shared").rglob("*.py"), *(ROOT / "space").rglob("*.py")]
    sources += [*ROOT.glob("docs/*.md"), *ROOT.glob("*.py"), ROOT / "README.md"]
    for source in sources:
        assert not re.search(r"install\s[^\n]*\bcygnet\b(?!-)(\[|'|\"|\s|$)", source.read_text())


def test_a_missing_package_is_named_with_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(PackageMissing) as error, needed("Serving", "space"):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    assert error.value.message.endswith("not installed: no_such_package.")
    assert error.value.next_step.endswith(install_command("space"))
    assert "pip install --constraint constraints.txt --editable '.[space]'" in install_command(
        "space"
    )


def test_the_advised_command_is_for_the_environment_that_runs(tmp_path: Path) -> None:
    """Where make put it, that is, whether or not it is activated."""
    if not Path(sys.prefix).is_relative_to(ROOT):
        assert install_command("mcp").startswith("pip ")
        return
    pip = install_command("mcp").partition(" ")[0]
    assert (ROOT / pip).is_file() and (ROOT / pip).is_relative_to(sys.prefix)


def test_an_import_that_fails_for_another_reason_is_not_called_a_missing_package() -> None:
    with pytest.raises(ImportError, match="half of it"), needed("Serving", "space"):
        raise ImportError("half of it")


def test_what_a_backend_lacks_is_said_before_anything_seems_to_begin(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CYGNET_MODAL_URL", "http://127.0.0.1:9")
    for name in [name for name in sys.modules if name.startswith("shared.backends.modal")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "shared.backends.api_client", None)
    assert cli.main(["generate", "a fox", "--backend", "modal"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error[package_missing]")


def completions(line: str) -> list[str]:
    """What the program offers where `line` ends, through the protocol that all shells speak."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": "answer",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    command = [sys.executable, "-c", "from shared.cli import entry; entry()"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    return Path("answer").read_text().split("\n")


def test_the_tab_key_offers_commands_options_and_their_values(folder: Path) -> None:
    assert set(NAMES) <= set(completions("cygnet "))
    assert completions("cygnet gene") == ["generate"]
    assert completions("cygnet generate --neg") == ["--negative-prompt"]
    assert completions("cygnet generate --checkpoint cygnet-tiny-") == ["cygnet-tiny-fast"]
    assert completions("cygnet batch x.csv --scheduler e") == ["euler"]
    assert completions("cygnet serve --backend lo") == ["local"]
    assert completions("cygnet space pub") == ["publish"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_the_script_that_is_printed_for_it(
    shell: str, tmp_path: Path, capsys: Capture
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    assert "_ARGCOMPLETE" in script.read_text()
    if program := shutil.which(shell):  # of the three only bash is everywhere
        check = subprocess.run([program, "-n", str(script)], capture_output=True, text=True)
        assert (check.returncode, check.stderr) == (0, "")


def test_bash_completes_the_command(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["completion", "bash"]) == 0
    cygnet = tmp_path / "cygnet"
    cygnet.write_text(f"#!{sys.executable}\nfrom shared.cli import entry\nentry()\n")
    cygnet.chmod(0o755)
    typed = "cygnet generate --checkpoint cygnet-tiny-"
    script = f"""{capsys.readouterr().out}
COMP_LINE='{typed}' COMP_POINT={len(typed)} COMP_TYPE=9 COMP_CWORD=3
COMP_WORDS=({typed}) _python_argcomplete cygnet
echo "${{COMPREPLY[@]}}"
"""
    ran = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.split() == ["cygnet-tiny-fast"], ran.stderr
