"""README.md and docs/: their commands run, their links lead somewhere, their tables are the code's."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from PIL import Image

from docs.blocks import PAGES, ROOT, filled
from shared import checkpoints, cli
from shared.cli.command import parser
from shared.contract import parse_request
from shared.errors import InputError, error_types
from shared.images import read_recipe
from shared.settings import VARIABLES, settings
from tests.mirror.conftest import hub
from tests.mirror.stand_in import Hub
from tests.test_checkpoints import write as write_checkpoint

__all__ = ["hub"]

SPACE, CARD = ROOT / "space/README.md", ROOT / "shared/weights/cygnet-tiny/README.md"
ALL_PAGES = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")),
    ROOT / "benchmarks/README.md",
    SPACE,
    CARD,
]
LOCAL = (ROOT / "docs/local.md").read_text()


def code(page: Path, language: str) -> list[str]:
    """The page's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.M | re.S)


def files(page: Path) -> dict[str, str]:
    """The page's code blocks that are files: the fence says the name after the language."""
    found = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
    return dict(found)


def commands(page: Path) -> list[str]:
    """The page's lines that call `cygnet`, in order."""
    lines = "".join(code(page, "sh")).splitlines()
    return [line for line in lines if re.match(r"(CYGNET_\w+=\S+ )*cygnet ", line)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: Path,
    folder: Path,
    use_fake: Callable[[], None],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_fake()
    monkeypatch.setattr(checkpoints, "_registry", dict(checkpoints._registry))
    write_checkpoint(folder / "my-wan")
    for file, text in files(page).items():
        (folder / file).write_text(text)
    for command in commands(page):
        words = shlex.split(command)
        with monkeypatch.context() as environment:
            while "=" in words[0]:
                environment.setenv(*words.pop(0).split("=", 1))
            settings.cache_clear()
            assert cli.main(words[1:]) == 0, command


def test_the_example_in_python_draws_the_same_file_each_time(tmp_path: Path) -> None:
    [example] = code(ROOT / "docs/local.md", "python")
    drawn = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True, timeout=300)
        drawn.append((tmp_path / "fox.png").read_bytes())
    assert drawn[0] == drawn[1]
    assert read_recipe(drawn[0]).fields["seed"] == 7


def test_the_example_on_the_card_of_the_weights_draws(tmp_path: Path) -> None:
    [example] = code(CARD, "python")
    short = example.replace("num_inference_steps=20", "num_inference_steps=1")
    assert short != example
    save = f"\nimage.save({str(tmp_path / 'fox.png')!r})"
    subprocess.run([sys.executable, "-c", short + save], cwd=ROOT, check=True, timeout=300)
    with Image.open(tmp_path / "fox.png") as image:
        assert image.size == (256, 256)


def test_the_example_on_the_card_of_the_space_calls_what_the_client_has() -> None:
    [example] = code(SPACE, "python")
    with mock.patch("gradio_client.Client", autospec=True) as client:
        exec(example, {})
    client.assert_called_once_with("OWNER/NAME")
    [call] = client.return_value.predict.call_args_list
    assert call.kwargs.pop("api_name") == "/generate"
    parse_request({"prompt": call.args[0], **call.kwargs})


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", page.read_text()):
        target, _, anchor = "".join(link).partition("#")
        if target.startswith("https://"):
            continue
        path = page.parent / target if target else page
        assert path.exists(), f"{target} in {name(page)}"
        assert not anchor or anchor in anchors(path), f"#{anchor} in {name(page)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tables_of_a_page_are_those_of_the_data(page: Path) -> None:
    text = page.read_text()
    assert filled(text) == text, "python -m docs.blocks writes them anew"


def test_the_page_of_errors_has_every_code_in_the_order_of_the_tree() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", page, flags=re.M)
    assert rows == [kind.code for kind in error_types()]
    refused = re.findall(r"^\| `(\w+)` \|", page.split("## Generation")[0], flags=re.M)
    assert refused == [kind.code for kind in error_types(InputError)]


def test_the_page_of_errors_shows_an_error_as_it_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["generate", "a fox", "--steps", "500"]) == 2
    assert capsys.readouterr().err.strip() in (ROOT / "docs/errors.md").read_text()


def all_options(command: argparse.ArgumentParser) -> set[str]:
    """Those of a command and of the commands below it."""
    found = {option for action in command._actions for option in action.option_strings}
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(all_options, action.choices.values()))
    return found


def test_every_option_and_every_variable_is_explained() -> None:
    said = "".join(page.read_text() for page in PAGES if page.name != "commands.md")
    told_elsewhere = {"-h", "--help", "--version", "--child"}  # the last is between programs
    options = all_options(parser()) - told_elsewhere
    assert len(options) > 40
    assert {name for name in options if not re.search(rf"{name}(?![\w-])", said)} == set()
    assert {variable for variable in VARIABLES if variable not in LOCAL} == set()


def test_the_first_picture_was_made_by_the_command_under_it() -> None:
    first = code(ROOT / "README.md", "sh")[0]
    found = re.search(r'make image PROMPT="(.*)" ARGS="--seed (\d+)"', first)
    assert found
    asked = parse_request({"prompt": found[1], "seed": int(found[2])})
    assert read_recipe(ROOT / "docs/images/fox.png").fields == asked.model_dump()
