"""A server elsewhere as a backend: the jobs of its HTTP API, followed through every break.

A job is sent with an idempotency key, so that to send it again is safe, and its events are read from
the last one that came, so that a broken connection, or a restart of the server, costs nothing but
time. This module does not know what the server runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from shared import http_clients
from shared.backends import IDEMPOTENCY_KEY
from shared.backends.sse import Message, read_messages
from shared.contract import BackendStatus, Done, Event, GenerationRequest, ImageReady
from shared.errors import BackendUnavailable, CygnetError, InternalError, UnreadableImage, error_of
from shared.images import thumbnail

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)

# A cold start may hold the answer to a new job; a stream says every 15 s that it is there.
TIMEOUT = httpx.Timeout(connect=10, read=60, write=30, pool=10)

MAX_TRIES = 6
"""In a row without anything new: about half a minute."""

_MAYBE_TAKEN = {408, 502, 504}
"""What stands between answers so, of a server that may have heard the call."""

_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


def wait_before(attempt: int, asked: float | None = None) -> float:
    """Seconds before try `attempt` (1 is the first repeat): what the server asked for, else twice as
    long each time, with a random part so that many clients do not come back at once."""
    if asked is not None:
        return min(asked, 60.0)
    return min(0.5 * 2**attempt, 15.0) * random.uniform(0.5, 1.0)


class ApiBackend:
    """Generates on the server at `url`, with `key` if it asks for one.

    `priority` is the urgency of its jobs, from 0 to 7, as RFC 9218 has it: from 5 on they give way
    to what somebody waits for. With `fail_fast` it gives up at once where the server has surely not
    taken the job. `transport` stands in for the network, and `wait` for the time between two tries.
    """

    name = "api"
    timeout = TIMEOUT
    where_to_look = "Check its address, the network and its log."
    """What to do where the server cannot be reached, or its answer is no answer of Cygnet's."""

    def __init__(
        self,
        url: str,
        key: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[int, float | None], float] = wait_before,
        fail_fast: bool = False,
        priority: int | None = None,
    ) -> None:
        self._wait = wait
        self._fail_fast = fail_fast
        self._priority = {} if priority is None else {"Priority": f"u={priority}"}
        self._client = http_clients.client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.timeout,
            transport=transport,
            follow_redirects=True,  # some hosts answer 303 while a call still waits
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The job's events; closing the iterator cancels the job."""
        job = await self._submit(request)
        ended = False
        try:
            async with aclosing(self._messages(job)) as messages:
                async for message in messages:
                    ended = message.event in ("done", "error")
                    event = _event(message)
                    if isinstance(event, ImageReady):
                        await asyncio.to_thread(_check_whole, event)
                    yield event
                    if isinstance(event, Done):
                        return
        except CygnetError as error:
            error.began = not ended
            raise
        finally:
            if not ended:
                await self._cancel(job)

    async def status(self) -> BackendStatus:
        """What `/readyz` and `/v1/models` say; neither wakes a GPU."""
        try:
            ready = await self._client.get("/readyz")
            models = await self._call("GET", "/v1/models", tries=1)
            names = tuple(str(model["id"]) for model in models["data"])
            told = ready.json()
            return BackendStatus(
                name=self.name,
                healthy=True,
                warm=bool(told["ready"]),
                checkpoints=names,
                detail=str(told["detail"]),
            )
        except (httpx.HTTPError, CygnetError, ValueError, KeyError, TypeError) as error:
            detail = str(error) if isinstance(error, CygnetError) else "The server does not answer."
            return BackendStatus(name=self.name, healthy=False, warm=False, detail=detail)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _submit(self, request: GenerationRequest) -> str:
        key = IDEMPOTENCY_KEY.get() or secrets.token_hex(16)
        headers = {"Idempotency-Key": key, **self._priority}
        job = await self._call(
            "POST", "/v1/jobs", json=request.model_dump(mode="json"), headers=headers
        )
        try:
            return str(job["id"])
        except (KeyError, TypeError) as error:
            fault = _not_ours(error)
            fault.began = True
            raise fault from error

    async def _cancel(self, job: str) -> None:
        """Tell the server that nobody reads; where it cannot be told, it finishes the job in vain."""
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # the latter: closed already
            await asyncio.shield(self._client.delete(f"/v1/jobs/{job}"))

    async def _call(self, method: str, path: str, tries: int = MAX_TRIES, **options: Any) -> Any:
        """The JSON of a call that may safely be repeated, and is, unless its answer is final."""
        failure: CygnetError
        maybe_taken = False
        for attempt in itertools.count(1):
            asked, final = None, attempt >= tries
            try:
                answer = await self._client.request(method, path, **options)
                if answer.is_success and _is_json(answer):
                    return _whole_json(answer)
                failure, asked = _refusal(answer, self.where_to_look), _retry_after(answer)
                final |= answer.status_code not in _TRY_AGAIN
                led_on = answer.request.method != method  # by 303, from where the call was heard
                maybe_taken |= led_on or answer.status_code in _MAYBE_TAKEN
            except httpx.RequestError as error:
                failure = _unreachable(error, self.where_to_look)
                maybe_taken |= not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            failure.began = maybe_taken
            if final or (self._fail_fast and not maybe_taken):
                raise failure
            await asyncio.sleep(self._wait(attempt, asked))

    async def _messages(self, job: str) -> AsyncGenerator[Message, None]:
        """The job's messages to the last, over as many connections as it takes."""
        last, fruitless = 0, 0
        while True:
            failure: CygnetError = BackendUnavailable("The stream broke off.", "Try again.")
            asked: float | None = None
            try:
                async with aclosing(self._connect(job, last)) as messages:
                    async for message in messages:
                        last, fruitless = message.id or last, 0
                        yield message
                        if message.event in ("done", "error"):
                            return
            except httpx.RequestError as error:
                failure = _unreachable(error, self.where_to_look)
            except _NotNow as refusal:
                failure, asked = refusal.reason, refusal.retry_after
            fruitless += 1
            if fruitless >= MAX_TRIES:
                raise failure
            await asyncio.sleep(self._wait(fruitless, asked))

    async def _connect(self, job: str, after: int) -> AsyncGenerator[Message, None]:
        """One connection's messages. Raises `_NotNow` where a later try may have some."""
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        async with self._client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
            if answer.is_success:
                async for message in read_messages(answer.aiter_lines()):
                    yield message
                return
            await answer.aread()
            refused = _refusal(answer, self.where_to_look)
            if answer.status_code in _TRY_AGAIN:
                raise _NotNow(refused, _retry_after(answer))
            raise refused


