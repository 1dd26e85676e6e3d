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
from urllib.parse import quote

import httpx

from shared import http_clients
from shared.backends.api_client import MAX_TRIES, TIMEOUT, wait_before
from shared.backends.space_calls import Calls, Lost, NotNow
from shared.backends.space_host import SpaceHost, no_entry, whole
from shared.backends.space_messages import (
    AGAIN,
    ImageFile,
    Message,
    event_of,
    not_ours,
    read_message,
)
from shared.backends.sse import read_messages
from shared.contract import BackendStatus, Done, Event, GenerationRequest, ImageReady, Starting
from shared.errors import BackendUnavailable, CygnetError, NotFound, Unauthorised, UnreadableImage
from shared.images import MAX_FILE_BYTES, thumbnail

MAX_STARTING_TRIES = 60
"""While the Space is built or woken: about ten minutes, with the longest wait between two."""


@dataclass(frozen=True)
class _Endpoint:
    """Where /generate is, its number among the Space's functions, its parameters in order."""

    address: str
    index: int
    parameters: tuple[str, ...]

    def url(self, path: str) -> str:
        return f"{self.address}/gradio_api/{path}"


@dataclass
class _Call:
    """One generation: a session of Gradio's, and the name it gave it, once known."""

    endpoint: _Endpoint
    session: str
    event_id: str = ""
    ended: bool = False


