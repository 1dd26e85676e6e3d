"""What Modal's calls come to in our words, by calls that fail in each of their ways."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from modal import exception

from shared.backends.modal.platform import Fleet, MethodCalls, outcome
from shared.contract import collect, parse_request
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CheckpointMissing,
    CygnetError,
    InternalError,
    InvalidRequest,
)

pytestmark = pytest.mark.anyio

REQUEST = parse_request({"prompt": "a fox"})


class Call:
    """A call that comes to an answer, or to an exception, or to nothing."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.cancelled = False
        self.object_id = "fc-1"
        self.get = SimpleNamespace(aio=self._get)
        self.cancel = SimpleNamespace(aio=self._cancel)

    async def _get(self, timeout: float | None) -> Any:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    async def _cancel(self) -> None:
        self.cancelled = True


def method(call: Call | None) -> Any:
    """A method on Modal; with no call, where it does not answer."""

    async def spawn(*_: object) -> Call:
        if call is None:
            raise exception.ServiceError("down")
        return call

    asked = SimpleNamespace(aio=spawn)
    return SimpleNamespace(spawn=asked, get_current_stats=asked)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (exception.FunctionTimeoutError("too long"), BackendUnavailable),
        (exception.InputCancellation("cancelled"), Cancelled),
        (exception.RemoteError("the container was killed"), InternalError),
        (exception.OutputExpiredError("a week is over"), InternalError),
        (ZeroDivisionError("in the container"), InternalError),
        (CheckpointMissing("No weights.", "Fetch them."), CheckpointMissing),
    ],
)
async def test_how_a_call_failed_is_one_of_our_errors(
    failure: BaseException, kind: type[CygnetError]
) -> None:
    call: Any = Call(failure)
    with pytest.raises(kind) as told:
        await outcome(call)
    assert type(told.value) is kind
    assert "modal app logs" in told.value.next_step or kind is not InternalError


@pytest.mark.parametrize(
    "silence", [TimeoutError(), exception.ServiceError("down"), exception.ConnectionError("no")]
)
async def test_a_call_of_which_nothing_is_known_is_not_over(
    silence: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modal.FunctionCall.from_id", lambda _: Call(silence))
    assert not await MethodCalls(method(Call())).is_over("fc-1", 0)


async def test_where_modal_does_not_answer_it_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = method(None)
    dead = SimpleNamespace(cancel=gone.spawn)
    monkeypatch.setattr("modal.FunctionCall.from_id", lambda _: dead)
    calls, fleet = MethodCalls(gone), Fleet(gone, "cygnet-tiny")
    for asked in (
        calls.spawn("0" * 32, REQUEST),
        calls.stats(),
        calls.cancel("fc-1"),
        fleet.status(),
        collect(fleet.generate(REQUEST)),
    ):
        with pytest.raises(BackendUnavailable, match="Modal does not answer"):
            await asked


async def test_to_stop_waiting_for_the_fleet_cancels_the_call() -> None:
    call = Call()
    waiting = asyncio.ensure_future(collect(Fleet(method(call), "cygnet-tiny").generate(REQUEST)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert call.cancelled


async def test_the_fleet_hands_the_machines_errors_on() -> None:
    told = {"type": "error", "code": "out_of_memory", "message": "Too large.", "next_step": "Less."}
    for answer, words in (
        ([told], "Too large"),
        (exception.ServiceError("down"), "Modal does not"),
    ):
        with pytest.raises(CygnetError, match=words):
            await collect(Fleet(method(Call(answer)), "cygnet-tiny").generate(REQUEST))
    with pytest.raises(InvalidRequest, match="cygnet-tiny"):
        await collect(Fleet(method(Call()), "wan2.1-14b").generate(REQUEST))
