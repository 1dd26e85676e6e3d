"""Server-sent events, read as the HTML standard says, as far as our servers use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    event: str
    data: str
    id: int | None


async def read_messages(lines: AsyncIterator[str]) -> AsyncIterator[Message]:
    """The whole messages of a stream; one that was cut off is left out, comments are passed over."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in fields:
                value = f"{fields['data']}\n{value}"
            fields[name] = value
            continue
        if "data" in fields:
            number = fields.get("id", "")
            known = int(number) if number.isascii() and number.isdigit() else None
            yield Message(fields.get("event", "message"), fields["data"], known)
        fields = {}
