"""The deployment as a backend: patient with cold starts, plain about what to check."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from shared.backends import find_backend
from shared.backends.api_client import ApiBackend
from shared.backends.modal import client
from shared.backends.modal.client import TIMEOUT, ModalBackend
from shared.backends.router import STATUS_SECONDS
from shared.console import LineProgress
from shared.contract import Starting, parse_request
from shared.errors import BackendUnavailable, CygnetError, InvalidSetting, Unauthorised
from shared.settings import settings
from tests.backends.test_api_client import STEPS, accepted, problem, stream

pytestmark = pytest.mark.anyio

REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2})


class Deployment:
    """Answers a path's calls with these, the last one for ever; remembers what was asked."""

    def __init__(self, **answers: list[httpx.Response]) -> None:
        self._answers = answers
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answers = self._answers[request.url.path.rpartition("/")[2]]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def backend(self) -> ModalBackend:
        transport = httpx.MockTransport(self)
        return ModalBackend("https://swan.example", "a-key", transport=transport, wait=lambda *_: 0)


async def test_an_answer_may_take_longer_than_modal_holds_a_call() -> None:
    modal_holds_a_call = 150
    assert TIMEOUT.read and TIMEOUT.read > modal_holds_a_call
    assert (TIMEOUT.read, ModalBackend.timeout) != (ApiBackend.timeout.read, ApiBackend.timeout)
    seen = Deployment(jobs=[accepted()], events=[stream(STEPS)])
    _ = [event async for event in seen.backend().generate(REQUEST)]
    assert {request.extensions["timeout"]["read"] for request in seen.asked} == {TIMEOUT.read}


async def test_a_call_that_modal_redirects_is_read_where_it_points() -> None:
    later = httpx.Response(303, headers={"Location": "https://swan.example/later"})
    seen = Deployment(jobs=[later], later=[accepted()], events=[stream(STEPS)])
    assert [event async for event in seen.backend().generate(REQUEST)] == STEPS
    assert [request.method for request in seen.asked] == ["POST", "GET", "GET"]


@pytest.mark.parametrize(
    ("answer", "kind", "advice"),
    [
        (httpx.Response(404, text="modal-http: app is stopped"), BackendUnavailable, "app list"),
        (httpx.Response(500, text="modal-http: internal"), BackendUnavailable, "app logs"),
        (problem(401, "unauthorised"), Unauthorised, "CYGNET_MODAL_KEY"),
        (problem(503, "backend_unavailable"), BackendUnavailable, "Do this."),  # its own word
    ],
)
async def test_what_fails_says_what_to_look_at(
    answer: httpx.Response, kind: type[CygnetError], advice: str
) -> None:
    with pytest.raises(kind) as refusal:
        _ = [event async for event in Deployment(jobs=[answer]).backend().generate(REQUEST)]
    assert advice in refusal.value.next_step
    assert "a-key" not in str(refusal.value)


async def test_a_door_that_is_only_starting_is_cold_and_not_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silence(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(client, "DOOR_SECONDS", 0.01)
    backend = ModalBackend("https://swan.example", transport=httpx.MockTransport(silence))
    status = await backend.status()
    assert (status.healthy, status.warm, "starting" in status.detail) == (True, False, True)
    assert client.DOOR_SECONDS < STATUS_SECONDS
    await backend.aclose()


def test_a_person_is_told_that_a_machine_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with LineProgress(REQUEST) as progress:
        progress.show(Starting())
    assert "Starting a machine" in capsys.readouterr().err


async def test_the_address_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match="CYGNET_MODAL_URL"):
        find_backend("modal")()
    monkeypatch.setenv("CYGNET_MODAL_URL", "https://swan--cygnet.modal.run")
    settings.cache_clear()
    assert find_backend("modal")().name == "modal"
