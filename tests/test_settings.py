"""The environment as settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from shared.errors import InvalidSetting
from shared.settings import VARIABLES, Settings, read_settings, settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()


def test_an_empty_variable_counts_as_unset() -> None:
    assert read_settings(dict.fromkeys(VARIABLES, " ")) == Settings()


def test_every_variable_sets_its_field() -> None:
    read = read_settings(
        {
            "CYGNET_CHECKPOINT": "wan2.1-14b",
            "CYGNET_DEVICE": "cpu",
            "CYGNET_DTYPE": "float32",
            "CYGNET_QUANTISATION": "int8",
            "CYGNET_ATTENTION": "native",
            "CYGNET_COMPILE": "1",
            "CYGNET_DATA_DIR": "/data",
            "CYGNET_API_URL": "https://swan.example:8000/cygnet",
            "CYGNET_API_KEY": "one-key, another-key",
            "CYGNET_SPACE": "swan/cygnet",
            "HF_ENDPOINT": "https://hub.example",
            "CYGNET_MODAL_URL": "https://swan--cygnet.modal.run",
            "CYGNET_MODAL_GPU": "H100,L40S",
            "CYGNET_OPENAI_MODELS": "dall-e-*=wan2.1-1.3b,*=cygnet-tiny",
            "CYGNET_MODAL_SNAPSHOT": "gpu",
        }
    )
    assert read.data_dir == Path("/data")
    assert read.api_url == "https://swan.example:8000/cygnet"
    assert [key.get_secret_value() for key in read.api_keys] == ["one-key", "another-key"]
    assert list(read.openai_models.items()) == [("dall-e-*", "wan2.1-1.3b"), ("*", "cygnet-tiny")]
    assert (read.space, read.hub_url) == ("swan/cygnet", "https://hub.example")
    assert "one-key" not in repr(read)
    assert read.modal_url == "https://swan--cygnet.modal.run"
    assert (read.modal_gpu, read.modal_snapshot) == (("H100", "L40S"), "gpu")
    assert read.checkpoint == "wan2.1-14b"
    assert read.acceleration.model_dump() == {
        "device": "cpu",
        "dtype": "float32",
        "quantisation": "int8",
        "attention": "native",
        "compile": True,
    }


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CYGNET_DEVICE", "tpu"),
        ("CYGNET_DTYPE", "float64"),
        ("CYGNET_QUANTISATION", "int3"),
        ("CYGNET_COMPILE", "perhaps"),
        ("CYGNET_API_URL", "swan.example"),
        ("CYGNET_MODAL_URL", "swan.example"),
        ("CYGNET_OPENAI_MODELS", "dall-e-3"),
        ("CYGNET_SPACE", "swan"),
        ("CYGNET_SPACE", "https://user:password@swan.example"),
        ("HF_ENDPOINT", "hub.example"),
        ("CYGNET_MODAL_SNAPSHOT", "tpu"),
        ("CYGNET_MODAL_GPU", "L40S, A100-8GB"),
        ("CYGNET_MODAL_GPU", "none, L4"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_variable(
    variable: str, value: str
) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        read_settings({variable: value})
    assert f"{variable}={value!r}" in refusal.value.message
    assert variable in refusal.value.next_step
    assert not re.search("Input should|String should|Value error", refusal.value.message)


@pytest.mark.parametrize(
    ("typed", "meant"), [("L40", "L40S"), ("a100-80", "A100-80GB"), ("H10:2", "H100")]
)
def test_a_mistyped_gpu_is_refused_with_the_name_that_is_nearest(typed: str, meant: str) -> None:
    with pytest.raises(InvalidSetting, match=f"the nearest name is {meant}."):
        read_settings({"CYGNET_MODAL_GPU": typed})


def test_a_gpu_is_known_in_any_case_and_in_any_number() -> None:
    assert read_settings({"CYGNET_MODAL_GPU": "l40s h100:2"}).modal_gpu == ("L40S", "H100:2")


def test_other_variables_stay_out_of_the_error() -> None:
    with pytest.raises(InvalidSetting) as refusal:
        read_settings({"CYGNET_DEVICE": "tpu", "HF_TOKEN": "hf_secret"})
    assert "hf_secret" not in str(refusal.value)


def test_the_process_reads_its_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYGNET_CHECKPOINT", "wan2.1-14b")
    first = settings()
    monkeypatch.setenv("CYGNET_CHECKPOINT", "cygnet-tiny")
    assert settings() is first
    assert first.checkpoint == "wan2.1-14b"


def path_variables() -> list[str]:
    """Every variable whose setting is a path, whichever they are."""
    found = []
    for variable, (*groups, name) in VARIABLES.items():
        section: BaseModel = Settings()
        for group in groups:
            section = getattr(section, group)
        if "Path" in repr(type(section).model_fields[name].annotation):
            found.append(variable)
    return found


@pytest.mark.parametrize("variable", path_variables())
def test_a_path_may_begin_with_the_home_folder(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    *_, name = VARIABLES[variable]
    assert getattr(read_settings({variable: "~/swans"}), name) == tmp_path / "swans"
    assert getattr(read_settings({variable: "/~/swans"}), name) == Path("/~/swans")
    with pytest.raises(InvalidSetting, match=variable):
        read_settings({variable: "~no-such-user/swans"})


def test_the_paths_among_the_settings_are_found() -> None:
    assert {"CYGNET_CONFIG", "CYGNET_DATA_DIR"} <= set(path_variables())
