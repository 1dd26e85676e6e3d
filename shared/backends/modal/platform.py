"""Modal's own Dicts and calls, under the names that the rest of Cygnet uses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import modal
from modal import exception

from shared.backends.modal.protocols import CallStats
from shared.contract import GenerationRequest
from shared.errors import BackendUnavailable, Cancelled, CygnetError, InternalError

_NO_ANSWER = (
    exception.ConnectionError,
    exception.InternalError,
    exception.ResourceExhaustedError,
    exception.ServiceError,
)
"""Modal itself could not be asked, and nothing is known of the call."""


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


class MethodCalls:
    """The calls of one method, which takes a job and its request, as `Calls`."""

    def __init__(self, method: modal.Function[..., Any, Any]) -> None:
        self._method = method

    async def spawn(self, job: str, request: GenerationRequest) -> str:
        call = await self._method.spawn.aio(job, request.model_dump(mode="json"))
        return call.object_id

    async def is_over(self, call: str, wait: float) -> bool:
        try:
            await modal.FunctionCall.from_id(call).get.aio(timeout=wait)
        except (TimeoutError, *_NO_ANSWER):  # the builtin one; Modal's own mean something else
            return False
        except exception.InputCancellation as error:
            raise Cancelled("The call was cancelled.", "Send it again.") from error
        except exception.FunctionTimeoutError as error:
            raise BackendUnavailable(
                "The work took longer than the machine gives a request.",
                "Ask for fewer images or steps.",
            ) from error
        except CygnetError:
            raise
        except Exception as error:
            raise InternalError(
                f"The machine died before the work was done ({type(error).__name__}).",
                "Send it again; modal app logs has the cause.",
            ) from error
        return True

    async def cancel(self, call: str) -> None:
        await modal.FunctionCall.from_id(call).cancel.aio()

    async def stats(self) -> CallStats:
        now = await self._method.get_current_stats.aio()
        return CallStats(now.backlog, now.num_running_inputs, now.num_total_runners)
