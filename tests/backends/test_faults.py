"""What goes wrong between a backend and its server: the right error or the next backend, no hang, no work
done twice, and no word of a key.

A real server stands behind a proxy that spoils what passes, and the jobs that it took are counted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.backends import Backend, Opening
from shared.backends.api_client import ApiBackend
from shared.backends.config import AUTO, BackendConfig, Backends
from shared.backends.ledger import Ledger
from shared.backends.router import Router
from shared.contract import collect, parse_request
from shared.errors import (
    BackendUnavailable,
    CygnetError,
    InternalError,
    InvalidCall,
    QueueFull,
    Unauthorised,
)
from shared.images import read_recipe
from tests.api.conftest import HeldBackend, Serve, serve
from tests.backends.faulty_network import Call, Fault, faulty

__all__ = ["serve"]

pytestmark = pytest.mark.anyio

REQUEST = parse_request({"prompt": "a private wish", "seed": 7, "steps": 2})
KEY = "very-secret-key"


# Faults: what is done to which call.

Deed = Callable[[Call], Awaitable[None]]


def at(kind: str, deed: Deed, *, once: bool = False) -> Fault:
    async def fault(call: Call) -> bool:
        if call.kind != kind or (once and call.number > 1):
            return False
        await deed(call)
        return True

    return fault


def answering(status: str, body: object, *headers: str) -> Deed:
    """Answers in the server's place, which never hears of the call."""

    async def deed(call: Call) -> None:
        if isinstance(body, dict):
            json_body = {"detail": "It is so.", "next_step": "Do this."} | body
            content = "Content-Type: application/problem+json"
            call.answer(status, json.dumps(json_body).encode(), content, *headers)
        else:
            call.answer(status, str(body).encode(), "Content-Type: text/html", *headers)

    return deed


async def lose_the_answer(call: Call) -> None:
    await call.whole()
    call.reset()


async def hold_the_answer_back(call: Call) -> None:
    await call.whole()
    await asyncio.Event().wait()


async def answer_502_though_it_came(call: Call) -> None:
    await call.whole()
    call.answer("502 Bad Gateway")


def length_off_by(difference: int) -> Deed:
    async def deed(call: Call) -> None:
        head, body = await call.whole()
        kind = re.search(rb"(?i)content-type: [^\r]+", head)
        assert kind
        length = f"Content-Length: {len(body) + difference}"
        call.answer("202 Accepted", body, kind[0].decode(), length)

    return deed


async def break_the_stream_off(call: Call) -> None:
    """After the first event, before the second is whole."""
    async with call.passed_on() as answer:
        call.writer.write(await answer.readuntil(b"event: queued") + b"\r\ndata: {")
        await call.writer.drain()
    call.reset()


