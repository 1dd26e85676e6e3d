"""Fields under the names of doors and of other programs."""

from __future__ import annotations

from typing import Any

import pytest

from shared.api.openai_wire import read_call
from shared.contract import GenerationRequest, parse_request
from shared.errors import InvalidRequest
from shared.field_names import _ELSEWHERE, FieldNames, readable

DOOR = FieldNames(
    {name: f"the-{name}" for name in GenerationRequest.model_fields if name != "prompt"}
)
WRONG: dict[str, Any] = {
    "prompt": ["a"],
    "negative_prompt": "a" * 2001,
    "checkpoint": 7,
    "width": 1,
    "height": "tall",
    "steps": 500,
    "guidance_scale": 99.5,
    "scheduler": "eular",
    "seed": -7,
    "num_images": 99,
    "output_format": "gif",
}


def test_the_wrong_values_here_are_of_every_field() -> None:
    assert WRONG.keys() == GenerationRequest.model_fields.keys()


@pytest.mark.parametrize("field", WRONG)
def test_a_refusal_speaks_of_the_doors_name_only(field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"prompt": "a fox", field: WRONG[field]}, DOOR)
    called = DOOR.called(field)
    assert refused.value.fields == (called,)
    assert called in refused.value.message and called in refused.value.next_step
    if called != field:
        assert field not in str(refused.value).replace(called, "")


def test_all_wrong_fields_are_told_at_once_under_the_doors_names() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(WRONG, DOOR)
    assert set(refused.value.fields) == {DOOR.called(field) for field in WRONG}


def test_two_fields_under_one_name_are_refused_once_with_the_nearest_pair() -> None:
    names = FieldNames({"width": "size", "height": "size"})
    with pytest.raises(InvalidRequest) as refused:
        parse_request(
            {"prompt": "a", "checkpoint": "wan2.1-1.3b", "width": 4000, "height": 2000}, names
        )
    assert refused.value.fields == ("size",)
    assert refused.value.message.count("size=4000x2000") == 1
    advised = refused.value.next_step.removeprefix("Use size=").removesuffix(".")
    width, height = map(int, advised.split("x"))
    assert parse_request(
        {"prompt": "a", "checkpoint": "wan2.1-1.3b", "width": width, "height": height}
    )
    assert width == 2 * height


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ours, theirs) for ours in _ELSEWHERE for theirs in _ELSEWHERE[ours]]
)
def test_a_name_of_another_program_is_answered_with_ours(ours: str, theirs: str) -> None:
    for name in (theirs, theirs.upper(), theirs.replace("_", "-"), theirs.title().replace("_", "")):
        with pytest.raises(InvalidRequest) as refused:
            parse_request({"prompt": "a fox", name: 1})
        assert refused.value.next_step == f"Did you mean {ours}?"


@pytest.mark.parametrize("name", ["size", "image_size", "imageSize", "aspect_ratio", "resolution"])
def test_a_name_of_both_sides_is_answered_with_both(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"prompt": "a fox", name: "1x1"})
    assert refused.value.next_step == "Did you mean width and height?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("image_size", "size"),
        ("width", "size"),
        ("num_inference_steps", "steps"),
        ("cfg_scale", "guidance_scale"),
        ("guidance", "guidance_scale"),
        ("sampler", "scheduler"),
        ("batch_size", "n"),
        ("n_iter", "n"),
        ("num_images", "n"),
        ("checkpoint", "model"),
        ("respones_format", "response_format"),
    ],
)
def test_at_openais_route_it_is_answered_with_openais(name: str, meant: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_call({"prompt": "a fox", name: 1})
    assert refused.value.next_step == f"Did you mean {meant}?"
    assert refused.value.fields == (name,)


@pytest.mark.parametrize("name", ["\ud83e", "a\ud83e", "\x00", "n" * 5000, ""])
def test_a_name_that_is_no_text_is_refused_in_words_that_can_be_sent(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"prompt": "a fox", name: 1})
    assert refused.value.fields == (readable(name),)
    assert f"{str(name)[:60]!r} is not a field of a request." in refused.value.message
    assert f"{refused.value} {refused.value.fields}".encode()
