"""Templates: what they expand to, and that they expand the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.batch import templates
from shared.errors import InvalidRequest
from tests.batch.conftest import Run, error_line, manifest

Capture = pytest.CaptureFixture[str]


def words(name: str) -> Sequence[str]:
    return {"style": ["sticker", "cartoon"]}[name]


def expand(text: str) -> list[str]:
    pattern = templates.parse(text, words)
    return [pattern.at(index) for index in range(pattern.count)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a fox", ["a fox"]),
        ("a {red|blue} fox", ["a red fox", "a blue fox"]),
        ("{a|b}{c|d}", ["ac", "ad", "bc", "bd"]),
        ("{a|b {c|d}|}", ["a", "b c", "b d", ""]),
        ("a fox, {style}", ["a fox, sticker", "a fox, cartoon"]),
        ("{{style}|plain}", ["sticker", "cartoon", "plain"]),
        ("{1..3}", ["1", "2", "3"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{1..10..4}", ["1", "5", "9"]),
        ("{0..0.3..0.1}", ["0.0", "0.1", "0.2", "0.3"]),
        ("{-1..1}", ["-1", "0", "1"]),
        ("a|b", ["a|b"]),
        (r"\{a\|b\} \\ \n", [r"{a|b} \ \n"]),
        (r"{a\|b|c\}}", ["a|b", "c}"]),
    ],
)
def test_a_template_stands_for_its_texts(template: str, expected: list[str]) -> None:
    assert expand(template) == expected


@pytest.mark.parametrize(
    "template",
    ["a {red fox", "a red} fox", "{}", "{a b}", "{1..2..0}", "{1..2..-1}", "{" * 30 + "}" * 30,
     "{../../etc/passwd}", "{a|b}" * 5000],
)  # fmt: skip
def test_a_template_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest):
        expand(template)


@given(st.text(alphabet="ab{}|\\.129 é", max_size=30))
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        pattern = templates.parse(text, words)
    except (InvalidRequest, KeyError):  # KeyError: our list of words
        return
    assert pattern.count >= 1
    for index in {0, pattern.count // 2, pattern.count - 1}:
        assert isinstance(pattern.at(index), str)


def test_the_template_is_kept_beside_what_it_became(batch: Run, folder: Path) -> None:
    assert batch("a {red|blue} fox\nan owl\n", "--steps", "{2|3}") == 0
    lines = manifest(folder / "out")
    assert [(line["request"]["prompt"], line["request"]["steps"]) for line in lines] == [
        ("a red fox", 2),
        ("a blue fox", 2),
        ("a red fox", 3),
        ("a blue fox", 3),
        ("an owl", 2),
        ("an owl", 3),
    ]
    assert lines[0]["template"] == {"prompt": "a {red|blue} fox", "steps": "{2|3}"}
    assert lines[-1]["template"] == {"steps": "{2|3}"}


def test_seeds_and_parameters_have_ranges(batch: Run, folder: Path) -> None:
    rows = 'prompt,seed,guidance_scale\na fox,{7..8},"{1..3..0.5}"\n'
    assert batch(rows, file="prompts.csv") == 0
    asked = [line["request"] for line in manifest(folder / "out")]
    assert [request["seed"] for request in asked] == [7] * 5 + [8] * 5
    assert [request["guidance_scale"] for request in asked[:5]] == [1, 1.5, 2, 2.5, 3]


def test_a_wordlist_lies_beside_the_file_or_where_it_is_said(batch: Run, folder: Path) -> None:
    (folder / "style.txt").write_text("sticker\n\n{cartoon}\n")
    assert batch("a fox, {style}") == 0
    assert [line["request"]["prompt"] for line in manifest(folder / "out")] == [
        "a fox, sticker",
        "a fox, {cartoon}",  # words are text, not templates
    ]
    (folder / "lists").mkdir()
    (folder / "lists/style.txt").write_text("flat design\n")
    assert batch("a cat, {style}", "--words", "lists", "--out", "other") == 0
    assert manifest(folder / "other")[0]["request"]["prompt"] == "a cat, flat design"


@pytest.mark.parametrize(
    ("listed", "said"),
    [(None, "the wordlist style.txt is not there"), ("\n", "the wordlist style.txt is empty")],
)
def test_a_wordlist_that_cannot_be_used_is_named(
    batch: Run, folder: Path, capsys: Capture, listed: str | None, said: str
) -> None:
    if listed is not None:
        (folder / "style.txt").write_text(listed)
    assert batch("a fox\na fox, {style}") == 2
    line = error_line(capsys)
    assert "prompts.txt, line 2: in prompt " in line and said in line


@pytest.mark.parametrize(
    ("rows", "figure"),
    [("{1..1000} {1..1000} {1..1000}\n" * 2, "2,000,000,000"), ("{1..999}" * 200, "about 10^600")],
)
def test_a_product_that_is_too_large_is_refused_with_the_figure(
    batch: Run, folder: Path, capsys: Capture, rows: str, figure: str
) -> None:
    assert batch(rows) == 2
    line = error_line(capsys)
    assert f"asks for {figure} pictures, and 1,000,000 is the most" in line and "--sample" in line
    assert not (folder / "out").exists()


def test_a_sample_of_a_huge_product_is_spread_and_comes_again(batch: Run, folder: Path) -> None:
    rows = "{1..1000} {1..1000} {1..1000} {1..1000}\n{a|b} cats\n"
    assert batch(rows, "--sample", "4", "--out", "one") == 0
    assert batch(rows, "--sample", "4", "--out", "two") == 0
    assert batch(rows, "--sample", "4", "--out", "three", "--batch-seed", "1") == 0
    one, two, three = (
        [line["request"]["prompt"] for line in manifest(folder / out)]
        for out in ("one", "two", "three")
    )
    assert one == two and one[:4] != three[:4]
    assert [int(prompt.split()[0]) // 250.001 for prompt in one[:4]] == [0, 1, 2, 3]
    assert one[4:] == ["a cats", "b cats"]


def test_a_row_without_a_seed_gets_the_same_one_each_time(batch: Run, folder: Path) -> None:
    for out, options in [("one", ()), ("two", ()), ("three", ("--batch-seed", "5"))]:
        assert batch("a fox\na fox\nan owl", "--out", out, *options) == 0
    one, two, three = (
        [line["seed"] for line in manifest(folder / out)] for out in ("one", "two", "three")
    )
    assert one == two
    assert len({*one, *three}) == 6
