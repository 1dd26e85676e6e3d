"""The error tree: every error a user can meet has a code, a message and a next step.

    CygnetError
    ├── InputError                 the caller can mend it             (exit code 2)
    │   ├── InvalidRequest         invalid_request
    │   ├── UnknownCheckpoint      unknown_checkpoint
    │   ├── UnknownBackend         unknown_backend
    │   ├── UnreadableImage        unreadable_image
    │   ├── NoRecipeInImage        no_recipe_in_image
    │   ├── OutputExists           output_exists
    │   ├── InvalidSetting         invalid_setting
    │   ├── InvalidCall            invalid_call
    │   ├── Unauthorised           unauthorised
    │   ├── NotFound               not_found
    │   └── SpaceInvalid           space_invalid
    └── GenerationError            the work could not be done         (exit code 1)
        ├── CheckpointMissing      checkpoint_missing
        ├── CheckpointCorrupt      checkpoint_corrupt
        ├── PackageMissing         package_missing
        ├── DeviceUnavailable      device_unavailable
        ├── UnsupportedSetting     unsupported_setting
        ├── OutOfMemory            out_of_memory
        ├── OutputUnwritable       output_unwritable
        ├── DiskFull               disk_full
        ├── DataUnusable           data_unusable
        ├── QueueFull              queue_full
        ├── QuotaExceeded          quota_exceeded
        ├── SpendingLimit          spending_limit
        ├── RateLimited            rate_limited
        ├── BackendUnavailable     backend_unavailable
        ├── ToolFailed             tool_failed
        ├── AddressUnavailable     address_unavailable
        ├── BatchIncomplete        batch_incomplete
        ├── Cancelled              cancelled
        └── InternalError          internal_error

Messages never hold secrets, and never a traceback: the cause travels as `__cause__`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar


class CygnetError(Exception):
    """An error meant for a person: what was wrong (`message`) and what to do (`next_step`)."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message, next_step)
        self.message = message
        self.next_step = next_step
        self.began = False
        """Whether the work may have begun elsewhere and go on there: to send it to another backend
        might be to do it twice."""

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}"


class InputError(CygnetError):
    """Something the caller gave cannot be used; nothing was started. `fields` names what, if known."""

    exit_code = 2
    fields: tuple[str, ...] = ()


class InvalidRequest(InputError):
    """A request breaks a limit; `fields` names the offending fields."""

    code = "invalid_request"

    def __init__(self, message: str, next_step: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message, next_step)
        self.fields = fields


class UnknownCheckpoint(InputError):
    """No checkpoint of that name is known, and it is no folder in diffusers' format."""

    fields = ("checkpoint",)
    code = "unknown_checkpoint"


class UnknownBackend(InputError):
    """No backend of that name is configured."""

    code = "unknown_backend"


class UnreadableImage(InputError):
    """A file that was to be read as an image is missing, not an image, or damaged."""

    code = "unreadable_image"


class NoRecipeInImage(InputError):
    """An image is fine but carries no generation settings."""

    code = "no_recipe_in_image"


class OutputExists(InputError):
    """The output file exists and the caller did not ask to replace it."""

    code = "output_exists"


class InvalidSetting(InputError):
    """An environment variable, or the file of backends, holds what cannot be used."""

    code = "invalid_setting"


class InvalidCall(InputError):
    """An HTTP call is wrong before its request is read: its path, method, headers or body."""

    code = "invalid_call"

    def __init__(self, message: str, next_step: str, status: int = 400) -> None:
        super().__init__(message, next_step)
        self.status = status


class Unauthorised(InputError):
    """The API key is missing or not one of the server's."""

    code = "unauthorised"


class NotFound(InputError):
    """There is no such job, image or model, or it belongs to another key."""

    code = "not_found"


class SpaceInvalid(InputError):
    """A folder is not the Space's repository as `cygnet space build` lays it out, or cannot be."""

    code = "space_invalid"


class GenerationError(CygnetError):
    """The request was fine but the work could not be done."""


