"""What a file of prompts asks for: rows become requests, and requests pictures, one after the other.

Nothing is drawn by chance: the same rows and options give the same pictures in the same order, so
that a picture is known by its number. A row without a seed, or with -1, gets one from the batch's
seed and the number of its picture; a sample of a row's combinations takes one out of each of so many
equal stretches. This module does not know what is done already.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from shared.batch import templates
from shared.batch.source import Row, Source
from shared.batch.templates import Pattern, Words, figure
from shared.contract import GenerationRequest, clean_text, draws_a_seed, parse_request
from shared.errors import InputError, InvalidRequest
from shared.field_names import OURS, FieldNames

MAX_PICTURES = 1_000_000

_SEEDS = 2**32
"""A seed may be larger, but names and labels are read by people."""


@dataclass(frozen=True)
class Choices:
    """What decides, beside the rows, which pictures a batch makes."""

    fields: dict[str, Any] = field(default_factory=dict)
    """What the rows leave out; templates as well."""
    batch_seed: int = 0
    sample: int | None = None
    """So many of each row's combinations instead of all."""
    names: FieldNames = OURS
    """What whoever gave `fields` calls them; a row calls them as we do."""


@dataclass(frozen=True)
class Item:
    """One picture to make: its number from 1, the line it comes from, and its own request."""

    number: int
    line: int
    request: GenerationRequest
    template: dict[str, str]
    """The fields that were templates, as written."""


def _reraise(error: InvalidRequest) -> None:
    raise error


class Plan:
    """The pictures that a file asks for."""

    def __init__(self, source: Source, choices: Choices, words: Words) -> None:
        self._source, self._choices, self._words = source, choices, words

    def count(self) -> int:
        """How many requests the rows become, without making them; rows that are wrong do not count.

        Raises `InvalidRequest` with the figure if they are too many.
        """
        count = 0
        for row in self._source.rows():
            with contextlib.suppress(InvalidRequest):
                count += self._parse(row).takes
        if count > MAX_PICTURES:
            raise InvalidRequest(
                f"{self._source.name} asks for {figure(count)} pictures, and {MAX_PICTURES:,} is "
                "the most at once.",
                "Take some of each row's combinations with --sample N, or give fewer choices.",
            )
        return count

    def items(self, refuse: Callable[[InvalidRequest], None] = _reraise) -> Iterator[Item]:
        """Every picture in order. `refuse` is told of each row that is wrong, by line."""
        number = 1
        for row in self._source.rows():
            try:
                for item in self._items_of(row, number):
                    yield item
                    number = item.number + 1
            except InvalidRequest as error:
                refuse(error)

    def _items_of(self, row: Row, number: int) -> Iterator[Item]:
        """The pictures of one row, the first of which is picture `number`."""
        parsed = self._parse(row)
        for take in range(parsed.takes):
            request = self._request(parsed, take, number)
            for index in range(request.num_images):
                yield Item(number, row.line, request.for_image(index), parsed.template)
                number += 1

    def _parse(self, row: Row) -> _Parsed:
        fixed: dict[str, Any] = {}
        patterns: dict[str, Pattern] = {}
        template: dict[str, str] = {}
        for name, value in (self._choices.fields | row.fields).items():
            if not isinstance(value, str):
                fixed[name] = value
                continue
            try:
                patterns[name] = templates.parse(value, self._words)
            except InvalidRequest as error:
                message = f"in {name[:60]} {error.message}"
                raise self._source.refuse(row.line, message, error.next_step) from None
            if templates.is_template(value):
                template[name] = clean_text(value)
        count = templates.product(patterns)
        takes = count if self._choices.sample is None else min(count, self._choices.sample)
        given = self._choices.fields.keys() - row.fields.keys()
        names = FieldNames({name: self._choices.names.called(name) for name in given})
        return _Parsed(row.line, fixed, patterns, template, count, takes, names)

    def _request(self, row: _Parsed, take: int, number: int) -> GenerationRequest:
        """One of a row's requests, the first picture of which is picture `number`."""
        first, end = (edge * row.count // row.takes for edge in (take, take + 1))
        index = first + self._derive("sample", row.line, take) % (end - first)
        values = row.fixed | templates.pick(row.patterns, index)
        if "seed" not in values or draws_a_seed(values["seed"]):
            values["seed"] = self._derive("seed", number) % _SEEDS
        try:
            return parse_request(values, row.names)
        except InputError as error:
            raise self._source.refuse(row.line, error.message, error.next_step) from None

    def _derive(self, *what: object) -> int:
        """256 bits that follow from the batch's seed and `what` alone."""
        text = "/".join(map(str, (self._choices.batch_seed, *what)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest())


@dataclass(frozen=True)
class _Parsed:
    """A row's fields that are no text, the patterns of those that are, and their combinations."""

    line: int
    fixed: dict[str, Any]
    patterns: dict[str, Pattern]
    template: dict[str, str]
    count: int
    takes: int
    """So many of `count` are made."""
    names: FieldNames
