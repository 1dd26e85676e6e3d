"""A wrong value in our words, from what the schema of its field says."""

from __future__ import annotations

from typing import Any

import pytest

from shared.refusals import refusal


@pytest.mark.parametrize(
    ("value", "schema", "message", "next_step"),
    [
        (
            "abc",
            {"type": "integer", "minimum": 1, "maximum": 9},
            "it='abc' is not a whole number from 1 to 9.",
            "Give a whole number from 1 to 9 for it.",
        ),
        ("60", {"type": "number", "minimum": 0, "maximum": 50}, "0 to 50.", "Use it=50."),
        (500, {"type": "integer", "minimum": 1, "maximum": 9}, "1 to 9.", "Use it=9."),
        ("x", {"type": "integer"}, "it='x' is not a whole number.", "Give a whole number for it."),
        (
            "yes",
            {"type": "boolean"},
            "it='yes' is not true or false.",
            "Give true or false for it.",
        ),
        ("opaqe", {"enum": ["auto", "opaque"]}, "is not one of auto, opaque.", "Use it=opaque."),
        (7, {"type": "string"}, "it=7 is not text.", "Give text for it."),
        (
            "a" * 9,
            {"type": "string", "maxLength": 5},
            "it has 9 characters and may have 5.",
            "Give a shorter it.",
        ),
        (
            "x",
            {"type": "string", "pattern": "^[0-9]$", "description": "as a call gave it"},
            "it='x' is not as a call gave it.",
            "Give it as a call gave it.",
        ),
        (
            "x",
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "it='x' is not a whole number.",
            "Give a whole number for it.",
        ),
    ],
)
def test_a_wrong_value_is_told_with_what_it_may_be(
    value: object, schema: dict[str, Any], message: str, next_step: str
) -> None:
    told = refusal("it", value, schema)
    assert told.message.endswith(message)
    assert told.next_step == next_step
    assert told.fields == ("it",)
