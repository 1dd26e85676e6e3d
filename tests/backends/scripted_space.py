"""A Hub and a Space that answer as a test tells them, and what Gradio's queue says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from shared.backends.fake import draw
from shared.backends.space_client import SpaceBackend
from shared.contract import Done, Event, GenerationRequest, GenerationResult, Timings, parse_request
from shared.images import encode_image

REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2})
DONE = Done(
    result=GenerationResult(
        request=REQUEST, seeds=(7,), timings=Timings(), device="none", backend="fake"
    )
)
PICTURE = encode_image(draw(7, 256, 256), REQUEST, None)
SPACE = "https://swan-cygnet.hf.space"
HUB = "https://huggingface.co"
TOKEN = "hf_a_token"


def said(msg: str, **fields: Any) -> dict[str, Any]:
    return {"msg": msg, "event_id": "e"} | fields


def generating(event: Event | dict[str, Any]) -> dict[str, Any]:
    shown = event if isinstance(event, dict) else event.model_dump(mode="json")
    return said("process_generating", output={"data": [shown]}, success=True)


def failed(title: str, error: str | None) -> dict[str, Any]:
    return said("process_completed", output={"error": error, "title": title}, success=False)


def image(path: str = "/tmp/gradio/x/a fox-7.png") -> dict[str, Any]:
    file = {
        "path": path,
        "url": f"https://evil.example{path}",
        "meta": {"_type": "gradio.FileData"},
    }
    return {"type": "image", "index": 0, "seed": 7, "image": file}


def stream(*messages: dict[str, Any], cut: bool = False) -> httpx.Response:
    """Messages of the queue; `cut`, and the connection breaks after them."""
    text = "".join(f"data: {json.dumps(message)}\n\n" for message in messages)

    async def chunks() -> AsyncIterator[bytes]:
        yield text.encode()
        if cut:
            raise httpx.ReadError("broken")

    return httpx.Response(200, content=chunks())


def whole(*between: dict[str, Any]) -> httpx.Response:
    completed = said("process_completed", output={"data": [DONE.model_dump(mode="json")]})
    return stream(*between, generating(DONE), completed, {"msg": "close_stream"})


def started(stage: str) -> httpx.Response:
    return httpx.Response(200, json={"stage": stage, "hardware": {"current": "cpu-basic"}})


NO_SESSION = {"msg": "unexpected_error", "message": "404: ", "session_not_found": True}

PARAMETERS = sorted(GenerationRequest.model_fields)
"""In an order of the Space's own."""

ANSWERS: dict[str, Any] = {
    f"{HUB}/api/spaces/swan/cygnet/host": httpx.Response(200, json={"host": SPACE}),
    f"{HUB}/api/spaces/swan/cygnet/runtime": started("RUNNING"),
    f"{SPACE}/config": httpx.Response(
        200,
        json={"dependencies": [{"id": 3, "api_name": "more"}, {"id": 4, "api_name": "generate"}]},
    ),
    f"{SPACE}/gradio_api/info": httpx.Response(
        200,
        json={
            "named_endpoints": {
                "/generate": {"parameters": [{"parameter_name": name} for name in PARAMETERS]}
            }
        },
    ),
    f"{SPACE}/gradio_api/call/generate": httpx.Response(200, json={"event_id": "e"}),
    f"{SPACE}/gradio_api/cancel": httpx.Response(200, json={"success": True}),
}


class Script:
    """A Hub and a Space that give these answers: the last one of a list again and again."""

    def __init__(self, answers: dict[str, Any]) -> None:
        places = {"hub": f"{HUB}/api/spaces/swan/cygnet/runtime", "config": f"{SPACE}/config"}
        calls = {name: f"{SPACE}/gradio_api/{path}" for name, path in _PATHS.items()}
        named = {(places | calls)[name]: answer for name, answer in answers.items()}
        self._answers = {
            url: list(answer) if isinstance(answer, list) else [answer]
            for url, answer in (ANSWERS | named).items()
        }
        self.calls: list[httpx.Request] = []
        self.waits: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        url = str(request.url.copy_with(query=None))
        key = f"{SPACE}/gradio_api/file=" if "/file=" in url else url
        answers = self._answers[key]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def called(self, path: str) -> int:
        return sum(path in str(call.url) for call in self.calls)

    def backend(self, fail_fast: bool = False) -> SpaceBackend:
        def wait(attempt: int, asked: float | None) -> float:
            self.waits.append(attempt)
            return 0

        transport = httpx.MockTransport(self)
        return SpaceBackend("swan/cygnet", "", HUB, transport, wait, fail_fast)

    async def run(self, fail_fast: bool = False) -> list[Event]:
        backend = self.backend(fail_fast)
        try:
            return [event async for event in backend.generate(REQUEST)]
        finally:
            await backend.aclose()


_PATHS = {
    "info": "info",
    "call": "call/generate",
    "queue": "queue/data",
    "file": "file=",
    "cancel": "cancel",
}
