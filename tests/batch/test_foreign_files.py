"""Files of prompts as other programs write them, told by their content: read right, or refused with the line
and the reason. Neither a header nor a raw row is ever drawn.

Each is read alike from a file of any suffix and from standard input.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from shared import cli
from shared.batch import source
from shared.contract import parse_request
from shared.errors import InvalidRequest
from tests.batch.conftest import Run, error_line, manifest

Capture = pytest.CaptureFixture[str]

FOX, PANDA = {"prompt": "a red fox, 3d render", "seed": 7}, {"prompt": "a panda"}

WRITTEN = {
    "commas": 'prompt,seed\n"a red fox, 3d render",7\na panda,\n',
    "semicolons": "prompt;seed\na red fox, 3d render;7\na panda;\n",
    "tabs": "prompt\tseed\na red fox, 3d render\t7\na panda\t\n",
    "vertical bars": "prompt|seed\na red fox, 3d render|7\na panda|\n",
    "sep=": "sep=;\nprompt;seed\na red fox, 3d render;7\na panda;\n",
    "sep= in quotes": '"sep=,"\nprompt,seed\n"a red fox, 3d render",7\na panda,\n',
    "sep= of a tab": "SEP=\t\nprompt\tseed\na red fox, 3d render\t7\na panda\t\n",
    "capitals": "PROMPT;Seed\na red fox, 3d render;7\na panda;\n",
    "a header in quotes": '"Prompt";"Seed"\n"a red fox, 3d render";"7"\n"a panda";""\n',
    "spaces": ' prompt , seed \n "a red fox, 3d render" , 7 \n a panda , \n',
    "empty columns": 'prompt,seed,,\n"a red fox, 3d render",7,,\na panda,,,\n,,,\n',
    "an empty column between": 'prompt,,seed\n"a red fox, 3d render",,7\na panda,,\n',
    "whole floats": 'seed,prompt\n7.0,"a red fox, 3d render"\n,a panda\n',
    "exponents": 'seed,prompt\n7.0E+00,"a red fox, 3d render"\n,a panda\n',
    "an array": '[{"prompt": "a red fox, 3d render", "seed": 7.0}, "a panda"]',
    "an array on many lines": """[
        {
            "prompt": "a red fox, 3d render",
            "seed": "7"
        },
        "a panda"
    ]""",
    "lines of JSON": '{"Prompt": "a red fox, 3d render", "seed": 7}\n{"prompt": "a panda"}\n',
}


def read(text: bytes, name: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests of a file, only the fields that it gives."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    if name != "-":
        Path(name).write_bytes(text)
    with source.Source(name) as rows:
        given = [row.fields for row in rows.rows()]
    return [{name: getattr(parse_request(fields), name) for name in fields} for fields in given]


@pytest.mark.parametrize(
    "name", ["-", "a.csv", "a.tsv", "a.txt", "a.json", "a.jsonl", "a", "a.dat"]
)
@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_what_other_programs_write_is_read_by_its_content(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    assert read(text.encode(), name, monkeypatch) == [FOX, PANDA]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("kind", ["semicolons", "an array on many lines", "lines of JSON"])
def test_any_unicode_and_any_line_end_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, encoding: str, end: str
) -> None:
    text = WRITTEN[kind].replace("\n", end).encode(encoding)
    assert read(text, "-", monkeypatch) == [FOX, PANDA]


@pytest.mark.parametrize(
    "text", ["红狐\n蓝猫\n", "лиса, 3d\nкот и пёс\n", "a fox\nan owl\n", "a 🦊\nb\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_prompts_of_any_script_are_read_in_any_unicode(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, encoding: str
) -> None:
    wanted = [{"prompt": line} for line in text.splitlines()]
    assert read(text.encode(encoding), "-", monkeypatch) == wanted


def test_line_ends_may_be_mixed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_back = read(b"a\rb\r\nc\nd\r\re", "-", monkeypatch)
    assert [row["prompt"] for row in read_back] == ["a", "b", "c", "d", "e"]


PROSE = [
    "a red fox, 3d render, on a sky blue background",
    "a fox; an owl; a cat",
    "a fox | an owl",
    "a fox\tan owl",
    'a sign that says "prompt, seed"',
    '"Stay hungry", a poster',
    "prompt: a fox, seed: 7",
    "prompt engineering, a book's cover",
    "a prompt",
    "seed",
    "steps, columns, marble hall",
    "[red:blue:0.5] fox",
    "[a fox] in the snow",
    "[[red]] fox, (blue:1.3)",
    '["Stay hungry"] in neon, at night',
    "['tis the season] a poster",
    "[1girl] a portrait",
    "separate=; things",
    "100% cotton, 7,0 mm",
    "# a fox",
    "tokyo, 1999",
    "a lens of 3,5",
    "a prompt_ box",
    "prompt service, waiters",
]


@pytest.mark.parametrize("name", ["-", "a.txt"])
@pytest.mark.parametrize("line", PROSE)
def test_a_prompt_with_the_signs_of_tables_and_json_is_a_prompt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, name: str
) -> None:
    wanted = [{"prompt": line.replace("\t", " ")}, {"prompt": "an owl"}]
    assert read(f"{line}\nan owl\n".encode(), name, monkeypatch) == wanted
    assert read(f"an owl\n{line}\n".encode(), name, monkeypatch) == wanted[::-1]
    assert read(f"{line}\n{line}\n".encode(), name, monkeypatch) == [wanted[0]] * 2


NEVER_DRAWN = {
    "prompt:seed\na fox:7\n": "line 1: its columns cannot be told apart: 'prompt:seed'. Separate",
    "prompt seed\na fox 7\n": "line 1: its columns cannot be told apart",
    '"prompt,seed"\n"a fox,7"\n': "line 1: its columns cannot be told apart",
    "prompt;colour\na fox;red\n": "line 1: 'colour' is not a field of a request.",
    "prompt;sed\na fox;7\n": "Did you mean seed?",
    "id,prompt_text,seed\n1,a fox,7\n": "line 1: 'id' is not a field",
    "Name;Image Prompt;Seed\nx;a fox;7\n": "line 1: 'Name' is not a field",
    "Prompts\na fox\n": "line 1: 'Prompts' is not a field of a request. Did you mean prompt?",
    "prompt_text\na fox\n": "line 1: 'prompt_text' is not a field of a request.",
    "caption,seed\na fox,7\n": "line 1: 'caption' is not a field",
    "a fox,7\nan owl,8\n": "Begin the table with a line that names its columns, such as prompt,seed.",
    "1\ta fox\n2\tan owl\n": "Begin the table with a line that names its columns",
    "| prompt | seed |\n|:---|---:|\n| a fox | 7 |\n": "line 2: it is a rule, as in a drawn table.",
    " prompt | seed\n--------+------\n a fox  |    7\n": "line 2: it is a rule",
    '{"prompt": "a fox", "prompt": "an owl"}': "line 1: the field 'prompt' is there twice.",
    "seed;steps\n7;4\n": "line 2: prompt is missing.",
    "prompt,seed\na fox;7\n": "line 2: 'a fox;7' is not separated by commas, as the header is.",
    "prompt;seed\na fox,7\n": "line 2: 'a fox,7' is not separated by semicolons",
    'prompt,seed\n"a fox,7"\n': "line 2: 'a fox,7' is not separated by commas",
    "prompt;seed\na fox;red;7\n": 'it has 3 cells, the header has 2. Put "quotes" around text with semi',
    "prompt,seed\na fox,7\nPrompt,Seed\nan owl,8\n": "line 3: it is the header once more.",
    "a fox\nprompt,seed\nan owl,7\n": "line 2: it is the header of a table among plain text.",
    ",prompt\n0,a fox\n": "line 2: '0' is in column 1, which has no name.",
    "prompt;seed\na fox;7,0\n": "line 2: seed='7,0' is not a whole number",
    "prompt,seed\na fox,7.5\n": "line 2: seed=7.5 is not a whole number",
    '[\n"a fox"\n"an owl"\n]': "line 3: it is no JSON: Extra data",
    '["a fox",\n"an owl"': "line 2: it is no JSON: the array has no end.",
    '["a fox",\n]': "line 2: it is no JSON: there is a comma too many.",
    '["a fox"]\n["an owl"]': "line 2: it is no JSON: there is more behind the array.",
    "[1, 2]": "line 1: it is no JSON object and no text.",
    "['a fox', 'an owl']": "line 1: it is no JSON",
    "{'prompt': 'a fox'}": "line 1: it is no JSON",
    '{"prompt": "a fox"': "line 1: it is no JSON",
    '{\n"prompt": "a fox"\n}': "line 1: it is no JSON",
    'a fox\n["an owl", "a cat"]\n': "line 2: it is JSON among plain text.",
    'a fox\n{"prompt": "an owl"}\n': "line 2: it is JSON among plain text.",
}


@pytest.mark.parametrize("name", ["-", "a.txt"])
@pytest.mark.parametrize(("text", "said"), NEVER_DRAWN.items(), ids=lambda text: repr(text)[:24])
def test_what_cannot_be_read_is_refused_with_the_line_and_the_reason(
    batch: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    text: str,
    said: str,
    name: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    (folder / "a.txt").write_text(text)
    assert cli.main(["batch", name, "--out", "out", "--backend", "fake"]) == 2
    told = error_line(capsys).replace(" Next:", "")
    assert said in told and ("a.txt" if name == "a.txt" else "standard input") in told
    assert not (folder / "out").exists()


def test_a_table_without_a_header_is_told_to_have_one(batch: Run, capsys: Capture) -> None:
    assert batch("a red fox,7\na panda,8\n", file="prompts.csv") == 2
    assert "Next: Begin the table with a line that names its columns" in error_line(capsys)


def test_an_array_of_any_length_takes_no_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_ROW", 1000)
    row = {"prompt": 'a [fox], "{red}" \\', "seed": 7}
    for indent in (None, 1):
        (folder / "a.json").write_text(json.dumps([row] * 5000, indent=indent))
        with source.Source("a.json") as rows:
            assert [one.fields for one in rows.rows()] == [row] * 5000
    (folder / "a.json").write_text(json.dumps(["a fox", "a" * 2000]))
    with source.Source("a.json") as rows, pytest.raises(InvalidRequest, match="is longer than"):
        list(rows.rows())


def test_the_table_of_a_batch_makes_the_same_batch_again(batch: Run, folder: Path) -> None:
    rows = [
        {"prompt": "a {red|blue} fox", "seed": 7, "negative_prompt": "=1+1"},
        {"prompt": '\'=a \\{literal\\} 狐狸; "quoted", text', "steps": 3},
        {"prompt": "-a fox \\\\ backslash", "guidance_scale": 2.5},
    ]
    text = "\n".join(map(json.dumps, rows))
    assert batch(text, file="prompts.jsonl") == 0
    table = (folder / "out/manifest.csv").read_bytes()
    assert table.startswith(b"\xef\xbb\xbf")  # by which Excel knows UTF-8
    made = [line["request"] for line in manifest(folder / "out")]
    (folder / "out").rename(folder / "first")
    semicolons = io.StringIO()
    csv.writer(semicolons, delimiter=";").writerows(
        csv.reader(io.StringIO(table.decode("utf-8-sig")))
    )
    for again in (
        table,
        table.removeprefix(b"\xef\xbb\xbf"),
        semicolons.getvalue().encode("utf-16"),
    ):
        assert batch(again, file="again.csv") == 0
        assert [line["request"] for line in manifest(folder / "out")] == made
        shutil.rmtree(folder / "out")
