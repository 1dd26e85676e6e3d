"""The error tree."""

from __future__ import annotations

import pytest

from shared import errors
from shared.errors import CygnetError, GenerationError, InputError, error_types

TYPES = list(error_types())


def test_every_code_belongs_to_one_error() -> None:
    codes = [kind.code for kind in TYPES]
    assert len(codes) == len(set(codes)) >= 17


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.code)
def test_bad_input_exits_with_2_and_a_failure_with_1(kind: type[CygnetError]) -> None:
    assert issubclass(kind, InputError) != issubclass(kind, GenerationError)
    assert kind.exit_code == (2 if issubclass(kind, InputError) else 1)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.code)
def test_the_drawing_of_the_tree_names_every_error(kind: type[CygnetError]) -> None:
    drawn = [line.split()[-2:] for line in (errors.__doc__ or "").splitlines() if "──" in line]
    assert [kind.__name__, kind.code] in drawn


def test_an_error_reads_as_what_was_wrong_and_what_to_do() -> None:
    error = errors.DiskFull("No room.", "Make some.")
    assert str(error) == "No room. Make some."
    assert error.args == ("No room.", "Make some.")


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.code)
def test_an_error_told_by_another_process_is_the_same_error(kind: type[CygnetError]) -> None:
    told = errors.error_of(kind.code, "No room.", "Make some.")
    assert type(told) is kind
    assert str(told) == "No room. Make some."


def test_an_unknown_code_from_another_process_is_an_internal_error() -> None:
    assert type(errors.error_of("melted", "It melted.", "Cool it.")) is errors.InternalError
