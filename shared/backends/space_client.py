"""A Cygnet Space as a backend: its endpoint /generate, followed through Gradio's queue.

A session of Gradio's is named by its caller, so that one call is one session, and its stream tells
whether a call whose answer was lost has come. A stream that breaks takes the work with it, because a
Space stops what nobody listens to; it is not started again unasked. The Space is not trusted: files
are fetched from its own address only, and are pictures or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from shared.backends.api_client import MAX_TRIES, TIMEOUT, wait_before
from shared.backends.space_host import SpaceHost, no_entry
from shared.backends.space_messages import AGAIN, ImageFile, Message, event_of, read_message
from shared.backends.sse import read_messages
from shared.contract import BackendStatus, Done, Event, GenerationRequest, ImageReady
from shared.errors import BackendUnavailable, CygnetError, QueueFull, UnreadableImage
from shared.images import MAX_FILE_BYTES, thumbnail

MAX_STARTING_TRIES = 60
"""While the Space is built or woken: about ten minutes, with the longest wait between two."""

_TRY_AGAIN = {408, 425, 429, 502, 503, 504}


@dataclass(frozen=True)
class _Endpoint:
    """Where /generate is, its number among the Space's functions, its parameters in order."""

    address: str
    index: int
    parameters: tuple[str, ...]

    def url(self, path: str) -> str:
        return f"{self.address}/gradio_api/{path}"


