"""What a file of prompts may look like, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from shared import cli
from shared.batch import source
from shared.contract import parse_request
from shared.errors import InvalidRequest
from tests.batch.conftest import Run, UseFake, error_line, manifest

Capture = pytest.CaptureFixture[str]


def prompts(out: Path) -> list[str]:
    return [line["request"]["prompt"] for line in manifest(out)]


def test_each_line_of_plain_text_is_a_prompt(batch: Run, folder: Path) -> None:
    assert batch("a fox\n\n  an owl, 3d render  \r\na tulip") == 0
    assert prompts(folder / "out") == ["a fox", "an owl, 3d render", "a tulip"]
    assert [line["line"] for line in manifest(folder / "out")] == [1, 3, 4]


def test_a_column_of_csv_is_a_field_and_an_empty_cell_is_left_out(batch: Run, folder: Path) -> None:
    rows = 'prompt,steps,seed,guidance_scale\n"a fox, red",3,7,\n"two\nlines",,,2.5\n'
    assert batch(rows, file="prompts.csv") == 0
    first, second = (line["request"] for line in manifest(folder / "out"))
    assert (first["prompt"], first["steps"], first["seed"]) == ("a fox, red", 3, 7)
    assert (second["prompt"], second["steps"]) == ("two lines", 20)
    assert (first["guidance_scale"], second["guidance_scale"]) == (3.0, 2.5)


def test_a_row_of_several_lines_is_known_by_its_first(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    rows = 'prompt,steps\n"two\nlines",3\n\n"three\n\nlines",%s\nan owl,3\n'
    assert batch(rows % 500, file="prompts.csv") == 2
    assert "line 5: steps=500 is not" in error_line(capsys)
    assert batch(rows % 3, file="prompts.csv") == 0
    assert [line["line"] for line in manifest(folder / "out")] == [2, 5, 8]


def test_a_line_of_json_is_an_object_of_fields(batch: Run, folder: Path) -> None:
    rows = '{"prompt": "a fox", "steps": 3, "seed": null}\n{"prompt": "an owl", "num_images": 2}\n'
    assert batch(rows, file="prompts.jsonl") == 0
    assert prompts(folder / "out") == ["a fox", "an owl", "an owl"]
    assert manifest(folder / "out")[0]["request"]["steps"] == 3


def test_several_images_of_a_row_are_pictures_whose_seeds_count_up(
    batch: Run, folder: Path
) -> None:
    assert batch("a fox", "--num-images", "3", "--seed", "7") == 0
    assert [line["seed"] for line in manifest(folder / "out")] == [7, 8, 9]


def test_options_fill_what_rows_leave_out(batch: Run, folder: Path) -> None:
    rows = "prompt,steps\na fox,3\nan owl,\n"
    assert batch(rows, "--steps", "9", "--format", "webp", file="prompts.csv") == 0
    assert [line["request"]["steps"] for line in manifest(folder / "out")] == [3, 9]
    assert len(list((folder / "out").glob("*.webp"))) == 2


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a fox\nan owl\n", ["a fox", "an owl"]),
        ("prompt,seed\na fox,7\n", ["a fox"]),
        ('{"prompt": "a fox"}\n', ["a fox"]),
        ("{a|the} fox\n", ["a fox", "the fox"]),
        ("\ufeffprompt\na fox\n", ["a fox"]),
    ],
)
def test_standard_input_tells_by_its_first_line_what_it_is(
    folder: Path,
    use_fake: UseFake,
    monkeypatch: pytest.MonkeyPatch,
    rows: str,
    expected: list[str],
) -> None:
    use_fake()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
    assert cli.main(["batch", "-", "--out", "out"]) == 0
    assert prompts(folder / "out") == expected


def test_a_pipe_by_name_is_read_as_well(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    os.mkfifo(folder / "pipe")
    writer = threading.Thread(target=(folder / "pipe").write_text, args=("a fox\n",))
    writer.start()
    assert cli.main(["batch", "pipe", "--out", "out"]) == 0
    writer.join()
    assert prompts(folder / "out") == ["a fox"]


def test_a_kind_that_is_named_counts_more_than_the_suffix(batch: Run, folder: Path) -> None:
    assert batch("prompt\na fox\n", "--kind", "text", file="prompts.csv") == 0
    assert prompts(folder / "out") == ["prompt", "a fox"]


REFUSED = {
    "promt,steps\na fox,3\n": "line 1: 'promt' is not a field of a request. Next: Did you mean",
    "prompt,size,colour\na,1,2\n": "line 1: 'size' is not a field of a request. 'colour' is not",
    "prompt,prompt\na,b\n": "line 1: the column 'prompt' is there twice.",
    "prompt\na fox, red\n": "line 2: it has 2 cells, the header has 1.",
    'prompt\n"a "fox"\n': """line 2: it is no CSV (',' expected after '"'). Next: Put""",
    "prompt,steps\na fox,500\n": "line 2: steps=500 is not a whole number from 1 to 100.",
    "prompt,steps\na fox,many\n": "line 2: steps='many' is not a whole number",
    "prompt,steps\n,3\n": "line 2: prompt is missing.",
    "steps\n3\n": "line 2: prompt is missing.",
    "prompt\n": "has no rows",
    "prompt,checkpoint\na fox,gpt\n": "line 2: There is no checkpoint named 'gpt'",
    "prompt,guidance_scale\na fox,nan\n": "line 2: guidance_scale=nan is not",
    "prompt,seed\na fox,1e400\n": "line 2: seed=inf is not",
}


@pytest.mark.parametrize(("rows", "said"), REFUSED.items(), ids=lambda text: text[:20])
def test_a_csv_that_is_wrong_is_refused_by_line_before_anything_is_made(
    batch: Run, folder: Path, capsys: Capture, rows: str, said: str
) -> None:
    assert batch(rows, file="prompts.csv") == 2
    assert said in error_line(capsys)
    assert not (folder / "out").exists()


REFUSED_JSON = {
    '{"prompt": "a fox", "colour": 1}': "'colour' is not a field of a request.",
    '{"prompt": "a fox"': "it is no JSON",
    '["a fox"]': "it is no JSON object",
    '{"prompt": "a fox", "Prompt": "an owl"}': "the field 'prompt' is there twice.",
    "[" * 100_000: "it is no JSON",
    '{"prompt": ' + "9" * 5000 + "}": "it is no JSON",
    '{"prompt": 7}': "prompt=7 is not text.",
    '{"prompt": "a fox", "steps": [1, 2]}': "steps=[1, 2] is not a whole number",
    '{"prompt": "a fox", "seed": true}': "seed=True is not a whole number",
    '{"prompt": "\\u0000\\ud800"}': "prompt is empty.",
}


@pytest.mark.parametrize(("rows", "said"), REFUSED_JSON.items(), ids=lambda text: text[:20])
def test_json_lines_that_are_wrong_are_refused_by_line(
    batch: Run, folder: Path, capsys: Capture, rows: str, said: str
) -> None:
    assert batch('{"prompt": "an owl"}\n' + rows, file="prompts.jsonl") == 2
    line = error_line(capsys)
    assert "prompts.jsonl, line 2: " in line and said in line
    assert not (folder / "out").exists()


HOSTILE = {
    b"a fox\nan \xe9l\xe9phant\n": "line 2: byte 0xe9 at column 4 is not UTF-8. Next: Save",
    "prompt\n‘a fox’".encode("cp1252"): "line 2: byte 0x91 at column 1 is not UTF-8.",
    "a fox\nan owl".encode("utf-16")[:-1]: "line 2: what stands at column 6 is damaged.",
    b"a fox\n\0\0\0": "line 2: it has a zero byte, so it is no text",
    b"a fox\nan owl\0\n": "line 2: it has a zero byte, so it is no text",
    b"a fox\n" + b"x" * 10_000_000: "line 2: the row is longer than 1 MiB.",
    b"a fox\n" + b"x" * 3000: "line 2: prompt has 3000 characters and may have 2000.",
    b"": "has no rows",
}


@pytest.mark.parametrize(("rows", "said"), HOSTILE.items(), ids=lambda text: repr(text[:12]))
def test_what_is_no_text_is_refused_clearly(
    batch: Run, folder: Path, capsys: Capture, rows: bytes, said: str
) -> None:
    assert batch(rows) == 2
    assert said in error_line(capsys)
    assert not (folder / "out").exists()


def test_a_quote_that_never_ends_does_not_read_the_whole_file_into_memory(
    batch: Run, capsys: Capture
) -> None:
    assert batch('prompt,seed\n"' + 'a","\n' * 400_000, file="prompts.csv") == 2
    assert "the row is longer than 1 MiB" in error_line(capsys)


def test_an_endless_stream_is_refused(
    batch: Run, folder: Path, use_fake: UseFake, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    use_fake()
    monkeypatch.setattr(source, "MAX_FILE", 2**22)
    with Path("/dev/zero").open("rb") as zero:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(zero))
        assert cli.main(["batch", "-", "--out", "out"]) == 2
    assert "is larger than" in error_line(capsys)


@pytest.mark.parametrize("file", ["missing.csv", "."])
def test_a_file_that_cannot_be_read_is_refused(folder: Path, capsys: Capture, file: str) -> None:
    assert cli.main(["batch", file, "--out", "out"]) == 2
    assert f"{file} cannot be read: " in error_line(capsys)


def test_every_wrong_row_is_told_and_counted(batch: Run, capsys: Capture) -> None:
    rows = "prompt,steps\na fox,3\nan owl,500\na cat,7\na dog,0\n"
    assert batch(rows, file="prompts.csv") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "line 5: steps=0 is not" in lines[0]
    assert "line 3: steps=500 is not" in lines[1]
    assert lines[1].endswith("In all 2 rows are wrong.")


# What other programs write. Each is read alike from a file of any suffix and from standard input, where
# nothing but the content tells what it is.

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
]


@pytest.mark.parametrize("name", ["-", "a.txt"])
@pytest.mark.parametrize("line", PROSE)
def test_a_prompt_with_the_signs_of_tables_and_json_is_a_prompt(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, name: str
) -> None:
    wanted = [{"prompt": line.replace("\t", " ")}, {"prompt": "an owl"}]
    assert read(f"{line}\nan owl\n".encode(), name, monkeypatch) == wanted
    assert read(f"an owl\n{line}\n".encode(), name, monkeypatch) == wanted[::-1]


NEVER_DRAWN = {
    "prompt:seed\na fox:7\n": "line 1: its columns cannot be told apart: 'prompt:seed'. Separate",
    "prompt seed\na fox 7\n": "line 1: its columns cannot be told apart",
    '"prompt,seed"\n"a fox,7"\n': "line 1: its columns cannot be told apart",
    "prompt;colour\na fox;red\n": "line 1: 'colour' is not a field of a request.",
    "prompt;sed\na fox;7\n": "Did you mean seed?",
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
    '[\n"a fox"\n"an owl"\n]': "line 2: it is no JSON: Extra data",
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


def test_a_row_with_a_seed_of_minus_one_has_one_of_its_own_that_stays(
    batch: Run, folder: Path
) -> None:
    assert batch("prompt,seed\na fox,-1\nan owl,-1.0\n", file="prompts.csv") == 0
    seeds = [line["seed"] for line in manifest(folder / "out")]
    assert len(set(seeds)) == 2 and min(seeds) >= 0
    assert batch("prompt,seed\na fox,-1\nan owl,\n", file="prompts.csv") == 0
    assert [line["seed"] for line in manifest(folder / "out")] == seeds


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
