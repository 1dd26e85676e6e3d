"""The `cygnet` command, through its own door."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shared import __version__, cli
from shared.backends.fake import draw
from shared.checkpoints import CHECKPOINTS
from shared.contract import Event, ImageReady, Step, parse_request
from shared.errors import InternalError, OutOfMemory
from shared.images import encode_image, read_recipe
from tests.images.forms import FIELDS, FORMS
from tests.images.places import exif, named, saved

ROOT = Path(__file__).parents[1]
UseFake = Callable[..., None]
Capture = pytest.CaptureFixture[str]


def run(*argv: str) -> int:
    return cli.main(argv)


def error_line(capsys: Capture) -> str:
    """The one line that was printed, on stderr, in the form of an error."""
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1
    assert "Next: " in lines[0]
    return lines[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cygnet(
    *argv: str,
    cwd: Path,
    prelude: str = "",
    preexec: Callable[[], None] | None = None,
    stdout: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """The command in a process of its own, after some lines of preparation."""
    program = f"import sys\n{prelude}\nfrom shared.cli import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *argv],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        preexec_fn=preexec,
    )


# generate: the result


def test_a_picture_is_saved_under_its_prompt_and_seed(
    folder: Path, use_fake: UseFake, capsys: Capture
) -> None:
    use_fake()
    assert run("generate", "A red fox, in the snow!", "--seed", "7") == 0
    path = folder / "outputs" / "a-red-fox-in-the-snow-7.png"
    assert names(folder / "outputs") == [path.name]
    assert parse_request(read_recipe(path).fields).prompt == "A red fox, in the snow!"
    printed = capsys.readouterr()
    assert printed.out.startswith("outputs/a-red-fox-in-the-snow-7.png  seed 7  ")
    assert printed.out.endswith(" s\n")
    assert printed.err.splitlines()[0] == "Loading cygnet-tiny"
    assert "Step 20 of 20" in printed.err
    assert len(printed.err.splitlines()) < 8
    assert "\x1b" not in printed.err


def test_a_name_that_is_taken_gets_a_number(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    for _ in range(3):
        assert run("generate", "fox", "--seed", "7") == 0
    assert names(folder / "outputs") == ["fox-7-2.png", "fox-7-3.png", "fox-7.png"]


def test_with_force_a_name_that_is_taken_is_taken_over(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    for _ in range(2):
        assert run("generate", "fox", "--seed", "7", "--force") == 0
    assert names(folder / "outputs") == ["fox-7.png"]


def test_several_images_have_their_own_seeds(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    assert run("generate", "fox", "--seed", "7", "--num-images", "3") == 0
    assert names(folder / "outputs") == ["fox-7.png", "fox-8.png", "fox-9.png"]
    assert read_recipe(folder / "outputs" / "fox-8.png").fields["seed"] == 8


def test_several_images_number_the_file_that_was_named(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    assert run("generate", "fox", "--num-images", "2", "--out", "new/cat.webp") == 0
    assert names(folder / "new") == ["cat-1.webp", "cat-2.webp"]


def test_every_option_reaches_the_request(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    options = "--negative-prompt cats --width 320 --height 272 --steps 3 --guidance-scale 2.5"
    more = "--seed 5 --num-images 1 --checkpoint wan2.1-1.3b --scheduler euler --out a.jpg"
    assert run("generate", "fox", *options.split(), *more.split()) == 0
    assert read_recipe(folder / "a.jpg").fields == {
        "prompt": "fox",
        "negative_prompt": "cats",
        "checkpoint": "wan2.1-1.3b",
        "width": 320,
        "height": 272,
        "steps": 3,
        "guidance_scale": 2.5,
        "scheduler": "euler",
        "seed": 5,
        "num_images": 1,
        "output_format": "jpeg",
    }
    with Image.open(folder / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (320, 272))


@pytest.mark.parametrize(
    ("out", "options", "written"),
    [
        ("a.WEBP", [], "a.WEBP"),
        ("a.jpeg", ["--format", "jpeg"], "a.jpeg"),
        ("pictures", ["--format", "webp"], "pictures/fox-1.webp"),
        ("v1.2/", [], "v1.2/fox-1.png"),
    ],
)
def test_the_format_follows_the_name(
    folder: Path, use_fake: UseFake, out: str, options: list[str], written: str
) -> None:
    use_fake()
    assert run("generate", "fox", "--seed", "1", "--out", out, *options) == 0
    assert (folder / written).is_file()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("🦊🦊", "picture-1.png"),
        ("../../etc/passwd", "etc-passwd-1.png"),
        ("Один лебедь", "один-лебедь-1.png"),
        ("a" * 500, f"{'a' * 40}-1.png"),
    ],
)
def test_any_prompt_makes_a_harmless_name(
    folder: Path, use_fake: UseFake, prompt: str, name: str
) -> None:
    use_fake()
    assert run("generate", prompt, "--seed", "1") == 0
    assert names(folder / "outputs") == [name]


def test_json_is_the_only_thing_on_stdout(folder: Path, use_fake: UseFake, capsys: Capture) -> None:
    use_fake()
    assert run("generate", "fox", "--seed", "7", "--num-images", "2", "--json", "--quiet") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert report["images"] == [
        {"index": 0, "seed": 7, "path": "outputs/fox-7.png"},
        {"index": 1, "seed": 8, "path": "outputs/fox-8.png"},
    ]
    assert report["result"]["request"]["num_images"] == 2


def test_the_backend_that_needs_no_model_can_be_asked_for(folder: Path) -> None:
    assert run("generate", "fox", "--backend", "fake", "--seed", "1") == 0
    assert names(folder / "outputs") == ["fox-1.png"]


# generate --from


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_a_picture_makes_the_same_picture_again(
    folder: Path, use_fake: UseFake, suffix: str
) -> None:
    use_fake()
    assert run("generate", "fox 🦊", "--steps", "3", "--out", f"a.{suffix}") == 0
    assert run("generate", "--from", f"a.{suffix}", "--out", f"b.{suffix}") == 0
    assert (folder / f"a.{suffix}").read_bytes() == (folder / f"b.{suffix}").read_bytes()


def test_options_change_what_comes_from_a_picture(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    run("generate", "fox", "--steps", "3", "--seed", "5", "--out", "a.webp")
    assert run("generate", "goose", "--from", "a.webp", "--seed", "6", "--out", "b.png") == 0
    fields = read_recipe(folder / "b.png").fields
    assert [fields[name] for name in ("prompt", "seed", "steps", "output_format")] == [
        "goose",
        6,
        3,
        "png",
    ]


def test_a_picture_of_a1111_is_used_and_what_we_lack_is_said(
    folder: Path, use_fake: UseFake, capsys: Capture
) -> None:
    use_fake()
    text = "a castle\nSteps: 5, Sampler: DPM++ 2M, Seed: 42, Size: 256x256, Model: dream"
    save_with_text(folder / "theirs.png", text)
    assert run("generate", "--from", "theirs.png") == 0
    assert names(folder / "outputs") == ["a-castle-42.png"]
    assert "Not used: Sampler: DPM++ 2M, Model: dream" in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMS)
def test_pictures_of_other_programs_are_inspected_and_used(
    folder: Path, use_fake: UseFake, capsys: Capture, form: str
) -> None:
    writer, text, unused = FORMS[form]
    use_fake()
    (folder / "theirs.png").write_bytes(named("parameters", text))
    assert run("inspect", "theirs.png", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["writer"], told["fields"]) == (writer, FIELDS)
    argv = ["generate", "--from", "theirs.png", "--width", "256", "--out", "ours.png"]
    assert run(*argv) == 0
    fields = read_recipe(folder / "ours.png").fields
    assert fields.items() >= (FIELDS | {"width": 256}).items()
    assert unused in capsys.readouterr().err


@pytest.mark.parametrize("command", [["inspect"], ["generate", "--from"]])
def test_a_cameras_comment_is_never_drawn(
    folder: Path, use_fake: UseFake, capsys: Capture, command: list[str]
) -> None:
    use_fake()
    (folder / "camera.jpg").write_bytes(saved("JPEG", exif=exif(b"ASCII\0\0\0Screenshot")))
    assert run(*command, "camera.jpg") == 2
    assert error_line(capsys).startswith("error[no_recipe_in_image]: ")
    assert names(folder) == ["camera.jpg"]


def test_a_picture_of_another_revision_comes_with_a_remark(
    folder: Path, use_fake: UseFake, capsys: Capture
) -> None:
    use_fake()
    asked = parse_request({"prompt": "fox", "seed": 7})
    (folder / "a.png").write_bytes(encode_image(draw(7, 64, 64), asked, "abc123"))
    assert run("generate", "--from", "a.png") == 0
    assert "made with revision abc123 of cygnet-tiny" in capsys.readouterr().err


def save_with_text(path: Path, text: str) -> None:
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


# bad input: one line, exit code 2, no file


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["generate", "fox", "--steps", "200"], "invalid_request", "Use steps=100."),
        (["generate", "fox", "--steps", "3.5"], "invalid_request", "Use steps=4."),
        (["generate", "fox", "--steps", "many"], "invalid_request", "steps='many'"),
        (["generate", "fox", "--seed", "-2"], "invalid_request", "Use seed=0."),
        (
            ["generate", "fox", "--guidance-scale", "nan"],
            "invalid_request",
            "--guidance-scale=nan is not",
        ),
        (["generate", "fox", "--num-images", "99"], "invalid_request", "Use --num-images=16."),
        (["generate", "fox", "--format", "gif"], "invalid_request", "Next: Use --format="),
        (["generate", "fox", "--width", "250"], "invalid_request", "Use width=256."),
        (["generate", "fox", "--scheduler", "eular"], "invalid_request", "scheduler=euler"),
        (["generate", "fox", "--format", "gif"], "invalid_request", "--format=png"),
        (["generate", "\x00\x1b\x07"], "invalid_request", "prompt is empty"),
        (["generate", "a" * 2001], "invalid_request", "2001 characters"),
        (["generate"], "invalid_request", "prompt is missing"),
        (["generate", "fox", "--out", "a.gif"], "invalid_request", ".gif"),
        (["generate", "f", "--out", "a.png", "--format", "webp"], "invalid_request", "is png"),
        (["generate", "fox", "--checkpoint", "cygnet-tny"], "unknown_checkpoint", "cygnet-tiny?"),
        (["generate", "fox", "--checkpoint", "./none"], "unknown_checkpoint", "no folder"),
        (["generate", "fox", "--backend", "cloud"], "unknown_backend", "Choose one of auto, local"),
        (["generate", "--from", "none.png"], "unreadable_image", "No such file"),
        (["generate", "--from", "."], "unreadable_image", "not a file"),
        (["generate", "fox", "--stps", "3"], "invalid_request", "--stps"),
        (["generate", "fox", "--steps"], "invalid_request", "expected one argument"),
        (["inspect", "none.png"], "unreadable_image", "No such file"),
        (["inspect", "bad\nname\x1b[31m.png"], "unreadable_image", "bad name[31m.png"),
        (["paint"], "invalid_request", "paint"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_bad_input_gets_one_line_and_leaves_no_file(
    folder: Path, capsys: Capture, argv: list[str], code: str, says: str
) -> None:
    assert run(*argv) == 2
    line = error_line(capsys)
    assert line.startswith(f"error[{code}]: ")
    assert says in line
    assert names(folder) == []


def test_a_file_that_exists_is_refused_before_anything_is_drawn(
    folder: Path, use_fake: UseFake, capsys: Capture
) -> None:
    drawn: list[Event] = []
    use_fake(drawn.append)
    (folder / "a-2.png").write_bytes(b"mine")
    assert run("generate", "fox", "--num-images", "2", "--out", "a.png") == 2
    assert error_line(capsys).startswith("error[output_exists]: a-2.png exists.")
    assert (folder / "a-2.png").read_bytes() == b"mine"
    assert drawn == []


@pytest.mark.parametrize("out", ["taken/", "taken/a.png", "/dev/null/a.png", "x" * 300])
def test_an_unwritable_place_is_refused_before_anything_is_drawn(
    folder: Path, use_fake: UseFake, capsys: Capture, out: str
) -> None:
    drawn: list[Event] = []
    use_fake(drawn.append)
    (folder / "taken").touch()
    assert run("generate", "fox", "--out", out) == 1
    assert error_line(capsys).startswith("error[output_unwritable]: ")
    assert drawn == []
    assert names(folder) == ["taken"]


def test_a_picture_without_a_recipe_cannot_be_made_again(folder: Path, capsys: Capture) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    assert run("generate", "--from", "plain.png") == 2
    assert error_line(capsys).startswith("error[no_recipe_in_image]: ")


def test_a_folder_that_is_no_checkpoint_is_refused(folder: Path, capsys: Capture) -> None:
    (folder / "weights").mkdir()
    assert run("generate", "fox", "--checkpoint", "weights") == 1
    assert error_line(capsys).startswith("error[checkpoint_corrupt]: ")
    assert names(folder) == ["weights"]


def test_a_bad_setting_is_refused(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_DEVICE", "tpu")
    assert run("generate", "fox") == 2
    assert error_line(capsys).startswith("error[invalid_setting]: CYGNET_DEVICE='tpu'")


# failures: what was finished is kept


def raising(error: BaseException) -> Callable[[Event], None]:
    """Raises in place of the second image."""

    def before_event(event: Event) -> None:
        if isinstance(event, ImageReady) and event.index == 1:
            raise error

    return before_event


def test_a_failure_keeps_the_images_that_were_finished(
    folder: Path, use_fake: UseFake, capsys: Capture
) -> None:
    use_fake(raising(OutOfMemory("No memory is left.", "Choose a smaller size.")))
    assert run("generate", "fox", "--seed", "7", "--num-images", "3", "--quiet") == 1
    assert names(folder / "outputs") == ["fox-7.png"]
    printed = capsys.readouterr()
    assert printed.out.startswith("outputs/fox-7.png")
    assert printed.err == (
        "error[out_of_memory]: No memory is left. Next: Choose a smaller size. "
        "With --seed 7 the same pictures come again.\n"
    )


def test_a_failure_is_in_the_json_too(folder: Path, use_fake: UseFake, capsys: Capture) -> None:
    use_fake(raising(OutOfMemory("No memory is left.", "Choose a smaller size.")))
    assert run("generate", "fox", "--seed", "7", "--num-images", "3", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [image["path"] for image in report["images"]] == ["outputs/fox-7.png"]
    assert report["error"]["code"] == "out_of_memory"


def test_a_crash_is_one_line_and_its_traceback_is_kept_in_a_file(
    folder: Path, use_fake: UseFake, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    use_fake(raising(RuntimeError("token=secret")))
    assert run("generate", "fox", "--num-images", "2", "--quiet") == 1
    line = capsys.readouterr().err
    assert line.startswith("error[internal_error]: Something in Cygnet failed (RuntimeError).")
    assert "secret" not in line
    [log] = folder.glob("cygnet-*.log")
    assert str(log) in line
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_what_libraries_log_stays_off_the_terminal_and_goes_with_a_report(
    folder: Path, use_fake: UseFake, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before_event(_: Event) -> None:
        library = logging.getLogger("library")
        with contextlib.closing(logging.StreamHandler()) as own_handler:
            library.addHandler(own_handler)
            library.warning("a remark")
            library.removeHandler(own_handler)
        library.error("what went wrong below")
        raise InternalError("The engine failed.", "Try again.")

    monkeypatch.setattr("tempfile.tempdir", str(folder))
    use_fake(before_event)
    assert run("generate", "fox", "--quiet") == 1
    assert error_line(capsys).startswith("error[internal_error]: The engine failed. Next: Try")
    [log] = folder.glob("cygnet-*.log")
    assert "what went wrong below" in log.read_text()


def test_a_stream_that_breaks_off_is_a_failure(
    folder: Path, use_fake: UseFake, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object):  # type: ignore[no-untyped-def]
        return
        yield

    use_fake()
    monkeypatch.setattr("shared.backends.fake.FakeBackend.generate", nothing)
    assert run("generate", "fox", "--quiet") == 1
    assert error_line(capsys).startswith("error[internal_error]: The backend stopped before")


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_half_file(
    folder: Path, use_fake: UseFake, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    use_fake()
    monkeypatch.setattr(os, "fsync", full)
    assert run("generate", "fox", "--seed", "7", "--quiet") == 1
    assert error_line(capsys).startswith("error[disk_full]: There is no room left for outputs/fox-")
    assert names(folder / "outputs") == []


def test_a_file_larger_than_the_system_allows_leaves_no_half_file(folder: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    process = cygnet("generate", "fox", "--backend", "fake", cwd=folder, preexec=limit)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr.splitlines()[-1].startswith("error[disk_full]: ")
    assert names(folder / "outputs") == []


# Ctrl-C


def ctrl_c_at(step: int) -> Callable[[Event], None]:
    """Presses Ctrl-C during a step of the second image."""

    def before_event(event: Event) -> None:
        if isinstance(event, Step) and (event.index, event.step) == (1, step):
            signal.raise_signal(signal.SIGINT)

    return before_event


def test_ctrl_c_stops_at_the_next_step_and_says_what_was_saved(
    folder: Path, use_fake: UseFake, capsys: Capture
) -> None:
    before = signal.getsignal(signal.SIGINT)
    use_fake(ctrl_c_at(step=8))
    options = ["--seed", "7", "--num-images", "4", "--steps", "20"]
    assert run("generate", "fox", *options) == 1
    assert names(folder / "outputs") == ["fox-7.png"]
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "Stopping at the next step; Ctrl-C again leaves at once.",
        "error[cancelled]: Stopped at step 27 of 80. 1 of 4 images was saved. "
        "Next: Run the command again. With --seed 7 the same pictures come again.",
    ]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("ending", ["done", "failure", "ctrl-c"])
def test_the_backend_is_closed_whatever_happens(
    folder: Path, use_fake: UseFake, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    closed: list[object] = []

    async def aclose(backend: object) -> None:
        closed.append(backend)

    monkeypatch.setattr("shared.backends.fake.FakeBackend.aclose", aclose)
    endings = {"failure": raising(OutOfMemory("None.", "Less.")), "ctrl-c": ctrl_c_at(step=2)}
    use_fake(endings.get(ending))
    assert run("generate", "fox", "--num-images", "2") == (0 if ending == "done" else 1)
    assert len(closed) == 1


def test_ctrl_c_before_the_first_step_is_one_line_too(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str, **_: object) -> Callable[[], None]:
        return lambda: signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("shared.cli.generate.find_backend", interrupted)
    assert run("generate", "fox", "--quiet") == 1
    assert error_line(capsys).startswith("error[cancelled]: Stopped. No image was saved.")


def test_a_second_ctrl_c_leaves_at_once(folder: Path) -> None:
    prelude = """