class CheckpointMissing(GenerationError):
    """The weights are not there: no such folder, or the Hub cannot be reached."""

    code = "checkpoint_missing"


class CheckpointCorrupt(GenerationError):
    """The weights are there but cannot be read, or do not belong together."""

    code = "checkpoint_corrupt"


class PackageMissing(GenerationError):
    """A Python package that this door needs is not installed."""

    code = "package_missing"


class DeviceUnavailable(GenerationError):
    """The device asked for is not on this machine."""

    code = "device_unavailable"


class UnsupportedSetting(GenerationError):
    """The device or the installed packages cannot do what a setting asks for."""

    code = "unsupported_setting"


class OutOfMemory(GenerationError):
    """The device has too little memory for the checkpoint, or for this request alone."""

    code = "out_of_memory"


class OutputUnwritable(GenerationError):
    """The output cannot be written there."""

    code = "output_unwritable"


class DiskFull(GenerationError):
    """There is no room left for the output."""

    code = "disk_full"


class DataUnusable(GenerationError):
    """The folder of jobs and images is in use by another process, or damaged."""

    code = "data_unusable"


class QueueFull(GenerationError):
    """As many jobs wait as may wait: `waiting`. In `retry_after` seconds there may be room."""

    code = "queue_full"

    def __init__(
        self, message: str, next_step: str, waiting: int = 0, retry_after: int = 5
    ) -> None:
        super().__init__(message, next_step)
        self.waiting = waiting
        self.retry_after = retry_after


class QuotaExceeded(GenerationError):
    """The GPU time that a host gives to this caller is used up, or too little for the request."""

    code = "quota_exceeded"


class SpendingLimit(GenerationError):
    """The work would cost more, or be one call more, than the user allows."""

    code = "spending_limit"


class RateLimited(GenerationError):
    """A key has sent as many requests as it may. In `retry_after` seconds it may send another."""

    code = "rate_limited"

    def __init__(self, message: str, next_step: str, retry_after: int = 5) -> None:
        super().__init__(message, next_step)
        self.retry_after = retry_after


class BackendUnavailable(GenerationError):
    """A backend elsewhere cannot be reached, or is stopping."""

    code = "backend_unavailable"


class ToolFailed(GenerationError):
    """A tool of another MCP server failed, in that server's words."""

    code = "tool_failed"


class AddressUnavailable(GenerationError):
    """The server cannot listen at that address: it is taken, or not this machine's."""

    code = "address_unavailable"


class BatchIncomplete(GenerationError):
    """Some pictures of a batch failed, or the batch gave up; the others are there."""

    code = "batch_incomplete"


class Cancelled(GenerationError):
    """The request was cancelled before it was done."""

    code = "cancelled"


class InternalError(GenerationError):
    """A fault of ours, or of a library below us; the log has the cause."""

    code = "internal_error"


def error_of(code: str, message: str, next_step: str) -> CygnetError:
    """The error with that code, as another process told it; `InternalError` for an unknown code."""
    kinds = {kind.code: kind for kind in error_types()}
    return kinds.get(code, InternalError)(message, next_step)


_TOO_LONG = "it holds a number with thousands of digits"


def reason(error: BaseException) -> str:
    """What a library's error says, short enough for a sentence of ours: its first line."""
    first = (str(error).strip().splitlines() or [""])[0].strip(" .:")
    if (
        len(first) > 1
        and first[0] == first[-1]
        and first[0] in "'\""
        and first.count(first[0]) == 2
    ):
        first = first[1:-1]  # as a KeyError says its key
    # The rest of it is advice to programmers.
    first = re.sub(r"^Exceeds the limit \(\d+ digits\) for integer .*", _TOO_LONG, first)
    return first[:200] or type(error).__name__


def error_types(root: type[CygnetError] = CygnetError) -> Iterator[type[CygnetError]]:
    """Every error type with a code of its own, in the order of the tree."""
    for kind in root.__subclasses__():
        if "code" in kind.__dict__:
            yield kind
        yield from error_types(kind)
