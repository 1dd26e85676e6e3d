"""What is said of a value that a field does not take, from what the field's JSON schema says.

A library's own words for it are a programmer's, and differ at each door. A request's fields have
their own refusals in the contract, which knows the checkpoint too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from shared.contract import Limit, number_from_text, short
from shared.errors import InvalidRequest


def refusal(name: str, value: object, schema: Mapping[str, Any]) -> InvalidRequest:
    """`name` is the field as its caller calls it, `schema` a JSON schema with one type, or null; one
    with a pattern has a description that says what that means.
    """
    facts = _without_null(schema)
    shown = f"{name}={short(value)}"
    message, advice = f"{shown} is not {_expected(facts)}.", _example(name, value, facts)
    if isinstance(value, str) and len(value) > facts.get("maxLength", len(value)):
        message = f"{name} has {len(value)} characters and may have {facts['maxLength']}."
        advice = f"Give a shorter {name}."
    return InvalidRequest(message, advice, (name,))


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of what may be given, where null may be given as well."""
    others = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return {**schema, **others[0]} if others else schema


def _choices(facts: Mapping[str, Any]) -> list[str]:
    return [str(one) for one in facts.get("enum", [facts["const"]] if "const" in facts else [])]


def _limit(facts: Mapping[str, Any]) -> Limit | None:
    if not {"minimum", "maximum"} <= facts.keys():
        return None
    whole = facts["type"] == "integer"
    return Limit(facts["minimum"], facts["maximum"], facts.get("multipleOf", 1), whole)


def _expected(facts: Mapping[str, Any]) -> str:
    if choices := _choices(facts):
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if limit := _limit(facts):
        return str(limit)
    match facts.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return "a whole number"
        case "number":
            return "a number"
        case "array":
            return "a list"
        case "object":
            return "an object"
        case _:
            return str(facts["description"]) if "pattern" in facts else "text"


def _example(name: str, value: object, facts: Mapping[str, Any]) -> str:
    if choices := _choices(facts):
        nearest = difflib.get_close_matches(str(value).lower(), choices, n=1, cutoff=0)
        return f"Use {name}={nearest[0]}."
    if limit := _limit(facts):
        given = number_from_text(value) if isinstance(value, str) else value
        nearest = limit.nearest(given)
        return f"Use {name}={nearest}." if nearest is not None else f"Give {limit} for {name}."
    if examples := facts.get("examples"):
        return f"Use {name}={examples[0]}."
    if "pattern" in facts:
        return f"Give {name} {facts['description']}."
    return f"Give {_expected(facts)} for {name}."