class _NotNow(Exception):
    """A refusal that may be gone at the next try, and when the server asks for that."""

    def __init__(self, reason: CygnetError, retry_after: float | None) -> None:
        self.reason = reason
        self.retry_after = retry_after


def _event(message: Message) -> Event:
    """The message as an event. Raises the error that it tells."""
    try:
        if message.event == "error":
            data = json.loads(message.data)
            raise error_of(str(data["code"]), str(data["message"]), str(data["next_step"]))
        return _EVENT.validate_json(message.data)
    except (ValueError, KeyError, TypeError) as error:
        raise _not_ours(error) from error


def _check_whole(event: ImageReady) -> None:
    try:
        thumbnail(event.image, 1)
    except UnreadableImage as error:
        raise InternalError(
            f"The server sent picture {event.index + 1} damaged.", "Try again; see its disk."
        ) from error


def _refusal(answer: httpx.Response, where_to_look: str) -> CygnetError:
    """What the server says, with its own next step; if it is not Cygnet that answers, with ours."""
    try:
        problem = answer.json()
        return error_of(str(problem["code"]), str(problem["detail"]), str(problem["next_step"]))
    except (ValueError, KeyError, TypeError):
        what = "what is no answer of Cygnet's, with status" if answer.is_success else "with status"
        return BackendUnavailable(
            f"The server answered {what} {answer.status_code}.", where_to_look
        )


def _is_json(answer: httpx.Response) -> bool:
    return answer.headers.get("content-type", "").startswith("application/json")


def _whole_json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise httpx.RemoteProtocolError("the answer was cut short") from None


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _unreachable(error: httpx.RequestError, where_to_look: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"The server cannot be reached ({http_clients.spoken(error)}).", where_to_look
    )


def _not_ours(error: Exception) -> InternalError:
    kind = "an event that does not validate" if isinstance(error, ValidationError) else "no event"
    return InternalError(
        f"The server sent {kind}.", "Check that its version of Cygnet is this one."
    )
