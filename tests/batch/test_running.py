"""A batch while it runs: stopped, started again, failing, limited; nothing twice, nothing lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from shared import cli
from shared.batch import run as running
from shared.batch.folder import Folder, Terms
from shared.contract import Done, Event, ImageReady, Step
from shared.errors import (
    BackendUnavailable,
    CygnetError,
    InternalError,
    OutOfMemory,
    OutputUnwritable,
    QueueFull,
)
from shared.images import read_recipe
from shared.settings import settings
from tests.batch.conftest import Run, error_line, manifest, pictures, wait_for_lines

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]

TEN = "\n".join(f"fox {number}" for number in range(1, 11))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "wait_before", lambda attempt, error: 0.0)


class Counting:
    """Counts the pictures that were drawn, by seed; may fail."""

    def __init__(self, error: CygnetError | None = None, seeds: set[int] | None = None) -> None:
        self.drawn: Counter[int] = Counter()
        self._error, self._seeds = error, seeds

    def __call__(self, event: Event) -> None:
        if isinstance(event, ImageReady):
            self.drawn[event.seed] += 1
            if self._error and (self._seeds is None or event.seed in self._seeds):
                raise self._error


def again(*options: str) -> int:
    return cli.main(["batch", "prompts.txt", "--out", "out", *options])


# The result


def test_every_picture_has_a_line_and_a_row_with_all_about_it(batch: Run, folder: Path) -> None:
    assert batch(TEN, "--seed", "7") == 0
    lines = manifest(folder / "out")
    assert [line["number"] for line in lines] == list(range(1, 11))
    for line in lines:
        recipe = read_recipe(folder / "out" / line["file"])
        assert recipe.fields == line["request"]
        assert line["status"] == "done" and line["error"] is None and line["backend"] == "fake"
        assert set(line["timings"]) >= {"queued", "denoising", "total"} and "cost_usd" in line
    with (folder / "out/manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == [f"fox {number}" for number in range(1, 11)]
    assert [row["file"] for row in rows] == [line["file"] for line in lines]
    assert {
        "seed",
        "total_s",
        "backend",
        "backend_reason",
        "cost_usd",
        "error",
        "template",
    } <= rows[0].keys()


def test_a_text_that_looks_like_a_formula_is_no_formula_in_the_table(
    batch: Run, folder: Path
) -> None:
    formula = '=HYPERLINK("http://a.b","{x|y}")'
    assert batch(f"{formula}\n+1\n-1\n@SUM(A1)\n") == 0
    with (folder / "out/manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["prompt"] == '\'=HYPERLINK("http://a.b","x")'
    assert rows[0]["template"] == f"'{formula}"
    assert [row["prompt"][0] for row in rows] == ["'"] * 5
    assert manifest(folder / "out")[2]["request"]["prompt"] == "+1"


def test_no_more_pictures_are_asked_for_at_once_than_was_said(batch: Run, folder: Path) -> None:
    begun: set[object] = set()
    most = 0

    def watch(event: Event) -> None:
        nonlocal most
        if isinstance(event, Step) and event.step == 1:
            begun.add(event)
        if isinstance(event, Done):
            begun.pop()
        most = max(most, len(begun))

    assert batch(TEN, "--concurrency", "3", before_event=watch) == 0
    assert most == 3


# On again


def test_a_second_run_makes_nothing(batch: Run, folder: Path) -> None:
    assert batch(TEN) == 0
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")}
    counting = Counting()
    assert batch(TEN, before_event=counting) == 0
    assert not counting.drawn
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").glob("*.png")} == before
    assert len(manifest(folder / "out")) == 10


def test_a_limit_makes_so_many_now_and_the_rest_later(batch: Run, folder: Path) -> None:
    counting = Counting()
    for made in (4, 8, 10):
        assert batch(TEN, "--limit", "4", before_event=counting) == 0
        assert len(pictures(folder / "out")) == made
    assert set(counting.drawn.values()) == {1}


def test_rows_may_be_added_at_the_end(batch: Run, folder: Path) -> None:
    counting = Counting()
    assert batch(TEN, before_event=counting) == 0
    assert batch(f"{TEN}\nan owl\n", before_event=counting) == 0
    assert len(pictures(folder / "out")) == sum(counting.drawn.values()) == 11


def test_a_row_that_changed_is_told_and_nothing_is_made(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    assert batch(TEN) == 0
    counting = Counting()
    assert batch(TEN.replace("fox 4", "an owl"), before_event=counting) == 2
    assert "Picture 4, from line 4, was made already, and for another request" in error_line(capsys)
    assert batch(f"a row before\n{TEN}", before_event=counting) == 2
    assert not counting.drawn and len(pictures(folder / "out")) == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "7"], "steps was left out and is 7"),
        (["--batch-seed", "1"], "batch_seed was 0 and is 1"),
        (["--sample", "1"], "sample was left out and is 1"),
        (["--name", "{number}"], "name was {number}-{prompt}-{seed} and is {number}"),
        (["--checkpoint", "cygnet-tiny-fast"], "checkpoint was cygnet-tiny and is"),
    ],
)
def test_other_settings_for_the_same_folder_are_refused(
    batch: Run, folder: Path, capsys: Capture, options: list[str], said: str
) -> None:
    assert batch(TEN, "--limit", "2") == 0
    assert again(*options) == 2
    line = error_line(capsys)
    assert "out was begun with other settings" in line and said in line
    assert len(pictures(folder / "out")) == 2


def test_a_picture_that_was_deleted_is_made_again(batch: Run, folder: Path) -> None:
    assert batch(TEN) == 0
    gone = sorted((folder / "out").glob("*.png"))[3]
    gone.unlink()
    counting = Counting()
    assert batch(TEN, before_event=counting) == 0
    assert gone.exists() and sum(counting.drawn.values()) == 1


def test_a_torn_last_line_and_a_damaged_one_cost_nothing(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    assert batch(TEN, "--concurrency", "1") == 0
    path = folder / "out/manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\0" * 50 + b"\n", *lines[4:9], lines[9][:40]]))
    counting = Counting()
    assert batch(TEN, before_event=counting) == 0
    assert not counting.drawn  # the files themselves say what they are
    assert "Damaged lines of the manifest: 1." in capsys.readouterr().err
    entries = [json.loads(line) for line in path.read_text().splitlines() if "\0" not in line]
    assert sorted(entry["number"] for entry in entries) == list(range(1, 11))


PROGRAM = """
import sys, os
from shared.backends.fake import FakeBackend
from shared.cli import batch, main
from shared.contract import ImageReady
log = os.open("drawn", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(event):
    if isinstance(event, ImageReady):
        os.write(log, f"{event.seed}\\n".encode())
batch.find_backend = lambda name, **_: lambda: FakeBackend(note)
sys.exit(main(sys.argv[1:]))
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, which writes down what it draws."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "batch", "prompts.txt", "--out", "out"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_after_a_kill_it_goes_on_and_nothing_is_made_twice_or_lost(folder: Path) -> None:
    (folder / "prompts.txt").write_text("\n".join(f"fox {number}" for number in range(300)))
    for lines in (40, 120):
        process = start(folder)
        wait_for_lines(process, folder / "out/manifest.jsonl", lines)
        process.kill()
        process.communicate()
    process = start(folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "out/manifest.csv\n"
    lines = manifest(folder / "out")
    assert [line["number"] for line in lines] == list(range(1, 301))
    for line in lines:
        assert read_recipe(folder / "out" / line["file"]).fields == line["request"]
    assert len(pictures(folder / "out")) == 300
    drawn = Counter((folder / "drawn").read_text().split())
    assert len(drawn) == 300
    # Drawn again at most: what was on its way to the disk at a kill.
    assert sum(drawn.values()) <= 300 + 2 * 32
    assert not list((folder / "out").glob(".cygnet-*"))


def test_ctrl_c_stops_at_the_next_step_and_says_how_to_go_on(folder: Path) -> None:
    (folder / "prompts.txt").write_text("\n".join(f"fox {number}" for number in range(2000)))
    process = start(folder)
    wait_for_lines(process, folder / "out/manifest.jsonl", 20)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    made = len(manifest(folder / "out"))
    last = err.splitlines()[-1]
    assert f"error[cancelled]: Stopped: {made:,} of 2,000 pictures are there." in last
    assert "Run the same command again: it goes on from here." in last
    assert 20 <= made < 2000
    assert len((folder / "out/manifest.csv").read_text().splitlines()) == made + 1


def test_two_at_once_do_not_share_a_folder(batch: Run, folder: Path, capsys: Capture) -> None:
    assert batch(TEN, "--limit", "1") == 0
    terms = Terms.model_validate_json((folder / "out/batch.json").read_bytes())
    entered = []

    def second(event: Event) -> None:
        if not entered:
            entered.append(event)
            assert cli.main(["batch", "prompts.txt", "--out", "out", "--dry-run"]) == 0
            with pytest.raises(CygnetError) as refused:
                Folder(folder / "out", terms, readonly=False)
            assert refused.value.code == "data_unusable"

    assert batch(TEN, before_event=second) == 0
    assert entered


# Failures


def test_a_failure_is_tried_again_and_then_no_failure(batch: Run, folder: Path) -> None:
    failed: Counter[int] = Counter()

    def twice(event: Event) -> None:
        if isinstance(event, ImageReady) and failed[event.seed] < 2:
            failed[event.seed] += 1
            raise OutOfMemory("The device ran out of memory.", "Ask for less.")

    assert batch(TEN, before_event=twice) == 0
    assert {line["attempts"] for line in manifest(folder / "out")} == {3}


def test_failures_are_listed_at_the_end_and_tried_again_by_the_next_run(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    rows = "prompt,seed\n" + "".join(f"fox {n},{n}\n" for n in range(9))
    counting = Counting(OutOfMemory("The device ran out of memory.", "Ask for less."), {3, 5})
    assert batch(rows, file="prompts.csv", before_event=counting) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("Failed: ") for line in lines) == 2
    assert lines[-3] == "Failed: picture 4, line 5: [out_of_memory] The device ran out of memory."
    assert lines[-2].startswith("Failed: picture 6, line 7: ")
    assert "error[batch_incomplete]: 2 of 9 pictures failed. Next: Run the same" in lines[-1]
    assert counting.drawn[3] == counting.drawn[5] == 3
    failed = [line for line in manifest(folder / "out") if line["status"] == "failed"]
    assert [line["error"]["code"] for line in failed] == ["out_of_memory"] * 2
    assert len(pictures(folder / "out")) == 7
    counting = Counting()
    assert batch(rows, file="prompts.csv", before_event=counting) == 0
    assert counting.drawn == {3: 1, 5: 1}
    assert "out_of_memory" not in (folder / "out/manifest.csv").read_text()


def test_a_failed_row_that_was_taken_out_is_no_failure_any_more(batch: Run) -> None:
    rows = "prompt,seed\n" + "".join(f"fox {n},{n}\n" for n in range(4))
    counting = Counting(OutOfMemory("The device ran out of memory.", "Ask for less."), {3})
    assert batch(rows, "--quiet", file="prompts.csv", before_event=counting) == 1
    assert batch(rows.replace("fox 3,3\n", ""), file="prompts.csv") == 0


def test_what_draws_is_what_the_setting_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "prompts.txt").write_text(TEN)
    monkeypatch.setenv("CYGNET_BACKEND", "fake")
    settings.cache_clear()
    assert again() == 0
    served = {(line["backend"], line["backend_reason"]) for line in manifest(folder / "out")}
    assert served == {("fake", "what draws here where nobody names another.")}


def test_a_backend_that_is_gone_stops_the_batch_early(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    rows = "\n".join(f"fox {number}" for number in range(200))
    counting = Counting(BackendUnavailable("The server cannot be reached.", "Check it."))
    assert batch(rows, "--concurrency", "4", before_event=counting) == 1
    line = error_line(capsys)
    assert "error[batch_incomplete]: Stopped after 10 failures in a row: The server" in line
    assert sum(counting.drawn.values()) < 60
    counting = Counting()
    assert batch(rows, before_event=counting) == 0
    assert len(pictures(folder / "out")) == 200


def test_pictures_that_fail_by_themselves_do_not_stop_the_others(batch: Run, folder: Path) -> None:
    error = InternalError("It broke.", "Try again.")
    rows = "prompt,seed\n" + "".join(f"fox {n},{n}\n" for n in range(60))
    counting = Counting(error, set(range(40)))
    assert batch(rows, file="prompts.csv", before_event=counting) == 1
    assert len(pictures(folder / "out")) == 20


def test_a_folder_that_cannot_be_written_stops_the_batch(
    batch: Run, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise OutputUnwritable("out cannot be written.", "Choose another place.")

    monkeypatch.setattr(Folder, "save", save)
    assert batch(TEN) == 1
    assert "error[output_unwritable]" in error_line(capsys)


def test_a_full_queue_is_waited_for_as_long_as_the_server_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert running.wait_before(2, QueueFull("Full.", "Wait.", retry_after=17)) == 17
    waits = [running.wait_before(attempt, OutOfMemory("", "")) for attempt in (2, 3)]
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2


# Before it runs


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(
    batch: Run, folder: Path, capsys: Capture
) -> None:
    assert batch("a {red|blue} fox\nan owl", "--seed", "7", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 pictures, 0 of them there already.",
        "000001-a-red-fox-7.png  a red fox",
        "000002-a-blue-fox-7.png  a blue fox",
        "000003-an-owl-7.png  an owl",
    ]
    assert not (folder / "out").exists()
    assert batch("a {red|blue} fox\nan owl", "--seed", "7", "--limit", "2") == 0
    capsys.readouterr()
    assert batch("a {red|blue} fox\nan owl", "--seed", "7", "--dry-run") == 0
    assert "3 pictures, 2 of them there already." in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ["--limit", "0"],
        ["--concurrency", "many"],
        ["--sample", "-1"],
        ["--batch-seed", "1.5"],
        ["--backend", "none"],
        ["--kind", "xls"],
    ],
)
def test_an_option_that_is_wrong_is_refused(
    batch: Run, folder: Path, capsys: Capture, options: list[str]
) -> None:
    (folder / "prompts.txt").write_text(TEN)
    assert again(*options) == 2
    assert options[0] in error_line(capsys) or "backend" in options[0]
    assert not (folder / "out").exists()


@pytest.mark.parametrize("out", ["prompts.txt", "prompts.txt/out"])
def test_an_out_that_is_a_file_is_refused(
    batch: Run, folder: Path, capsys: Capture, out: str
) -> None:
    assert batch(TEN, "--out", out) == 2
    assert f"error[invalid_request]: {out} is no folder." in error_line(capsys)


# The peak of this program in MiB. Linux hands `ru_maxrss` down from who started it.
PEAK = """
import pathlib, re, resource, sys
def peak():
    if sys.platform == "linux":
        status = pathlib.Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
"""


def test_a_dry_run_of_a_hundred_thousand_rows_keeps_under_200_mb(folder: Path) -> None:
    with (folder / "prompts.csv").open("w") as file:
        file.write("prompt,seed\n")
        file.writelines(f'"a red fox number {n}, 3d render, on a {{pink|beige}} background",{n}\n'
                        for n in range(100_000))  # fmt: skip
    program = f"{PEAK}\nfrom shared.cli import main\nmain(sys.argv[1:])\nprint(peak())"
    dry = ["batch", "prompts.csv", "--out", "out", "--sample", "1", "--dry-run"]
    ran = subprocess.run(
        [sys.executable, "-c", program, *dry],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said, *_, peak = ran.stdout.splitlines()
    assert said == "100,000 pictures, 0 of them there already."
    assert float(peak) < 200
