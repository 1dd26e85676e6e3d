"""`cygnet space publish` against a stand-in for the Hub, through the Hub's own client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from shared import cli
from shared.checkpoints import get_checkpoint
from shared.mirror import tree
from shared.mirror.card import read_card
from shared.settings import settings
from tests.mirror.stand_in import TOKEN, Hub, Space

SECRET = "a-key-that-nobody-may-read"


def clone(space: Space, folder: Path) -> None:
    """The Space's files, as git lays them out."""
    for path, data in (space.files | {".git/config": b""}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def publish(*options: str) -> int:
    return cli.main(["space", "publish", "swan/cygnet", *options])


def test_a_space_is_created_once_with_all_it_should_be(
    hub: Hub, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYGNET_API_KEY", SECRET)
    options = (
        "--private --hardware zero-a10g --sleep-time 300 --variables CYGNET_BACKEND=modal A=b=c"
    )
    assert publish(*options.split(), "--secrets", "CYGNET_API_KEY") == 0
    space = hub.spaces["swan/cygnet"]
    assert space.private and space.settings == {"hardware": "zero-a10g", "sleep": 300}
    assert space.variables == {"CYGNET_BACKEND": "modal", "A": "b=c"}
    assert space.secrets == {"CYGNET_API_KEY": SECRET}
    files = {path: source.read_bytes() for path, source in tree.sources().items()}
    files["README.md"] = files["README.md"].replace(b"OWNER/NAME", b"swan/cygnet")
    assert space.files == files | {".gitattributes": b"*.safetensors filter=lfs\n"}
    assert space.large == {"shared/weights/model.safetensors"}
    out, err = capsys.readouterr()
    assert out == f"{hub.url}/spaces/swan/cygnet  created: {len(files)} files sent\n"
    assert SECRET not in out + err and TOKEN not in out + err


def test_a_second_publish_without_a_change_sends_nothing(
    hub: Hub, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--hardware",
        "cpu-upgrade",
        "--sleep-time",
        "600",
        "--variables",
        "A=b",
        "--private",
    ]
    assert publish(*options) == 0
    hub.calls.clear()
    capsys.readouterr()
    assert publish(*options) == 0
    assert not [call for call in hub.calls if not call.startswith("GET ")]
    assert capsys.readouterr().out.endswith("  unchanged\n")
    assert len(hub.spaces["swan/cygnet"].commits) == 1


def test_a_change_sends_what_changed_and_removes_what_is_gone(hub: Hub, checkout: Path) -> None:
    assert publish() == 0
    hub.calls.clear()
    (checkout / "space/app.py").write_text("print('new')\n")
    (checkout / "space/page/looks.py").rename(checkout / "space/page/theme.py")
    assert publish() == 0
    space = hub.spaces["swan/cygnet"]
    changed = ["deletedFile space/page/looks.py", "file app.py", "file space/page/theme.py"]
    assert space.commits[1:] == [changed]
    assert hub.uploads() == ["POST /api/spaces/swan/cygnet/commit/main"]
    assert space.files["app.py"] == b"print('new')\n"


def test_weights_that_changed_without_growing_are_sent(hub: Hub, checkout: Path) -> None:
    assert publish() == 0
    (checkout / "shared/weights/model.safetensors").write_bytes(b"v" * 2_000_000)
    assert publish() == 0
    commits = hub.spaces["swan/cygnet"].commits
    assert commits[1:] == [["lfsFile shared/weights/model.safetensors"]]


def test_what_is_asked_for_differently_is_changed(hub: Hub, checkout: Path) -> None:
    assert publish("--variables", "A=b", "KEPT=yes", "--private") == 0
    assert publish("--variables", "A=c", "--hardware", "cpu-upgrade", "--no-private") == 0
    space = hub.spaces["swan/cygnet"]
    assert space.variables == {"A": "c", "KEPT": "yes"}
    assert space.settings["hardware"] == "cpu-upgrade" and not space.private
    assert len(space.commits) == 1


def test_what_was_done_can_be_had_as_json(
    hub: Hub, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish("--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["created"] and told["url"].endswith("/spaces/swan/cygnet")
    assert "app.py" in told["sent"] and told["removed"] == []


def test_what_the_space_draws_with_is_fetched_when_it_is_built(
    hub: Hub, checkout: Path, tmp_path: Path
) -> None:
    wan = get_checkpoint("wan2.1-14b-fast")
    assert wan.lora
    files = ["vae/config.json", "README.md", "transformer/a.safetensors", "model_index.json"]
    hub.models[f"{wan.repository}@{wan.revision}"] = files
    for options in (["--variables", f"CYGNET_CHECKPOINT={wan.name}"], []):  # the Space remembers
        assert publish(*options) == 0
        card = read_card(hub.spaces["swan/cygnet"].files["README.md"].decode())
        assert card.preload_from_hub == (
            f"{wan.repository} model_index.json,transformer/a.safetensors,vae/config.json {wan.revision}",
            f"{wan.lora.repository} {wan.lora.filename}",
        )
    assert len(hub.spaces["swan/cygnet"].commits) == 1
    clone(hub.spaces["swan/cygnet"], tmp_path / "clone")
    assert cli.main(["space", "check", str(tmp_path / "clone")]) == 0
    assert publish("--variables", "CYGNET_BACKEND=modal") == 0
    assert not read_card(hub.spaces["swan/cygnet"].files["README.md"].decode()).preload_from_hub


def test_a_space_with_a_gpu_draws_with_a_real_wan_where_nobody_chose(
    hub: Hub, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wan = get_checkpoint("wan2.1-1.3b-fast")
    hub.models[f"{wan.repository}@{wan.revision}"] = ["vae/a.safetensors"]
    assert publish("--hardware", "zero-a10g") == 0
    assert "CYGNET_CHECKPOINT was set to wan2.1-1.3b-fast" in capsys.readouterr().out
    space = hub.spaces["swan/cygnet"]
    assert space.variables == {"CYGNET_CHECKPOINT": wan.name}
    card = read_card(space.files["README.md"].decode())
    assert card.preload_from_hub == (f"{wan.repository} vae/a.safetensors {wan.revision}",)
    assert publish("--hardware", "zero-a10g") == 0
    assert capsys.readouterr().out.endswith("  unchanged\n")


def test_a_space_that_got_a_gpu_since_draws_with_a_real_wan_too(hub: Hub, checkout: Path) -> None:
    assert publish() == 0
    space = hub.spaces["swan/cygnet"]
    assert not space.variables
    space.settings["hardware"] = "l4x1"  # on the Space's own page
    assert publish() == 0
    assert space.variables == {"CYGNET_CHECKPOINT": "wan2.1-1.3b-fast"}


@pytest.mark.parametrize("said", ["CYGNET_CHECKPOINT=cygnet-tiny", "CYGNET_BACKEND=modal"])
def test_what_a_space_was_told_to_draw_with_stays(hub: Hub, checkout: Path, said: str) -> None:
    assert publish("--variables", said) == 0
    assert publish("--hardware", "l4x1") == 0
    name, value = said.split("=")
    assert hub.spaces["swan/cygnet"].variables == {name: value}


def test_a_space_names_itself_in_its_readme(hub: Hub, checkout: Path, tmp_path: Path) -> None:
    assert publish() == 0
    space = hub.spaces["swan/cygnet"]
    assert b'Client("swan/cygnet")' in space.files["README.md"]
    clone(space, tmp_path / "clone")
    assert cli.main(["space", "check", str(tmp_path / "clone")]) == 0


def test_a_checkpoint_that_is_not_known_is_told(
    hub: Hub, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish("--variables", "CYGNET_CHECKPOINT=wan3") == 2
    assert "error[unknown_checkpoint]" in capsys.readouterr().err
    assert not hub.spaces


def test_a_variable_that_the_space_could_not_start_with_is_told(
    hub: Hub, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish("--variables", "CYGNET_DTYPE=float8") == 2
    assert "error[invalid_setting]: CYGNET_DTYPE='float8'" in capsys.readouterr().err
    assert not hub.spaces


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--secrets", f"KEY={SECRET}"], "by its name alone"),
        (["--secrets", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        (["--variables", "CYGNET_BACKEND"], "NAME=VALUE"),
        (["--hardware", "zero-a10"], "zero-a10g"),
        (["--sleep-time", "soon"], "a whole number from -1"),
        (["--sleep-time", "-2"], "a whole number from -1"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_the_hub_is_asked(
    hub: Hub, checkout: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(*options) == 2
    told = capsys.readouterr().err
    assert said in told and SECRET not in told
    assert not hub.calls


def test_a_token_that_may_not_write_is_told_apart(
    hub: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_that_may_only_read")
    settings.cache_clear()
    assert publish() == 2
    told = capsys.readouterr().err
    assert "error[unauthorised]" in told and "hf_a_token" not in told


def test_an_echo_of_a_secret_is_not_shown(
    hub: Hub, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEY", SECRET)
    hub.fail["/api/repos/create"] = JSONResponse({"error": f"What is {SECRET}?"}, 400)
    assert publish("--secrets", "KEY") == 1
    told = capsys.readouterr().err
    assert "error[backend_unavailable]: The Hub refused: status 400" in told
    assert SECRET not in told


def test_a_publish_that_broke_off_is_finished_by_the_next(hub: Hub, checkout: Path) -> None:
    commit = "/api/spaces/swan/cygnet/commit/main"
    hub.fail[commit] = JSONResponse({"error": "no"}, 400)
    assert publish() == 1
    assert publish() == 0
    [done] = hub.spaces["swan/cygnet"].commits
    assert "file app.py" in done
    assert len([call for call in hub.calls if call.startswith("PUT /lfs/")]) == 1


def test_a_hub_that_is_not_there_is_an_error_with_a_next_step(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    settings.cache_clear()
    assert publish() == 1
    assert "error[backend_unavailable]: The Hub cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["swan", "a/b/c", "swan/..", "swan/x y", "../../etc/passwd"])
def test_what_is_no_name_of_a_space_is_refused(
    hub: Hub, checkout: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["space", "publish", name]) == 2
    assert "error[invalid_request]" in capsys.readouterr().err
    assert not hub.spaces