class SpaceBackend:
    """Generates on `space`: OWNER/NAME or the page of the Hub at `hub`, or the address of a server.

    The token goes to the Hub, and to where the Hub says the Space is; to an address only if it is one
    of the Hub's. With `fail_fast` it gives up at once where the Space has surely not taken the call,
    one that has to be woken included. `transport` stands in for the network, `wait` for the time
    between two tries.
    """

    name = "space"

    def __init__(
        self,
        space: str,
        token: str = "",
        hub: str = "https://huggingface.co",
        transport: httpx.AsyncBaseTransport | None = None,
        wait: Callable[[int, float | None], float] = wait_before,
        fail_fast: bool = False,
    ) -> None:
        self._wait = wait
        self._fail_fast = fail_fast
        # Not kept alive: after an error, Gradio's server closes a connection under the next call.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=TIMEOUT, transport=transport, limits=limits)
        self._host = SpaceHost(space, hub, self._client)
        if token and self._host.is_the_hubs:
            bearer = f"Bearer {token}"  # the app may have a use of its own for the first
            self._client.headers.update({"authorization": bearer, "x-hf-authorization": bearer})

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one call; closing the iterator cancels it before its next step."""
        endpoint = await self._find()
        session, event_id = secrets.token_hex(16), ""
        ended = False
        try:
            async with aclosing(self._messages(endpoint, request, session)) as messages:
                async for message in messages:
                    event_id = message.event_id or event_id
                    ended = message.msg == "process_completed"
                    event = event_of(message)
                    if isinstance(event, ImageFile):
                        event = await self._fetch(endpoint, event)
                    if event:
                        ended = ended or isinstance(event, Done)
                        yield event
                    if isinstance(event, Done):
                        return
            raise BackendUnavailable("The Space's stream ended before the work was done.", AGAIN)
        except CygnetError as error:
            error.began = (error.began or bool(event_id)) and not ended
            raise
        finally:
            if event_id and not ended:
                await self._cancel(endpoint, session, event_id)

    async def status(self) -> BackendStatus:
        """What the Hub says of the Space, which wakes nothing; of an address, what is said there."""
        try:
            if stage := await self._host.stage():
                return BackendStatus(
                    name=self.name, healthy=not stage.down, warm=stage.running, detail=str(stage)
                )
            address = await self._host.address()
            ready = (await self._call("GET", f"{address}/readyz", tries=1)).json()
            models = (await self._call("GET", f"{address}/v1/models", tries=1)).json()
            return BackendStatus(
                name=self.name,
                healthy=True,
                warm=bool(ready["ready"]),
                checkpoints=tuple(str(model["id"]) for model in models["data"]),
                detail=str(ready["detail"]),
            )
        except (CygnetError, ValueError, KeyError, TypeError) as error:
            detail = str(error) if isinstance(error, CygnetError) else "It is no Cygnet Space."
            return BackendStatus(name=self.name, healthy=False, warm=False, detail=detail)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _find(self) -> _Endpoint:
        address = await self._host.address()
        config = await self._call("GET", f"{address}/config")
        info = await self._call("GET", f"{address}/gradio_api/info")
        try:
            functions = {one["api_name"]: one["id"] for one in config.json()["dependencies"]}
            described = info.json()["named_endpoints"]["/generate"]["parameters"]
            names = tuple(str(one["parameter_name"]) for one in described)
            if unknown := set(names) - set(GenerationRequest.model_fields):
                raise KeyError(*unknown)
            return _Endpoint(address, int(functions["generate"]), names)
        except (ValueError, KeyError, TypeError) as error:
            raise BackendUnavailable(
                "That is no Cygnet Space, or one of another version.", "Check its name."
            ) from error

    async def _messages(
        self, endpoint: _Endpoint, request: GenerationRequest, session: str
    ) -> AsyncGenerator[Message, None]:
        """What the queue says of the call, once it is there.

        A call whose answer was lost may have come: it is sent again only if the Space has no such
        session.
        """
        fields = request.model_dump(mode="json")
        call = {"data": [fields[name] for name in endpoint.parameters], "session_hash": session}
        for attempt in itertools.count(1):
            taken = await self._submit(endpoint, call)
            async with aclosing(self._listen(endpoint, session)) as messages:
                async for message in messages:
                    if message.session_not_found:
                        break
                    yield message
                else:
                    return
            if taken or attempt == MAX_TRIES:
                raise _begun(BackendUnavailable("The Space lost the request.", AGAIN))
            await asyncio.sleep(self._wait(attempt, None))

    async def _submit(self, endpoint: _Endpoint, call: dict[str, object]) -> bool:
        """Whether the Space says that it has the call; False if its answer did not come."""
        try:
            await self._call("POST", endpoint.url("call/generate"), json=call)
            return True
        except _Lost:
            return False

    async def _listen(self, endpoint: _Endpoint, session: str) -> AsyncGenerator[Message, None]:
        """The session's stream. Its messages wait for the first who listens, and for no second."""
        heard = False
        for attempt in itertools.count(1):
            try:
                url = endpoint.url(f"queue/data?session_hash={session}")
                async with self._client.stream("GET", url) as answer:
                    if not answer.is_success:
                        raise _begun(no_entry(answer, endpoint.address))
                    async for message in read_messages(answer.aiter_lines()):
                        heard = True
                        yield read_message(message.data)
                    return
            except httpx.RequestError as error:
                if heard or attempt == MAX_TRIES:
                    broke = BackendUnavailable("The connection to the Space broke.", AGAIN)
                    raise _begun(broke) from error
            await asyncio.sleep(self._wait(attempt, None))

    async def _cancel(self, endpoint: _Endpoint, session: str, event_id: str) -> None:
        """Tell the Space that nobody listens; where it cannot be told, it finds out by itself."""
        asked = {"session_hash": session, "fn_index": endpoint.index, "event_id": event_id}
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # the latter: closed already
            await asyncio.shield(self._client.post(endpoint.url("cancel"), json=asked))

    async def _fetch(self, endpoint: _Endpoint, event: ImageFile) -> ImageReady:
        """The event with its file, which has to be a whole picture whatever it is said to be."""
        url = endpoint.url(f"file={quote(event.image.path)}")
        for attempt in itertools.count(1):
            try:
                data = await self._read(url)
                await asyncio.to_thread(thumbnail, data, 1)
                return ImageReady(index=event.index, seed=event.seed, image=data)
            except (httpx.RequestError, UnreadableImage) as error:
                if attempt == MAX_TRIES:
                    raise BackendUnavailable(
                        f"Image {event.index + 1} did not come whole from the Space.", AGAIN
                    ) from error
            await asyncio.sleep(self._wait(attempt, None))
        raise AssertionError("the loop ends by returning or raising")

    async def _read(self, url: str) -> bytes:
        data = bytearray()
        async with self._client.stream("GET", url) as answer:
            if not answer.is_success:
                raise no_entry(answer, str(answer.url.host))
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    raise BackendUnavailable("The Space sent a file too large.", AGAIN)
        return bytes(data)

    async def _call(
        self, method: str, url: str, tries: int = MAX_TRIES, **options: Any
    ) -> httpx.Response:
        """A call's good answer, waited for while the Space starts.

        A GET is repeated; a POST only after an answer that says it was not taken. Raises `_Lost`
        for a POST without an answer.
        """
        for attempt in itertools.count(1):
            try:
                answer = await self._client.request(method, url, **options)
                if answer.is_success:
                    return answer
                failure, again = _refusal(answer), answer.status_code in _TRY_AGAIN
            except httpx.RequestError as error:
                if method == "POST" and not isinstance(error, _NEVER_SENT):
                    raise _Lost from error
                failure, again = _unreachable(error), True
            stage = await self._host.stage()
            if stage and stage.down:
                raise stage.error()
            starting = bool(stage and stage.starting)
            limit = MAX_STARTING_TRIES if starting else tries
            if self._fail_fast or not (again or starting) or attempt >= limit:
                raise failure
            await asyncio.sleep(self._wait(attempt, None))
        raise AssertionError("the loop ends by returning or raising")


def _begun(error: CygnetError) -> CygnetError:
    error.began = True
    return error


class _Lost(Exception):
    """A call went out, and whether it came is not known."""


_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _refusal(answer: httpx.Response) -> CygnetError:
    if answer.status_code == 503 and "queue is full" in answer.text[:1000].lower():
        return QueueFull("As many calls wait at the Space as may wait.", "Try again in a while.")
    return no_entry(answer, str(answer.url.host))


def _unreachable(error: httpx.RequestError) -> BackendUnavailable:
    return BackendUnavailable(
        f"The Space cannot be reached ({type(error).__name__}).",
        "Check its name or address and the network.",
    )
