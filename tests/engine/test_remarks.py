"""What of a prompt the checkpoint does not read is said in the result, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.contract import MAX_PROMPT, Done, GenerationRequest, parse_request
from shared.engine.core import run
from shared.engine.loading import Model
from shared.images import read_recipe
from tests.engine.conftest import solo

Ask = Callable[..., GenerationRequest]


def remarks(model: Model, request: GenerationRequest) -> tuple[str, ...]:
    [done] = [event for event in run(model, request) if isinstance(event, Done)]
    return done.result.remarks


def tiny(prompt: str, **fields: object) -> GenerationRequest:
    plain = {"checkpoint": "cygnet-tiny", "steps": 1, "guidance_scale": 1.0, "seed": 7}
    return parse_request({"prompt": prompt, **plain, **fields})


@pytest.mark.parametrize(
    "prompt",
    [
        "a red fox, 3d render, on a sky blue background",
        "  a  red\n\tfox  ",
        "A RED FOX & a caf\u00e9; 12 \u00bd \u2605",
        "&lt;a fox&gt; [x] {y}",
        "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
        "x" * 90,
    ],
)
def test_what_is_read_whole_has_no_remark(tiny_model: Model, prompt: str) -> None:
    assert remarks(tiny_model, tiny(prompt)) == ()


@pytest.mark.parametrize(
    "prompt",
    [
        "\U0001f98a",
        "\U0001f43c \U0001f680",
        "\u732b",
        "\u7ea2\u72d0",
        "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
        "\u200b",
        "\u2764\ufe0f",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001d5cb\U0001d5be\U0001d5bd\U0001f98a",
    ],
    ids=ascii,
)
def test_a_prompt_of_unknown_signs_is_not_read_at_all(tiny_model: Model, prompt: str) -> None:
    [said] = remarks(tiny_model, tiny(prompt))
    assert said == "Nothing of the prompt can be read: this checkpoint knows none of its signs."


def test_unknown_signs_among_known_words_are_counted_and_shown(tiny_model: Model) -> None:
    [said] = remarks(tiny_model, tiny("a red \U0001f98a and a \u732b, \U0001f98a"))
    assert said == (
        "3 of 8 tokens of the prompt are unknown to this checkpoint: \U0001f98a, \u732b."
    )


def test_what_is_shown_of_a_prompt_is_bounded(tiny_model: Model) -> None:
    words = " ".join(f"a{chr(0x1F400 + n)}{'b' * 60}" for n in range(40))
    [said] = remarks(tiny_model, tiny(f"fox {words}"[:MAX_PROMPT]))
    assert len(said) < 250 and said.endswith(", ....")


def test_tokens_past_the_512th_are_said_to_be_left_out(tiny_model: Model) -> None:
    long = "a b, " * 255 + "a"
    [said] = remarks(tiny_model, tiny(f"{long} fox"))
    assert said == "Only the first 512 of 769 tokens of the prompt are used."
    assert (
        solo(tiny_model, tiny(f"{long} fox"))[0] == solo(tiny_model, tiny(f"{long} whale"))[0]
    ).all()


def test_the_512th_token_is_still_used(tiny_model: Model) -> None:
    fits = " ".join("a" * 510)  # and one token before it, one behind it
    assert remarks(tiny_model, tiny(fits)) == ()
    [said] = remarks(tiny_model, tiny(f"{fits} a"))
    assert said == "Only the first 512 of 513 tokens of the prompt are used."


def test_both_may_be_said_of_both_prompts(tiny_model: Model) -> None:
    bad = "\U0001f98a " + "a " * 600
    told = remarks(tiny_model, tiny(bad, negative_prompt=bad, guidance_scale=2.0))
    assert [("negative" in said, "512" in said) for said in told] == [
        (False, True),
        (False, False),
        (True, True),
        (True, False),
    ]


def test_a_negative_prompt_that_has_no_effect_has_no_remark(tiny_model: Model) -> None:
    assert remarks(tiny_model, tiny("a fox", negative_prompt="\U0001f98a")) == ()
    assert remarks(tiny_model, tiny("a fox", negative_prompt="", guidance_scale=2.0)) == ()


def test_sentencepiece_counts_no_spaces_as_unknown(model: Model, ask: Ask) -> None:
    assert remarks(model, ask("a  red   fox", steps=1)) == ()
    [said] = remarks(model, ask("a red \U0001f98a fox", steps=1))
    assert said.startswith("1 of 4 tokens") and said.endswith(": \U0001f98a.")
    [said] = remarks(model, ask("\U0001f98a\U0001f43c", steps=1))
    assert said.startswith("Nothing of the prompt can be read")
    [said] = remarks(model, ask("a " * 900, steps=1))
    assert said == "Only the first 512 of 901 tokens of the prompt are used."


def test_a_remark_is_not_in_the_picture(tiny_model: Model) -> None:
    request = tiny("a red \U0001f98a")
    [image] = [event.image for event in run(tiny_model, request) if event.type == "image"]
    assert read_recipe(image).fields == request.model_dump(mode="json")
    assert b"unknown to this checkpoint" not in image
