"""Every limit on a request, and the JSON that crosses every door."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.backends.fake import FakeBackend
from shared.checkpoints import CHECKPOINTS, get_checkpoint
from shared.contract import (
    DRAW_A_SEED,
    GUIDANCE,
    MAX_PROMPT,
    NUM_IMAGES,
    SEED,
    STEPS,
    Done,
    Event,
    GenerationRequest,
    ImageReady,
    Limit,
    Queued,
    Timings,
    clean_text,
    collect,
    parse_request,
    size_limit,
)
from shared.errors import CygnetError, InternalError, InvalidRequest, UnknownCheckpoint
from shared.numbers import number_from_text

LIMITS = {"steps": STEPS, "guidance_scale": GUIDANCE, "seed": SEED, "num_images": NUM_IMAGES}
WAN = "wan2.1-1.3b"


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_request({"prompt": "a fox"} | fields)
    return caught.value


def test_the_limits_are_the_ones_that_were_agreed() -> None:
    assert MAX_PROMPT == 2000
    assert (STEPS.low, STEPS.high) == (1, 100)
    assert (GUIDANCE.low, GUIDANCE.high) == (0, 20)
    assert (SEED.low, SEED.high) == (0, 2**53 - 1)
    assert (NUM_IMAGES.low, NUM_IMAGES.high) == (1, 16)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda row: row.name)
def test_what_is_left_out_comes_from_the_checkpoint(checkpoint: Any) -> None:
    request = parse_request({"prompt": "a fox", "checkpoint": checkpoint.name})
    for field in ("width", "height", "steps", "guidance_scale", "scheduler"):
        assert getattr(request, field) == getattr(checkpoint, field)


def test_none_counts_as_left_out() -> None:
    given = dict.fromkeys(GenerationRequest.model_fields) | {"prompt": "a fox", "seed": 1}
    assert parse_request(given) == parse_request({"prompt": "a fox", "seed": 1})


def test_the_environment_chooses_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYGNET_CHECKPOINT", WAN)
    assert parse_request({"prompt": "a fox"}).checkpoint == WAN


def test_a_seed_is_drawn_where_there_is_none() -> None:
    seeds = {parse_request({"prompt": "a fox"}).seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(SEED.allows(seed) for seed in seeds)


@given(st.sampled_from(sorted(LIMITS)), st.data())
def test_a_number_is_accepted_inside_its_limits_and_nowhere_else(
    field: str, data: st.DataObject
) -> None:
    limit = LIMITS[field]
    near = st.integers(limit.low - 3, limit.low + 3) | st.integers(limit.high - 3, limit.high + 3)
    value = data.draw(near | st.integers())
    if field == "seed":
        assume(value != DRAW_A_SEED)
    if limit.allows(value):
        assert getattr(parse_request({"prompt": "a", field: value}), field) == value
    else:
        nearest = min(max(value, limit.low), limit.high)
        refused = refusal(**{field: value})
        assert refused.fields == (field,)
        assert refused.message.startswith(f"{field}={str(value)[:57]}")
        assert str(limit) in refused.message
        assert refused.next_step == f"Use {field}={nearest}."


@given(st.sampled_from(["width", "height"]), st.integers(0, 1500) | st.integers())
def test_a_side_fits_the_grid_and_the_bounds_of_its_checkpoint(field: str, side: int) -> None:
    limit = size_limit(get_checkpoint(WAN))
    fields: dict[str, Any] = {"prompt": "a", "checkpoint": WAN, field: side}
    if 256 <= side <= 1280 and side % 16 == 0:
        assert getattr(parse_request(fields), field) == side
    else:
        refused = refusal(**fields)
        nearest = int(refused.next_step.removeprefix(f"Use {field}=").removesuffix("."))
        assert limit.allows(nearest)
        clamped = min(max(side, 256), 1280)
        assert abs(nearest - clamped) <= 8


@pytest.mark.parametrize("field", [*LIMITS, "width", "height"])
@pytest.mark.parametrize(
    "value",
    [True, False, float("nan"), float("inf"), float("-inf"), "1e400", "nan", "", "seven", [7], {}],
)
def test_what_is_no_number_is_refused_as_a_number(field: str, value: object) -> None:
    refused = refusal(**{field: value})
    assert refused.fields == (field,)
    assert field in refused.message
    assert len(str(refused)) < 300


def test_a_number_too_long_to_print_is_refused_with_the_nearest() -> None:
    assert refusal(steps=10**5000).next_step == "Use steps=100."
    assert refusal(guidance_scale=10**400).next_step == "Use guidance_scale=20."


@pytest.mark.parametrize("field", ["steps", "seed", "num_images", "width"])
def test_a_fraction_is_refused_where_a_whole_number_is_asked_for(field: str) -> None:
    assert refusal(checkpoint=WAN, **{field: 3.5}).fields == (field,)


@given(st.text(max_size=50) | st.text(st.characters(categories=["Cc", "Cs"]), max_size=5))
def test_a_prompt_is_kept_without_its_control_characters(text: str) -> None:
    cleaned = clean_text(text)
    if cleaned:
        assert parse_request({"prompt": text}).prompt == cleaned
        cleaned.encode()
        assert cleaned.isprintable() or not any(ord(char) < 32 for char in cleaned)
    else:
        assert "prompt is empty" in refusal(prompt=text).message


def test_line_breaks_in_a_prompt_become_spaces() -> None:
    assert parse_request({"prompt": "\ta fox\nin snow\x00\x1b[31m "}).prompt == "a fox in snow[31m"


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_text_is_measured_after_it_was_cleaned(field: str) -> None:
    fits = "\x00" * 10 + "🦊" * MAX_PROMPT
    assert len(getattr(parse_request({"prompt": "a"} | {field: fits}), field)) == MAX_PROMPT
    refused = refusal(**{field: fits + "🦊"})
    assert refused.message == f"{field} has 2001 characters and may have 2000."


@pytest.mark.parametrize("value", [5, True, b"fox", ["a"]])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "checkpoint"])
def test_what_is_no_text_is_refused_as_text(field: str, value: object) -> None:
    assert refusal(**{field: value}).fields == (field,)


def test_a_missing_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prompt is missing"):
        parse_request({})


def test_an_unknown_field_is_refused_with_the_one_that_was_meant() -> None:
    assert refusal(guidance=3).next_step == "Did you mean guidance_scale?"
    assert refusal(xyzzy=3).message == "'xyzzy' is not a field of a request."
    with pytest.raises(InvalidRequest, match="'7' is not a field of a request"):
        parse_request({"prompt": "a", 7: 3})  # type: ignore[dict-item]


def test_a_choice_is_refused_with_the_nearest_one() -> None:
    assert refusal(scheduler="eular").next_step == "Use scheduler=euler."
    assert refusal(output_format="jpg").next_step == "Use output_format=jpeg."


def test_every_field_at_fault_is_named_at_once() -> None:
    assert set(refusal(steps=0, seed=-2, num_images=99).fields) == {"steps", "seed", "num_images"}


def test_an_unknown_checkpoint_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownCheckpoint, match=r"Did you mean wan2\.1-14b\?"):
        parse_request({"prompt": "a", "checkpoint": "wan2.1-14B"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(GenerationRequest.model_fields)) | st.text(), JSON))
def test_hostile_input_is_a_request_or_a_clear_refusal(fields: dict[str, Any]) -> None:
    try:
        request = parse_request(fields)
    except CygnetError as error:
        assert error.message
        assert error.next_step
    else:
        assert GenerationRequest.model_validate_json(request.model_dump_json()) == request


def test_the_seeds_of_several_images_count_up_and_wrap() -> None:
    request = parse_request({"prompt": "a", "seed": SEED.high, "num_images": 2})
    assert [request.image_seed(index) for index in range(2)] == [SEED.high, 0]


def test_the_request_of_one_image_stands_alone() -> None:
    request = parse_request({"prompt": "a", "seed": 5, "num_images": 3})
    alone = request.for_image(2)
    assert (alone.seed, alone.num_images) == (7, 1)
    assert parse_request(alone.model_dump()) == alone


def test_events_survive_the_journey_as_json() -> None:
    request = parse_request({"prompt": "a 🦊", "seed": 5, "steps": 2})

    async def events() -> list[Event]:
        return [event async for event in FakeBackend().generate(request)]

    sent = asyncio.run(events())
    adapter: TypeAdapter[Event] = TypeAdapter(Event)
    assert [adapter.validate_json(adapter.dump_json(event)) for event in sent] == sent
    assert [event.type for event in sent] == ["queued", "step", "step", "image", "done"]


def test_a_result_carries_remarks_and_without_any_is_what_older_versions_read() -> None:
    request = parse_request({"prompt": "a", "seed": 5, "steps": 1})
    plain, _ = asyncio.run(collect(FakeBackend().generate(request)))
    assert plain.remarks == ()
    assert "remarks" not in plain.model_dump_json() and "remarks" not in plain.model_dump()
    told = plain.model_copy(update={"remarks": ("One.", "Two.")})
    sent = Done(result=told).model_dump_json()
    assert json.loads(sent)["result"]["remarks"] == ["One.", "Two."]
    assert Done.model_validate_json(sent).result == told


def test_bytes_travel_in_the_base64_that_browsers_and_mcp_read() -> None:
    event = ImageReady(index=0, seed=1, image=b"\xff\xfe\xfb")
    assert base64.b64decode(json.loads(event.model_dump_json())["image"], validate=True)
    assert event.model_dump()["image"] == event.image


def test_what_json_cannot_say_is_refused_in_every_model() -> None:
    with pytest.raises(ValidationError):
        Timings(total=float("nan"))


def test_collect_puts_the_images_in_order_and_refuses_a_stream_that_breaks_off() -> None:
    request = parse_request({"prompt": "a", "seed": 5, "steps": 1, "num_images": 2})
    result, images = asyncio.run(collect(FakeBackend().generate(request)))
    assert result.seeds == (5, 6)
    assert len(images) == 2

    async def broken() -> AsyncIterator[Event]:
        yield Queued(position=0)

    with pytest.raises(InternalError):
        asyncio.run(collect(broken()))


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), ("7.5", 7.5), ("1e3", 1000), ("7.0", 7), (" 7 ", 7), ("seven", "seven"), ("", "")],
)
def test_numbers_that_arrive_as_text_are_read(text: str, number: object) -> None:
    read = number_from_text(text)
    assert (read, type(read)) == (number, type(number))


def test_a_limit_of_one_value_says_so() -> None:
    assert str(Limit(256, 256, 64)) == "256"


def test_a_seed_that_nobody_chose_is_one_that_every_program_takes_and_none_twice() -> None:
    for left_out in ({}, {"seed": None}, {"seed": -1}, {"seed": "-1"}):
        seeds = {parse_request({"prompt": "a fox", **left_out}).seed for _ in range(50)}
        assert len(seeds) > 40 and max(seeds) < 2**31