async def cut_the_picture(call: Call) -> None:
    """In half, and what is left is sent in good order."""
    head, body = await call.whole()

    def half(match: re.Match[bytes]) -> bytes:
        image = base64.b64decode(match[1])
        return b'"image":"' + base64.b64encode(image[: len(image) // 2]) + b'"'

    spoilt, count = re.subn(rb'"image": ?"([A-Za-z0-9+/=]+)"', half, unchunked(head, body))
    assert count == 1
    call.answer("200 OK", spoilt, "Content-Type: text/event-stream")


def unchunked(head: bytes, body: bytes) -> bytes:
    assert b"transfer-encoding: chunked" in head.lower()
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return whole


def see_other() -> Fault:
    """Answers 303 while the server works on, and with the server's answer where that leads to."""
    kept: list[bytes] = []

    async def fault(call: Call) -> bool:
        if call.kind == "submit":
            kept.append((await call.whole())[1])
            call.answer("303 See Other", b"", "Location: /later")
        elif call.kind == "GET /later":
            call.answer("202 Accepted", kept[-1], "Content-Type: application/json")
        else:
            return False
        return True

    return fault


async def in_a_circle(call: Call) -> bool:
    if call.kind not in ("submit", "GET /v1/elsewhere"):
        return False
    call.answer("303 See Other", b"", "Location: /v1/elsewhere")
    return True


@dataclass(frozen=True)
class Case:
    """A fault, and what has to come of it."""

    fault: Fault
    named: type[CygnetError] | None
    """The error of a call by name; None if the picture comes."""
    auto: str | type[CygnetError]
    """Who serves `auto` in the end, or its error."""
    jobs: int
    """How many the server has, unless the spare served."""
    patience: float = 60.0
    """Seconds that the client waits for an answer."""


FULL = answering("429 Too Many Requests", {"code": "queue_full"}, "Retry-After: 1")
DENIED = answering("401 Unauthorized", {"code": "unauthorised"})
WEB_PAGE = answering("200 OK", "<html>Welcome to our Wi-Fi</html>")
ELSEWHERE = answering("303 See Other", "", "Location: /v1/elsewhere")

CASES = {
    "429": Case(at("submit", FULL), QueueFull, "spare", 0),
    "429 once": Case(at("submit", FULL, once=True), None, "spare", 1),
    "500": Case(at("submit", answering("500 Oops", "oops")), BackendUnavailable, "spare", 0),
    "401": Case(at("submit", DENIED), Unauthorised, "spare", 0),
    "a web page in place of an answer": Case(
        at("submit", WEB_PAGE), BackendUnavailable, "spare", 0
    ),
    "the answer lost once": Case(at("submit", lose_the_answer, once=True), None, "studio", 1),
    "every answer lost": Case(
        at("submit", lose_the_answer), BackendUnavailable, BackendUnavailable, 1
    ),
    "502 though the call came": Case(
        at("submit", answer_502_though_it_came), BackendUnavailable, BackendUnavailable, 1
    ),
    "slow once": Case(
        at("submit", hold_the_answer_back, once=True), None, "studio", 1, patience=1.0
    ),
    "always slow": Case(
        at("submit", hold_the_answer_back), BackendUnavailable, BackendUnavailable, 1, patience=0.1
    ),
    "303": Case(see_other(), None, "studio", 1),
    "303 to nowhere": Case(at("submit", ELSEWHERE), InvalidCall, InvalidCall, 0),
    "303 in a circle": Case(in_a_circle, BackendUnavailable, BackendUnavailable, 0),
    "more length than there is": Case(
        at("submit", length_off_by(10), once=True), None, "studio", 1
    ),
    "less length than there is": Case(
        at("submit", length_off_by(-10), once=True), None, "studio", 1
    ),
    "reset mid-stream once": Case(at("stream", break_the_stream_off, once=True), None, "studio", 1),
    "every stream reset": Case(
        at("stream", break_the_stream_off), BackendUnavailable, BackendUnavailable, 1
    ),
    "a web page in place of a stream": Case(
        at("stream", WEB_PAGE), BackendUnavailable, BackendUnavailable, 1
    ),
    "a truncated picture": Case(at("stream", cut_the_picture), InternalError, InternalError, 1),
}


def two_backends(url: str, spare: Backend, folder: Path) -> Router:
    """A router in front of the server at `url`, called studio, and of `spare`."""
    known = {
        "studio": BackendConfig(name="studio", kind="api", address=url),
        "spare": BackendConfig(name="spare", kind="fake"),
    }

    def open_one(config: BackendConfig, how: Opening) -> Backend:
        if config.name == "spare":
            return spare
        return ApiBackend(url, KEY, wait=lambda *_: 0, fail_fast=how.fail_fast)

    names = tuple(known)
    return Router(Backends(known, names, names), ledger=Ledger(folder), open=open_one)


@pytest.mark.parametrize("asked", ["studio", AUTO])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_fault_ends_in_a_picture_or_the_right_error_and_no_work_is_done_twice(
    case: Case,
    asked: str,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ApiBackend, "timeout", httpx.Timeout(case.patience))
    studio, spare = HeldBackend(), HeldBackend()
    studio.go.set()
    spare.go.set()
    expected = case.auto if asked == AUTO else case.named or "studio"
    async with serve(studio, keys=(KEY,), grace=0) as server, faulty(server.url, case.fault) as way:
        router = two_backends(way.url, spare, tmp_path)
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        async with asyncio.timeout(60):
            if isinstance(expected, str):
                result, [image] = await collect(router.generate(REQUEST, asked))
                assert result.backend == expected
                assert read_recipe(image).fields["seed"] == 7
                told = result.backend_reason
                assert ("studio did not serve" in told) == (expected == "spare")
            else:
                with pytest.raises(CygnetError) as failure:
                    await collect(router.generate(REQUEST, asked))
                assert type(failure.value) is expected
                told = str(failure.value)
                assert ("Nothing was sent elsewhere" in told) == (asked == AUTO)
        await router.aclose()
        jobs = (await server.client.get("/v1/jobs")).json()["data"]
    assert len(jobs) == (case.jobs if expected != "spare" else 0)
    assert len(spare.started) == (expected == "spare")
    assert len(studio.started) <= 1
    assert KEY not in told + repr(told) + caplog.text
    assert "private wish" not in told + caplog.text


async def test_a_server_that_refuses_connections_is_passed_over(tmp_path: Path) -> None:
    spare = HeldBackend()
    spare.go.set()
    router = two_backends("http://127.0.0.1:9", spare, tmp_path)
    result, _ = await collect(router.generate(REQUEST, AUTO))
    assert result.backend == "spare"
    assert result.backend_reason == (
        "the first that is warm. studio did not serve: The server does not answer."
    )
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await collect(router.generate(REQUEST, "studio"))
    await router.aclose()


async def test_a_server_that_never_says_how_it_is_is_passed_over(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.backends.router.STATUS_SECONDS", 0.1)
    spare = HeldBackend()
    spare.go.set()
    fault = at("GET /readyz", hold_the_answer_back)
    async with serve(HeldBackend(), grace=0) as server, faulty(server.url, fault) as way:
        router = two_backends(way.url, spare, tmp_path)
        result, _ = await collect(router.generate(REQUEST, AUTO))
        assert "studio did not serve: It does not answer within 0.1 s." in result.backend_reason
        await router.aclose()


async def test_a_redirect_to_another_host_does_not_take_the_key_along() -> None:
    seen: list[httpx.Request] = []

    def network(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(303, headers={"Location": "http://evil.example/v1/jobs"})

    backend = ApiBackend(
        "http://studio.example", KEY, transport=httpx.MockTransport(network), wait=lambda *_: 0
    )
    with pytest.raises(BackendUnavailable):
        await collect(backend.generate(REQUEST))
    await backend.aclose()
    elsewhere = [request for request in seen if request.url.host == "evil.example"]
    assert elsewhere and not any(KEY in str(request.headers.raw) for request in elsewhere)
