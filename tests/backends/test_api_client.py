"""The backend of a server elsewhere, when the network and the server misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from shared.backends import find_backend
from shared.backends.api_client import MAX_TRIES, ApiBackend, wait_before
from shared.contract import Done, Event, GenerationResult, Queued, Step, Timings, parse_request
from shared.errors import (
    BackendUnavailable,
    CheckpointMissing,
    CygnetError,
    DiskFull,
    InternalError,
    InvalidSetting,
    OutOfMemory,
    QueueFull,
    Unauthorised,
)
from shared.settings import settings

pytestmark = pytest.mark.anyio

REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2})
DONE = Done(
    result=GenerationResult(
        request=REQUEST, seeds=(7,), timings=Timings(), device="none", backend="fake"
    )
)
STEPS: list[Event] = [Queued(position=0), Step(index=0, step=1, steps=2), DONE]

Handler = Callable[[httpx.Request], httpx.Response]


def stream(events: list[Event], first: int = 1, cut: str = "") -> httpx.Response:
    """Events with ids from `first`, and something that was cut off."""
    text = "".join(
        f"id: {number}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
        for number, event in enumerate(events, first)
    )
    return httpx.Response(200, text=f": still here\n\n{text}{cut}")


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    told = {"code": code, "detail": "It is so.", "next_step": "Do this."}
    return httpx.Response(status, json=told, headers=headers)


class Script:
    """A server that answers the calls to each path with these, one after the other."""

    def __init__(self, jobs: list[Any], events: list[Any]) -> None:
        self._answers = {"/v1/jobs": jobs, "/v1/jobs/j/events": events}
        self.calls: list[httpx.Request] = []
        self.waits: list[tuple[int, float | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        if request.method == "DELETE":
            return httpx.Response(200, json={})
        answer = self._answers[request.url.path].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sent(self, header: str) -> list[str | None]:
        return [call.headers.get(header) for call in self.calls]

    async def run(self) -> list[Event]:
        def wait(attempt: int, asked: float | None) -> float:
            self.waits.append((attempt, asked))
            return 0

        backend = ApiBackend(
            "http://swan.example", "a-key", transport=httpx.MockTransport(self), wait=wait
        )
        try:
            return [event async for event in backend.generate(REQUEST)]
        finally:
            await backend.aclose()


def accepted() -> httpx.Response:
    return httpx.Response(202, json={"id": "j"})


async def test_a_job_is_sent_with_its_key_and_its_events_are_read() -> None:
    script = Script([accepted()], [stream(STEPS)])
    assert await script.run() == STEPS
    assert [call.method for call in script.calls] == ["POST", "GET"]
    assert script.sent("authorization") == ["Bearer a-key"] * 2
    assert json.loads(script.calls[0].content) == REQUEST.model_dump()


async def test_a_job_is_sent_again_under_the_same_key_until_it_is_accepted() -> None:
    answers = [httpx.ConnectError("no"), httpx.ReadTimeout("slow"), problem(503, "x"), accepted()]
    script = Script(answers, [stream(STEPS)])
    assert await script.run() == STEPS
    keys = script.sent("idempotency-key")[:4]
    assert len(set(keys)) == 1 and keys[0]
    assert [attempt for attempt, _ in script.waits] == [1, 2, 3]


async def test_a_full_queue_is_asked_again_when_it_says() -> None:
    full = problem(429, "queue_full", **{"Retry-After": "17"})
    script = Script([full, accepted()], [stream(STEPS)])
    assert await script.run() == STEPS
    assert script.waits == [(1, 17.0)]


@pytest.mark.parametrize(
    ("answer", "kind", "calls"),
    [
        (problem(401, "unauthorised"), Unauthorised, 1),
        (problem(429, "queue_full"), QueueFull, MAX_TRIES),
        (problem(503, "backend_unavailable"), BackendUnavailable, MAX_TRIES),
        (httpx.Response(404, text="<html>"), BackendUnavailable, 1),
        (httpx.Response(418, json=["tea"]), BackendUnavailable, 1),
        (httpx.ConnectError("no"), BackendUnavailable, MAX_TRIES),
    ],
)
async def test_a_refusal_is_the_error_it_was_on_the_server(
    answer: Any, kind: type[CygnetError], calls: int
) -> None:
    script = Script([answer] * MAX_TRIES, [])
    with pytest.raises(kind) as refusal:
        await script.run()
    assert type(refusal.value) is kind
    assert len(script.calls) == calls
    assert "a-key" not in str(refusal.value)


async def test_a_stream_that_breaks_off_goes_on_after_the_last_whole_event() -> None:
    broken = stream(STEPS[:1], cut="id: 2\nevent: step\ndata: {")
    script = Script(
        [accepted()], [broken, httpx.ReadError("gone"), problem(502, "x"), stream(STEPS[1:], 2)]
    )
    assert await script.run() == STEPS
    assert script.sent("last-event-id")[1:] == ["0", "1", "1", "1"]
    assert [attempt for attempt, _ in script.waits] == [1, 2, 3]


async def test_a_refused_stream_is_asked_again_when_it_says_and_given_up_with_the_reason() -> None:
    full = problem(429, "rate_limited", **{"Retry-After": "17"})
    script = Script([accepted()], [full, stream(STEPS)])
    assert await script.run() == STEPS
    assert script.waits == [(1, 17.0)]
    script = Script([accepted()], [problem(507, "disk_full"), stream(STEPS)])
    with pytest.raises(DiskFull):
        await script.run()
    script = Script([accepted()], [problem(503, "checkpoint_missing")] * MAX_TRIES)
    with pytest.raises(CheckpointMissing, match="It is so"):
        await script.run()


async def test_a_stream_that_never_says_anything_new_is_given_up() -> None:
    script = Script([accepted()], [stream([])] * MAX_TRIES)
    with pytest.raises(BackendUnavailable, match="broke off"):
        await script.run()
    assert script.calls[-1].method == "DELETE"


async def test_a_redirect_of_a_call_that_still_waits_is_followed() -> None:
    elsewhere = httpx.Response(303, headers={"Location": "http://swan.example/v1/jobs"})
    script = Script([elsewhere, accepted()], [stream(STEPS)])
    assert await script.run() == STEPS
    assert [call.method for call in script.calls] == ["POST", "GET", "GET"]


async def test_a_failure_in_the_stream_is_the_error_it_was_on_the_server() -> None:
    told = json.dumps({"code": "out_of_memory", "message": "Too large.", "next_step": "Less."})
    script = Script([accepted()], [stream(STEPS[:1], cut=f"event: error\ndata: {told}\n\n")])
    with pytest.raises(OutOfMemory, match=r"Too large\. Less\."):
        await script.run()
    assert [call.method for call in script.calls] == ["POST", "GET"]


@pytest.mark.parametrize("data", ["{", "[]", "{}", '{"type": "melted"}', '{"type": "step"}'])
async def test_what_is_no_event_of_ours_is_said(data: str) -> None:
    for kind in ("step", "error"):
        script = Script([accepted()], [stream([], cut=f"event: {kind}\ndata: {data}\n\n")])
        with pytest.raises(InternalError, match="sent"):
            await script.run()


async def test_a_server_that_does_not_answer_is_not_healthy() -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    backend = ApiBackend("http://swan.example", transport=httpx.MockTransport(gone))
    status = await backend.status()
    assert (status.healthy, status.warm) == (False, False)
    await backend.aclose()


def test_each_wait_is_longer_with_a_random_part_and_a_limit() -> None:
    for attempt in range(1, 10):
        longest = min(0.5 * 2**attempt, 15)
        waits = [wait_before(attempt) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert wait_before(1, 7) == 7
    assert wait_before(1, 1e9) == 60


def test_the_address_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match="CYGNET_API_URL"):
        find_backend("api")()
    monkeypatch.setenv("CYGNET_API_URL", "http://swan.example")
    settings.cache_clear()
    assert find_backend("api")().name == "api"
