"""Numbers as callers write them: one rule for every door.

A float that is whole is that integer, as JSON Schema counts it (2020-12, 6.1.1), and a text that
spells a number is that number: programs write 7.0 and "7" for 7. Nothing is rounded: what a float
cannot hold exactly is no whole number. This module does not know what a field may hold.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from pydantic import BeforeValidator

EXACT = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""

_MOST_DIGITS = 28  # those of decimal's own precision


def read_number(value: object) -> object:
    """The number that `value` is or spells, an integer if it is whole; anything else as it is, for
    whoever holds the limit to refuse."""
    if isinstance(value, str):
        return number_from_text(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    return value


def number_from_text(text: str) -> int | float | str:
    """The number that `text` spells; other text as it is."""
    try:
        number = Decimal(text.strip())
        if (
            number.is_finite()
            and number.adjusted() < _MOST_DIGITS
            and number == number.to_integral_value()
        ):
            return int(number)
        return float(number)
    except (InvalidOperation, ValueError):  # of a signalling NaN, the second
        return text


READ_NUMBER = BeforeValidator(read_number)
"""For the annotation of a strict field that holds a number, behind its limits: those before it are the
ones that a JSON schema shows."""
