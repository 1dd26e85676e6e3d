"""What Gradio's queue says of one call, and what of it are events and errors of ours.

ZeroGPU's errors are known by their titles, which are those of the package `spaces`. What a Space says
is shown as plain text, and not at any length.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from shared.contract import Done, Queued, Starting, Step, clean_text
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CygnetError,
    InternalError,
    QueueFull,
    QuotaExceeded,
    error_of,
    error_types,
)

MAX_SAID = 1000
AGAIN = "Try again: the same seed gives the same picture."


class Message(BaseModel):
    """One message of the queue; what is not needed of it is passed over."""

    msg: str
    event_id: str | None = None
    rank: int | None = None
    """How many go first."""
    success: bool = True
    output: dict[str, Any] = {}
    title: str | None = None
    message: str | None = None
    session_not_found: bool = False


class _File(BaseModel):
    path: str


class ImageFile(BaseModel):
    """An image event whose picture is still a file on the Space."""

    type: Any
    index: int
    seed: int
    image: _File


_EVENT: TypeAdapter[Queued | Starting | Step | ImageFile | Done] = TypeAdapter(
    Queued | Starting | Step | ImageFile | Done
)


def read_message(data: str) -> Message:
    """Raises `InternalError` for what is no message of Gradio's."""
    try:
        return Message.model_validate_json(data)
    except ValidationError as error:
        raise not_ours() from error


def event_of(message: Message) -> Queued | Starting | Step | ImageFile | Done | None:
    """The event that a message carries, if it is one that does. Raises the error that it tells."""
    match message.msg:
        case "estimation" if message.rank is not None:
            return Queued(position=message.rank)
        case "process_generating" if message.success:
            return _event(message.output)
        case "process_completed" if message.success and not message.output:
            raise Cancelled("The Space stopped the work.", AGAIN)
        case "process_completed" if message.success:  # says its last event again
            return None
        case "process_generating" | "process_completed":
            title = message.output.get("title") or message.title
            raise _error(str(title), message.output.get("error"))
        case "unexpected_error":
            said = _plain(message.message) or "no reason"
            raise BackendUnavailable(f"The Space broke off the work: {said}.", AGAIN)
    return None


def _event(output: dict[str, Any]) -> Queued | Starting | Step | ImageFile | Done:
    try:
        said = dict(output["data"][0])
        said.pop("images", None)  # of the last event; each came in one of its own
        return _EVENT.validate_json(json.dumps(said))
    except (ValidationError, KeyError, IndexError, TypeError, ValueError) as error:
        raise not_ours() from error


def _error(title: str, said: object) -> CygnetError:
    if said is None:
        return InternalError("The Space failed and does not say why.", "Its log has the cause.")
    if title in {kind.code for kind in error_types()}:
        message, _, next_step = clean_text(str(said))[:MAX_SAID].partition(" Next: ")
        return error_of(title, message, next_step)
    text = _plain(said)
    match title.removeprefix("ZeroGPU "):
        case "quota exceeded" | "pending credits exceeded":
            return QuotaExceeded(
                f"The Space has no GPU time left for this caller: {text}.",
                "Set HF_TOKEN to draw on your own quota, wait, or use another backend.",
            )
        case "illegal duration":
            return QuotaExceeded(
                f"The request needs more GPU time than one call may take: {text}.",
                "Ask for fewer steps, a smaller size or fewer images.",
            )
        case "queue timeout":
            return QueueFull("The Space found no free GPU in time.", "Try again in a minute.")
        case "client error" | "worker error" | "init error":
            return BackendUnavailable(f"The Space's GPU failed: {text}.", AGAIN)
    return InternalError(f"The Space failed: {text}.", "Its log has the cause.")


def _plain(said: object) -> str:
    return clean_text(str(said or ""))[:MAX_SAID].rstrip(". ")


def not_ours() -> InternalError:
    return InternalError(
        "The Space sent something that is no event.",
        "Check that its version of Cygnet is this one.",
    )