class SpaceBackend:
    """Generates on `space`: OWNER/NAME or the page of the Hub at `hub`, or the address of a server.

    `token`, the Hub's, goes to the Hub, and to where the Hub says the Space is; to an address only if
    it is one of the Hub's, over HTTPS. `key` is the Space's own, and goes wherever that is. With
    `fail_fast` it gives up at once where the Space has surely not taken the call, one that has to be
    woken included. `transport` stands in for the network, `wait` for the time between two tries.
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
        key: str = "",
    ) -> None:
        # Not kept alive: after an error, Gradio's server closes a connection under the next call.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = http_clients.client(transport, timeout=TIMEOUT, limits=limits)
        self._calls = Calls(self._client, wait, fail_fast)
        self._host = SpaceHost(space, hub, self._client)
        if shown := key or (token if self._host.is_the_hubs else ""):
            bearer = f"Bearer {shown}"  # the app may have a use of its own for the first
            self._client.headers.update({"authorization": bearer, "x-hf-authorization": bearer})

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one call; closing the iterator cancels it before its next step."""
        async with aclosing(self._find()) as found:
            async for one in found:
                if isinstance(one, Starting):
                    yield one
                    continue
                async with aclosing(self._run(one, request)) as events:
                    async for event in events:
                        yield event

    async def status(self) -> BackendStatus:
        """What the Hub says of the Space; of an address what is said there, if it is none of the Hub's.

        Wakes nothing.
        """
        try:
            if stage := await self._host.stage():
                return BackendStatus(
                    name=self.name, healthy=not stage.down, warm=stage.running, detail=str(stage)
                )
            address = await self._host.address()
            if self._host.may_sleep:
                detail = "To look would wake it; given as OWNER/NAME, the Hub can tell how it is."
                return BackendStatus(name=self.name, healthy=True, warm=False, detail=detail)
            ready = await self._calls.made("GET", f"{address}/readyz", tries=1)
            models = await self._calls.made("GET", f"{address}/v1/models", tries=1)
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

    async def _find(self) -> AsyncGenerator[Starting | _Endpoint, None]:
        """The endpoint, in the end; before it, once, that the Space has to be started."""
        address = await self._host.address()
        told = False
        for attempt in itertools.count(1):
            try:
                config = await self._calls.once("GET", f"{address}/config")
                yield await self._endpoint(address, config)
                return
            except NotNow as failed:
                failure, limit = failed.error, MAX_TRIES
            except (NotFound, Unauthorised) as refused:  # the Hub's word for what does not run yet
                failure, limit = refused, 1
            stage = await self._host.stage()
            if stage and stage.down:
                raise stage.error() from failure
            if stage and stage.starting:
                limit = MAX_STARTING_TRIES
            if self._calls.fail_fast or attempt >= limit:
                raise failure
            if stage and stage.starting and not told:
                told = True
                yield Starting()
            await self._calls.pause(attempt)

    async def _endpoint(self, address: str, config: httpx.Response) -> _Endpoint:
        """Raises `BackendUnavailable` if that is no Space of ours."""
        try:
            info = await self._calls.made("GET", f"{address}/gradio_api/info")
            functions = {one["api_name"]: one["id"] for one in config.json()["dependencies"]}
            described = info["named_endpoints"]["/generate"]["parameters"]
            names = tuple(str(one["parameter_name"]) for one in described)
            index = int(functions["generate"])
        except (ValueError, KeyError, TypeError) as error:
            raise BackendUnavailable("That is no Cygnet Space.", "Check its name.") from error
        if set(names) != set(GenerationRequest.model_fields):
            # It would pass over what it does not know, and draw something else.
            raise BackendUnavailable(
                "That Space has another version of Cygnet.", "Update the older of the two."
            )
        return _Endpoint(address, index, names)

    async def _run(
        self, endpoint: _Endpoint, request: GenerationRequest
    ) -> AsyncGenerator[Event, None]:
        call = _Call(endpoint, secrets.token_hex(16))
        try:
            async with aclosing(self._messages(call, request)) as messages:
                async for message in messages:
                    event = event_of(message)
                    if isinstance(event, ImageFile):
                        event = await self._fetch(call.endpoint, event)
                    call.ended |= isinstance(event, Done)
                    if event:
                        yield event
                    if isinstance(event, Done):
                        break
                else:
                    raise BackendUnavailable("The Space's stream ended too early.", AGAIN)
        except CygnetError as error:
            error.began = bool(error.began or call.event_id) and not call.ended
            raise
        finally:
            if call.event_id and not call.ended:
                await self._cancel(call)

    async def _messages(
        self, call: _Call, request: GenerationRequest
    ) -> AsyncGenerator[Message, None]:
        """What the queue says of the call, to its end.

        A call whose answer was lost may have come: it is sent again only if the Space has no such
        session.
        """
        fields = request.model_dump(mode="json")
        data = [fields[name] for name in call.endpoint.parameters]
        for attempt in itertools.count(1):
            await self._submit(call, data)
            async with aclosing(self._listen(call)) as messages:
                async for message in messages:
                    if message.session_not_found:
                        break
                    call.event_id = message.event_id or call.event_id
                    call.ended |= message.msg == "process_completed"
                    yield message
                else:
                    return
            if call.event_id or attempt == MAX_TRIES:
                raise BackendUnavailable("The Space lost the request.", AGAIN)
            await self._calls.pause(attempt)

    async def _submit(self, call: _Call, data: list[object]) -> None:
        """Put the call into the queue. Its `event_id` stays empty if the answer does not come."""
        body = {"data": data, "session_hash": call.session}
        try:
            answer = await self._calls.made("POST", call.endpoint.url("call/generate"), json=body)
            call.event_id = str(answer["event_id"])
        except Lost:
            pass
        except (ValueError, KeyError, TypeError) as error:
            raise _begun(not_ours()) from error

    async def _listen(self, call: _Call) -> AsyncGenerator[Message, None]:
        """The session's stream. Its messages wait for the first who listens, and for no second."""
        heard = False
        url = call.endpoint.url(f"queue/data?session_hash={call.session}")
        for attempt in itertools.count(1):
            try:
                async with self._client.stream("GET", url) as answer:
                    if not answer.is_success:
                        raise _begun(no_entry(await whole(answer), call.endpoint.address))
                    async for message in read_messages(answer.aiter_lines()):
                        heard = True
                        yield read_message(message.data)
                    return
            except httpx.RequestError as error:
                if heard or attempt == MAX_TRIES:
                    broke = BackendUnavailable("The connection to the Space broke.", AGAIN)
                    raise _begun(broke) from error
            await self._calls.pause(attempt)

    async def _cancel(self, call: _Call) -> None:
        """Tell the Space that nobody listens; where it cannot be told, it finds out by itself."""
        asked = {
            "session_hash": call.session,
            "fn_index": call.endpoint.index,
            "event_id": call.event_id,
        }
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # the latter: closed already
            await asyncio.shield(self._client.post(call.endpoint.url("cancel"), json=asked))

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
            await self._calls.pause(attempt)
        raise AssertionError("the loop ends by returning or raising")

    async def _read(self, url: str) -> bytes:
        data = bytearray()
        async with self._client.stream("GET", url) as answer:
            if not answer.is_success:
                raise no_entry(await whole(answer), str(answer.url.host))
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > MAX_FILE_BYTES:
                    raise BackendUnavailable("The Space sent a file too large.", AGAIN)
        return bytes(data)


def _begun(error: CygnetError) -> CygnetError:
    error.began = True
    return error
