"""Calls to a Space, and when one may be made again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import httpx

from shared import http_clients
from shared.backends.api_client import MAX_TRIES
from shared.backends.space_host import no_entry, whole
from shared.errors import BackendUnavailable, CygnetError, QueueFull

_TRY_AGAIN = {408, 425, 429, 502, 503, 504}
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class NotNow(Exception):
    """A call was not taken, and the next may be: `error` is what to say if there is none."""

    def __init__(self, error: CygnetError) -> None:
        super().__init__(error)
        self.error = error


class Lost(Exception):
    """A call went out, and whether it came is not known."""


class Calls:
    """Makes calls with `client`; `wait` is the time between two tries."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        wait: Callable[[int, float | None], float],
        fail_fast: bool,
    ) -> None:
        self.client = client
        self.fail_fast = fail_fast
        self._wait = wait

    async def once(self, method: str, url: str, **options: Any) -> httpx.Response:
        """A good answer. Raises `NotNow`, `Lost` for a POST that was not answered, or our error."""
        try:
            async with self.client.stream(method, url, **options) as stream:
                answer = await whole(stream)
        except httpx.RequestError as error:
            if method == "POST" and not isinstance(error, _NEVER_SENT):
                raise Lost from error
            raise NotNow(_unreachable(error)) from error
        if answer.is_success:
            return answer
        refusal = _refusal(answer)
        if answer.status_code in _TRY_AGAIN:
            raise NotNow(refusal)
        raise refusal

    async def made(self, method: str, url: str, tries: int = MAX_TRIES, **options: Any) -> Any:
        """The JSON of a call that is repeated while it is not taken. Raises `ValueError` for none."""
        for attempt in itertools.count(1):
            try:
                return (await self.once(method, url, **options)).json()
            except NotNow as failed:
                if self.fail_fast or attempt >= tries:
                    raise failed.error from failed
            await self.pause(attempt)

    async def pause(self, attempt: int) -> None:
        """Before try `attempt + 1`."""
        await asyncio.sleep(self._wait(attempt, None))


def _refusal(answer: httpx.Response) -> CygnetError:
    if answer.status_code == 503 and "queue is full" in answer.text[:1000].lower():
        return QueueFull("As many calls wait at the Space as may wait.", "Try again in a while.")
    return no_entry(answer, str(answer.url.host))


def _unreachable(error: httpx.RequestError) -> BackendUnavailable:
    return BackendUnavailable(
        f"The Space cannot be reached ({http_clients.spoken(error)}).",
        "Check its name or address and the network.",
    )
