"""What crosses the wire between the machines and those who call them, and what they may ask."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from shared.contract import Event, GenerationRequest
from shared.errors import InvalidRequest, error_of

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def as_event(told: dict[str, Any]) -> Event:
    """An event from the plain dict that crossed the wire. Raises the error that it tells."""
    if told["type"] == "error":
        raise error_of(told["code"], told["message"], told["next_step"])
    return _EVENT.validate_json(json.dumps(told))


def check_served(request: GenerationRequest, checkpoint: str) -> None:
    """Refuse what the machines have not loaded, before one is started for it."""
    if request.checkpoint != checkpoint:
        raise InvalidRequest(
            f"This deployment draws with {checkpoint}, not with {request.checkpoint}.",
            f"Ask for checkpoint {checkpoint}.",
            ("checkpoint",),
        )
