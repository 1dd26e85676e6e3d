"""HTTP requests to a function: each is an input, with a stream in and a stream out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from modal._serialization import deserialize_data_format, serialize, serialize_data_format
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.records import Call, Endpoint, Function

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform

CALL = "__modal_function_call_id"
"""Names the call in the address that a slow request is sent on to."""
PATIENCE = 150.0
"""Seconds after which a request that has no answer yet is sent on."""
CHUNK = 1 << 20
Result = pb.GenericResult


class Endpoints:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.by_name: dict[tuple[str, str], Endpoint] = {}

    async def open(self, function: Function) -> None:
        """Give a web function its address; a new deployment keeps the old one."""
        if not function.web:
            return
        app = function.app.id if function.app.ephemeral else function.app.name
        endpoint = self.by_name.get((app, function.name))
        if endpoint is None:
            endpoint = self.by_name[app, function.name] = Endpoint(function)
            endpoint.url = await self._serve(endpoint)
        endpoint.function = function
        function.definition.web_url = endpoint.url

    async def _serve(self, endpoint: Endpoint) -> str:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(endpoint.function, request)

        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", handle)
        return await self._platform.serve(application)

    async def _handle(self, function: Function, request: web.Request) -> web.StreamResponse:
        if known := request.query.get(CALL):  # the client followed a redirect
            call = self._platform.calls.by_id.get(known)
            if call is None or call.function is not function:
                return web.Response(status=404, text=f"modal-http: no such function call: {known}")
            return await self._answer(call, request)
        call = self._platform.calls.open(function)
        arguments = serialize(((_scope(request),), {}))
        payload = pb.FunctionInput(args=arguments, data_format=pb.DATA_FORMAT_PICKLE)
        detail = f"{call.id} {request.method} {request.path}"
        self._platform.happened("web.request", function, detail=detail)
        pump = asyncio.ensure_future(self._pump(call, request))
        self._platform.calls.add_input(call, 0, payload)
        try:
            return await self._answer(call, request)
        finally:
            pump.cancel()

    async def _answer(self, call: Call, request: web.Request) -> web.StreamResponse:
        """Stream the app's response, or send the client on if it has not begun in time."""
        deadline = time.monotonic() + PATIENCE
        response: web.StreamResponse | None = None
        position, done = 0, False
        while not done:
            if request.transport is None or request.transport.is_closing():
                return self._client_left(call)
            left = 0.5 if response else min(0.5, max(0.0, deadline - time.monotonic()))
            at = position
            if not await self._platform.changes.until(
                lambda at=at: len(call.data_out) > at or call.finished, left
            ):
                if not response and time.monotonic() >= deadline:
                    self._platform.happened("web.redirect", call.function, detail=call.id)
                    onward = {"Location": f"{request.path}?{CALL}={call.id}"}
                    return web.Response(status=303, headers=onward)
                continue
            if len(call.data_out) == position:
                break  # it ended without a complete response
            message = self._message(call.data_out[position])
            position += 1
            if message["type"] == "http.response.start":
                response = await _begun(message, request)
            elif message["type"] == "http.response.body" and response:
                done = not message["more_body"]
                if not await _written(response, request, message["body"]):
                    return self._client_left(call)
        if response is None:
            return _crashed(call)
        if not done and request.transport:
            request.transport.close()  # a body that was cut off must not look complete
        return response

    def _client_left(self, call: Call) -> web.Response:
        self._platform.happened("web.disconnect", call.function, detail=call.id)
        self._push(call, {"type": "http.disconnect"})
        return web.Response(status=499)

    async def _pump(self, call: Call, request: web.Request) -> None:
        """Feed the body to the container as it arrives."""
        try:
            if request.can_read_body:
                async for part in request.content.iter_chunked(CHUNK):
                    self._push(call, {"type": "http.request", "body": part, "more_body": True})
            self._push(call, {"type": "http.request", "body": b"", "more_body": False})
        except ConnectionError:
            pass  # the client left, and `_answer` tells the app

    def _push(self, call: Call, message: dict[str, Any]) -> None:
        data = serialize_data_format(message, pb.DATA_FORMAT_ASGI)
        index = len(call.data_in) + 1
        call.data_in.append(pb.DataChunk(data_format=pb.DATA_FORMAT_ASGI, data=data, index=index))
        self._platform.changes.tell()

    def _message(self, chunk: pb.DataChunk) -> dict[str, Any]:
        blob = chunk.data_blob_id
        data = self._platform.blob(blob).read_bytes() if blob else chunk.data
        return deserialize_data_format(data, pb.DATA_FORMAT_ASGI, None)


def _scope(request: web.Request) -> dict[str, Any]:
    """A request as ASGI describes it."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return {
        "type": "http",
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "query_string": request.rel_url.raw_query_string.encode(),
        "headers": [(key.lower(), value) for key, value in request.raw_headers],
        "client": peer[:2] if peer else None,
    }


async def _begun(message: dict[str, Any], request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=message["status"])
    for key, value in message["headers"]:
        if key.lower() not in (b"connection", b"transfer-encoding"):
            response.headers.add(key.decode("latin1"), value.decode("latin1"))
    await response.prepare(request)
    return response


async def _written(response: web.StreamResponse, request: web.Request, body: bytes) -> bool:
    """Send a part of the body; whether somebody still reads."""
    if body and request.method != "HEAD":
        try:
            await response.write(body)
        except ConnectionError:
            return False
    return True


def _crashed(call: Call) -> web.Response:
    result = call.outputs[0].result
    status = Result.GenericStatus.Name(result.status).removeprefix("GENERIC_STATUS_").title()
    text = f"modal-http: internal server error: status {status}: {result.exception}"
    return web.Response(status=500, text=text)
