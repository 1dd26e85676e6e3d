"""What a file of prompts may look like, and what is refused."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from shared import cli
from shared.batch import source
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
    '{"prompt": ' + "9" * 5000 + "}": "thousands of digits). Next:",
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


def test_a_row_with_a_seed_of_minus_one_has_one_of_its_own_that_stays(
    batch: Run, folder: Path
) -> None:
    assert batch("prompt,seed\na fox,-1\nan owl,-1.0\n", file="prompts.csv") == 0
    seeds = [line["seed"] for line in manifest(folder / "out")]
    assert len(set(seeds)) == 2 and min(seeds) >= 0
    assert batch("prompt,seed\na fox,-1\nan owl,\n", file="prompts.csv") == 0
    assert [line["seed"] for line in manifest(folder / "out")] == seeds
