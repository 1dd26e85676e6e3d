"""Modal's own Dicts and calls, under the names that the rest of Cygnet uses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import modal
from modal import exception

from shared.backends.modal.protocols import CallStats
from shared.backends.modal.wire import as_event, check_served
from shared.contract import BackendStatus, Event, GenerationRequest
from shared.errors import BackendUnavailable, Cancelled, CygnetError, InternalError

_NO_ANSWER = (
    exception.ConnectionError,
    exception.InternalError,
    exception.ResourceExhaustedError,
    exception.ServiceError,
)
"""Modal itself could not be asked, and nothing is known of the call."""


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Around what is asked of Modal. Raises `BackendUnavailable` if it does not answer."""
    try:
        yield
    except _NO_ANSWER as error:
        raise BackendUnavailable(
            f"Modal does not answer ({type(error).__name__}).", "Try again in a moment."
        ) from error


class DictTable:
    """A `modal.Dict` as a `Table`."""

    def __init__(self, table: modal.Dict) -> None:
        self._dict = table

    async def get(self, key: str) -> Any:
        return await self._dict.get.aio(key)

    async def put(self, key: str, row: Any) -> None:
        await self._dict.put.aio(key, row)

    async def put_new(self, key: str, row: Any) -> bool:
        return await self._dict.put.aio(key, row, skip_if_exists=True)

    async def remove(self, key: str) -> None:
        await self._dict.pop.aio(key, None)

    async def items(self) -> AsyncIterator[tuple[str, Any]]:
        async for key, row in self._dict.items.aio():
            yield key, row


async def outcome(call: modal.FunctionCall[Any], wait: float | None = None) -> Any:
    """What a call returned, after at most `wait` seconds.

    Raises how the call failed as one of our errors; `TimeoutError` or one of `_NO_ANSWER` where that
    is not known.
    """
    try:
        return await call.get.aio(timeout=wait)
    except (TimeoutError, CygnetError, *_NO_ANSWER):  # the built-in TimeoutError, not Modal's
        raise
    except exception.InputCancellation as error:
        raise Cancelled("The call was cancelled.", "Send it again.") from error
    except exception.FunctionTimeoutError as error:
        raise BackendUnavailable(
            "The work took longer than a machine gives a request.",
            "Ask for fewer images or steps.",
        ) from error
    except Exception as error:
        raise InternalError(
            f"The machine died before the work was done ({type(error).__name__}).",
            "Send it again; modal app logs has the cause.",
        ) from error


class MethodCalls:
    """The calls of the method that takes a job and its request, as `Calls`."""

    def __init__(self, method: modal.Function[..., Any, Any]) -> None:
        self._method = method

    async def spawn(self, job: str, request: GenerationRequest) -> str:
        with _asking():
            call = await self._method.spawn.aio(job, request.model_dump(mode="json"))
        return call.object_id

    async def is_over(self, call: str, wait: float) -> bool:
        try:
            await outcome(modal.FunctionCall.from_id(call), wait)
        except (TimeoutError, *_NO_ANSWER):
            return False
        return True

    async def cancel(self, call: str) -> None:
        with _asking():
            await modal.FunctionCall.from_id(call).cancel.aio()

    async def stats(self) -> CallStats:
        with _asking():
            now = await self._method.get_current_stats.aio()
        return CallStats(now.backlog, now.num_running_inputs, now.num_total_runners)


class Fleet:
    """As many machines as it takes, as the backend of a program beside them, such as `modal run`.

    Each request is a call of `run`; Modal starts machines for those that wait.
    """

    name = "modal"

    def __init__(self, run: modal.Function[..., Any, Any], checkpoint: str) -> None:
        self._run = run
        self._checkpoint = checkpoint

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        check_served(request, self._checkpoint)
        with _asking():
            call = await self._run.spawn.aio(request.model_dump(mode="json"))
            try:
                told = await outcome(call)
            except asyncio.CancelledError:
                await asyncio.shield(call.cancel.aio())
                raise
        for event in told:
            yield as_event(event)

    async def status(self) -> BackendStatus:
        with _asking():
            now = await self._run.get_current_stats.aio()
        warm = now.num_total_runners > 0
        return BackendStatus(
            name=self.name, healthy=True, warm=warm, checkpoints=(self._checkpoint,)
        )

    async def aclose(self) -> None:
        pass