import signal
from shared.backends import fake
def stuck(event):
    if event.type == "step":
        while True:  # as an engine that does not come to its next step
            handler = signal.getsignal(signal.SIGINT)
            print("stuck", flush=True)
            while signal.getsignal(signal.SIGINT) == handler:
                pass
events = fake._events
async def stuck_events(request):
    async for event in events(request):
        stuck(event)
        yield event
fake._events = stuck_events
"""
    process = cygnet("generate", "fox", "--backend", "fake", cwd=folder, prelude=prelude)
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert names(folder / "outputs") == []


# checkpoints, inspect, and the command as such


def test_checkpoints_are_a_table_of_80_columns(capsys: Capture) -> None:
    assert run("checkpoints") == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    for row in CHECKPOINTS:
        [facts] = [line for line in table.splitlines() if line.startswith(f"{row.name} ")]
        assert f"{row.width}×{row.height}" in facts
        assert row.scheduler in facts
    assert "Apache-2.0?" in table and ", 38ec498cb320 · shift 5" in table


def test_checkpoints_as_json_are_all_facts_and_no_paths(capsys: Capture) -> None:
    assert run("checkpoints", "--json") == 0
    printed = capsys.readouterr().out
    rows = json.loads(printed)
    assert [row["name"] for row in rows] == [row.name for row in CHECKPOINTS]
    assert {"licence", "revision", "memory_gib", "here"} <= rows[0].keys()
    assert str(ROOT) not in printed


def test_inspect_prints_every_field(folder: Path, use_fake: UseFake, capsys: Capture) -> None:
    use_fake()
    run("generate", "[bold]fox[/] :smile:", "--seed", "7", "--out", "a.png", "--quiet")
    capsys.readouterr()
    assert run("inspect", "a.png") == 0
    printed = capsys.readouterr().out
    rows = dict(line.split(maxsplit=1) for line in printed.splitlines() if len(line.split()) > 1)
    assert rows["prompt"] == "[bold]fox[/] :smile:"
    assert rows["seed"] == "7"
    assert rows["revision"] == "unpinned"


def test_inspect_as_json_is_the_recipe(folder: Path, use_fake: UseFake, capsys: Capture) -> None:
    use_fake()
    run("generate", "fox", "--seed", "7", "--out", "a.png", "--quiet")
    capsys.readouterr()
    assert run("inspect", "a.png", "--json") == 0
    recipe = json.loads(capsys.readouterr().out)
    assert (recipe["writer"], recipe["fields"]["seed"]) == ("cygnet", 7)


def test_inspect_shows_what_another_program_wrote_without_its_escapes(
    folder: Path, capsys: Capture
) -> None:
    save_with_text(folder / "a.png", "fox\x1b[2J\nSteps: 5, Seed: 1, Evil key: \x1b]0;title\x07x")
    assert run("inspect", "a.png") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "(Evil key)" in printed


def test_the_version_is_printed(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        run("--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"cygnet {__version__}\n"


def test_help_names_every_field_of_a_request(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        run("generate", "--help")
    text = capsys.readouterr().out
    options = "--negative-prompt --width --height --steps --guidance-scale --seed --num-images"
    for option in [*options.split(), "--checkpoint", "--scheduler", "--format", "PROMPT"]:
        assert option in text


def test_a_terminal_that_lacks_letters_is_no_failure(folder: Path) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "shared.cli",
            "generate",
            "狐狸",
            "--backend",
            "fake",
            "--seed",
            "1",
        ],
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert process.stdout.startswith(rb"outputs/\u72d0\u72f8-1.png")


@pytest.mark.parametrize("command", ["checkpoints", "inspect a.png"])
def test_a_reader_that_goes_away_is_no_crash(folder: Path, use_fake: UseFake, command: str) -> None:
    use_fake()
    run("generate", "fox", "--out", "a.png")
    reader, writer = os.pipe()
    os.close(reader)
    process = cygnet(*command.split(), "--json", cwd=folder, stdout=writer)
    os.close(writer)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (1, "")


def test_on_a_terminal_a_bar_makes_room_for_each_result_and_the_cursor_comes_back(
    folder: Path,
) -> None:
    reader, writer = os.openpty()
    process = cygnet(
        *("generate", "fox", "--backend", "fake", "--seed", "7", "--num-images", "2"),
        cwd=folder,
        prelude="import os; os.environ['TERM'] = 'xterm'; sys.stderr = open(os.dup(1), 'w')",
        stdout=writer,
    )
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends whose last writer has gone
        while piece := os.read(reader, 4096):
            shown += piece
    os.close(reader)
    assert process.communicate() == (None, "")
    assert process.returncode == 0
    text = shown.decode()
    assert "step 40 of 40" in text
    for name in ("fox-7", "fox-8"):
        assert f"\x1b[2Koutputs/{name}.png" in text  # the line was cleared before
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # shown after it was hidden


def test_pictures_are_whole_files(folder: Path, use_fake: UseFake) -> None:
    use_fake()
    run("generate", "fox", "--out", "a.png")
    with Image.open(BytesIO((folder / "a.png").read_bytes())) as image:
        image.load()
        assert image.size == (256, 256)
