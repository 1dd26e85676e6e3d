"""The backend of a Space, when the network, the Hub and the Space misbehave."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.backends import find_backend, open_backend, space_host
from shared.backends.api_client import MAX_TRIES
from shared.backends.config import read_backends
from shared.backends.fake import FakeBackend
from shared.backends.space_client import MAX_STARTING_TRIES, SpaceBackend
from shared.backends.space_messages import MAX_SAID
from shared.contract import (
    ImageReady,
    Queued,
    Starting,
    Step,
    collect,
)
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CheckpointMissing,
    CygnetError,
    InternalError,
    InvalidRequest,
    InvalidSetting,
    NotFound,
    QueueFull,
    QuotaExceeded,
    Unauthorised,
)
from shared.settings import settings
from tests.backends.scripted_space import (
    ANSWERS,
    DONE,
    HUB,
    NO_SESSION,
    PARAMETERS,
    PICTURE,
    REQUEST,
    SPACE,
    TOKEN,
    Script,
    failed,
    generating,
    image,
    said,
    started,
    stream,
    whole,
)
from tests.mirror.stand_in import TOKEN as HUB_TOKEN
from tests.mirror.stand_in import Hub, Space, running
from tests.space.conftest import HeldBackend, Serve, serve

__all__ = ["serve"]

pytestmark = pytest.mark.anyio


async def test_the_queue_counts_down_and_the_events_come() -> None:
    step = Step(index=0, step=1, steps=2, preview=b"\xff\xd8")
    messages = [
        said("estimation", rank=2, queue_size=3, rank_eta=None),
        said("estimation", rank=0, queue_size=1, rank_eta=None),
        said("process_starts"),
        said("heartbeat"),
        said("log", log="Waiting for a GPU", level="info", title="ZeroGPU queue"),
        said("progress", progress_data=[{"index": 1, "length": 2}]),
        generating(Queued(position=0)),
        generating(step),
        generating(image()),
    ]
    script = Script({"queue": whole(*messages), "file": httpx.Response(200, content=PICTURE)})
    got = await script.run()
    picture = ImageReady(index=0, seed=7, image=PICTURE)
    assert got == [*(Queued(position=n) for n in (2, 0, 0)), step, picture, DONE]
    [asked] = [call for call in script.calls if call.method == "POST"]
    sent = json.loads(asked.content)
    assert dict(zip(PARAMETERS, sent["data"], strict=True)) == REQUEST.model_dump(mode="json")
    [listened] = [call for call in script.calls if "queue/data" in str(call.url)]
    assert listened.url.params["session_hash"] == sent["session_hash"]


async def test_a_file_is_fetched_from_the_space_itself_whatever_its_address_says() -> None:
    hostile = image("https://evil.example/x.png?a=b#c")
    script = Script(
        {"queue": whole(generating(hostile)), "file": httpx.Response(200, content=PICTURE)}
    )
    await script.run()
    [fetched] = [call.url for call in script.calls if "file=" in str(call.url)]
    assert fetched.host == "swan-cygnet.hf.space" and not fetched.query
    assert {call.url.host for call in script.calls} == {"huggingface.co", "swan-cygnet.hf.space"}


@pytest.mark.parametrize(
    "broken",
    [
        httpx.ReadError("cut"),
        httpx.Response(200, content=PICTURE[:-100], headers={"content-type": "image/png"}),
        httpx.Response(200, content=b"<html>", headers={"content-type": "image/png"}),
    ],
    ids=["broken connection", "truncated", "a page"],
)
async def test_a_file_that_did_not_come_whole_is_fetched_again(broken: Any) -> None:
    good = httpx.Response(200, content=PICTURE, headers={"content-type": "text/html"})
    script = Script({"queue": whole(generating(image())), "file": [broken, good]})
    events = await script.run()
    assert events[0] == ImageReady(index=0, seed=7, image=PICTURE)
    script = Script({"queue": whole(generating(image())), "file": broken})
    with pytest.raises(BackendUnavailable, match="Image 1 did not come whole"):
        await script.run()
    assert script.called("file=") == MAX_TRIES and script.called("/cancel") == 1


async def test_a_call_whose_answer_was_lost_is_not_sent_again_if_it_came() -> None:
    script = Script({"call": httpx.ReadError("lost"), "queue": whole()})
    assert await script.run() == [DONE]
    assert script.called("call/generate") == 1


async def test_a_call_whose_answer_was_lost_is_sent_again_if_it_did_not_come() -> None:
    taken = ANSWERS[f"{SPACE}/gradio_api/call/generate"]
    script = Script(
        {"call": [httpx.ReadError("lost"), taken], "queue": [stream(NO_SESSION), whole()]}
    )
    assert await script.run() == [DONE]
    assert script.called("call/generate") == 2


async def test_a_full_queue_is_asked_again_and_then_told() -> None:
    full = httpx.Response(503, json={"detail": "Queue is full. Max size is 1 and size is 1."})
    taken = ANSWERS[f"{SPACE}/gradio_api/call/generate"]
    script = Script({"call": [full, full, taken], "queue": whole()})
    assert await script.run() == [DONE]
    assert script.waits == [1, 2]
    script = Script({"call": full})
    with pytest.raises(QueueFull):
        await script.run()
    assert script.called("call/generate") == MAX_TRIES


async def test_a_stream_that_breaks_is_told_and_its_work_is_not_started_again() -> None:
    script = Script({"queue": stream(generating(Queued(position=0)), cut=True)})
    with pytest.raises(BackendUnavailable, match="same seed gives the same picture"):
        await script.run()
    assert script.called("call/generate") == 1 and script.called("/cancel") == 1


async def test_a_stream_that_could_not_be_opened_is_opened_again() -> None:
    script = Script({"queue": [httpx.ConnectError("no"), httpx.ReadError("no"), whole()]})
    assert await script.run() == [DONE]
    assert script.called("call/generate") == 1


async def test_a_space_whose_first_answer_breaks_is_asked_again() -> None:
    config = ANSWERS[f"{SPACE}/config"]
    script = Script({"config": [httpx.ReadError("pooled"), config], "queue": whole()})
    assert await script.run() == [DONE]


@pytest.mark.parametrize("stage", ["SLEEPING", "BUILDING", "APP_STARTING"])
async def test_a_space_that_starts_is_waited_for(stage: str) -> None:
    not_yet = [httpx.Response(503, text="<html>")] * (MAX_TRIES + 2)
    config = ANSWERS[f"{SPACE}/config"]
    script = Script({"hub": started(stage), "config": [*not_yet, config], "queue": whole()})
    assert await script.run() == [Starting(), DONE]
    assert script.waits == list(range(1, MAX_TRIES + 3))


async def test_a_space_that_never_starts_is_given_up() -> None:
    script = Script({"hub": started("BUILDING"), "config": httpx.Response(404, text="<html>")})
    with pytest.raises(NotFound):
        await script.run()
    assert script.called("/config") == MAX_STARTING_TRIES


@pytest.mark.parametrize(
    ("stage", "next_step"),
    [("PAUSED", "owner can restart it"), ("BUILD_ERROR", "log"), ("RUNTIME_ERROR", "log")],
)
async def test_a_space_that_is_down_is_told_at_once(stage: str, next_step: str) -> None:
    script = Script({"hub": started(stage), "config": httpx.Response(503, text="<html>")})
    with pytest.raises(BackendUnavailable, match=next_step) as error:
        await script.run()
    assert stage.lower().replace("_", " ") in error.value.message
    assert script.called("/config") == 1


async def test_a_stage_that_is_not_known_is_nothing_bad() -> None:
    config = [httpx.Response(502), ANSWERS[f"{SPACE}/config"]]
    script = Script({"hub": started("MOULTING"), "config": config, "queue": whole()})
    assert await script.run() == [DONE]


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthorised), (404, NotFound)])
async def test_a_space_that_is_not_shown_asks_for_a_token(
    status: int, kind: type[CygnetError], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script({})
    monkeypatch.setitem(
        script._answers, f"{HUB}/api/spaces/swan/cygnet/host", [httpx.Response(status)]
    )
    with pytest.raises(kind, match="HF_TOKEN"):
        await script.run()
    assert len(script.calls) == 1


async def test_a_site_that_wants_a_key_says_so_in_its_own_words() -> None:
    problem = {"code": "unauthorised", "detail": "No key.", "next_step": "Send one."}
    script = Script({"config": httpx.Response(401, json=problem)})
    with pytest.raises(Unauthorised, match=r"^No key\. Send one\.$"):
        await script.run()


async def test_what_a_space_says_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = {"code": "unauthorised", "detail": "\x1b[31m" + "a" * 9000, "next_step": "b" * 9000}
    for place in ("config", "queue"):
        script = Script({place: httpx.Response(401, json=problem)})
        with pytest.raises(Unauthorised) as error:
            await script.run()
        assert len(str(error.value)) <= 2 * MAX_SAID + 1 and "\x1b" not in str(error.value)
    monkeypatch.setattr(space_host, "MAX_BODY", 1000)
    script = Script({"config": httpx.Response(200, content=b" " * 1001)})
    with pytest.raises(BackendUnavailable, match="TooLarge"):
        await script.run()


@pytest.mark.parametrize("change", [PARAMETERS[1:], [*PARAMETERS, "more"]], ids=["older", "newer"])
async def test_a_space_of_another_version_is_told_before_it_draws_something_else(
    change: list[str],
) -> None:
    told = {"parameters": [{"parameter_name": name} for name in change]}
    info = httpx.Response(200, json={"named_endpoints": {"/generate": told}})
    script = Script({"info": info})
    with pytest.raises(BackendUnavailable, match="another version of Cygnet"):
        await script.run()
    assert script.called("call/generate") == 0


@pytest.mark.parametrize(
    ("space", "sent"),
    [
        ("swan/cygnet", True),
        (f"{HUB}/spaces/swan/cygnet", True),
        (f"{SPACE}/", True),
        ("https://evil.example", False),
        ("https://evil.example/.hf.space", False),
        ("https://hf.space.evil.example", False),
        ("http://swan-cygnet.hf.space", False),
    ],
)
async def test_the_token_goes_to_the_hubs_places_only(space: str, sent: bool) -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if request.url.path.endswith("/host"):
            return httpx.Response(200, json={"host": SPACE})
        return httpx.Response(400)

    backend = SpaceBackend(space, TOKEN, HUB, httpx.MockTransport(answer))
    with pytest.raises(CygnetError) as error:
        await collect(backend.generate(REQUEST))
    await backend.aclose()
    expected = f"Bearer {TOKEN}" if sent else None
    for header in ("authorization", "x-hf-authorization"):
        assert {call.headers.get(header) for call in calls} == {expected}
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize(
    ("told", "kind", "text"),
    [
        (failed("ZeroGPU quota exceeded", "Try again in 1:02:03"), QuotaExceeded, "1:02:03"),
        (failed("ZeroGPU pending credits exceeded", "Too many"), QuotaExceeded, "HF_TOKEN"),
        (failed("ZeroGPU illegal duration", "300s"), QuotaExceeded, "fewer steps"),
        (failed("ZeroGPU queue timeout", "No GPU"), QueueFull, "in a minute"),
        (
            failed("ZeroGPU worker error", "GPU task aborted"),
            BackendUnavailable,
            "GPU task aborted",
        ),
        (failed("Error", "It is <b>odd</b>.\x1b[31m"), InternalError, "It is <b>odd</b>.[31m"),
        (failed("Error", None), InternalError, "does not say why"),
        (said("process_completed", output={"error": None}, success=False), InternalError, "why"),
        (failed("invalid_request", "No. Next: Do so."), InvalidRequest, r"^No\. Do so\.$"),
        (failed("checkpoint_missing", "Not here. Next: Ask."), CheckpointMissing, "Not here"),
        (said("process_completed", output={}, success=True), Cancelled, "stopped"),
        ({"msg": "unexpected_error", "message": "Server stopped."}, BackendUnavailable, "stopped"),
        (NO_SESSION, BackendUnavailable, "lost the request"),
        (generating({"type": "song"}), InternalError, "no event"),
        (said("process_generating", output={"data": []}), InternalError, "no event"),
        ({"no": "message"}, InternalError, "no event"),
        (said("process_completed", output={"data": [1]}), BackendUnavailable, "ended too early"),
        ({"msg": "close_stream"}, BackendUnavailable, "ended too early"),
    ],
)
async def test_what_a_space_says_went_wrong_is_our_error(
    told: dict[str, Any], kind: type[CygnetError], text: str
) -> None:
    script = Script({"queue": stream(told)})
    with pytest.raises(kind, match=text.replace("[", r"\[") if "[31m" in text else text) as error:
        await script.run()
    assert type(error.value) is kind
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "info"),
    [
        (httpx.Response(200, json={"dependencies": []}), None),
        (httpx.Response(200, text="<html>"), None),
        (None, httpx.Response(200, json={"named_endpoints": {}})),
    ],
)
async def test_another_kind_of_space_is_told(
    config: httpx.Response | None, info: httpx.Response | None
) -> None:
    given = {"config": config, "info": info}
    script = Script({name: answer for name, answer in given.items() if answer})
    with pytest.raises(BackendUnavailable, match="no Cygnet Space"):
        await script.run()
    assert script.called("call/generate") == 0


@pytest.mark.parametrize(
    ("stage", "healthy", "warm"),
    [("RUNNING", True, True), ("SLEEPING", True, False), ("PAUSED", False, False)],
)
async def test_the_status_is_the_hubs_word_and_wakes_nothing(
    stage: str, healthy: bool, warm: bool
) -> None:
    script = Script({"hub": started(stage)})
    backend = script.backend()
    status = await backend.status()
    await backend.aclose()
    assert (status.healthy, status.warm) == (healthy, warm)
    assert stage.lower() in status.detail
    assert {call.url.host for call in script.calls} == {"huggingface.co"}


@pytest.mark.parametrize("space", [SPACE, "http://swan-cygnet.hf.space/", "swan/cygnet"])
async def test_a_status_wakes_nothing_where_the_hub_cannot_say(space: str) -> None:
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.host)
        hosts = request.url.path.endswith("/host")
        return httpx.Response(200, json={"host": SPACE}) if hosts else httpx.Response(500)

    backend = SpaceBackend(space, "", HUB, httpx.MockTransport(answer))
    status = await backend.status()
    await backend.aclose()
    assert (status.healthy, status.warm) == (True, False)
    assert "would wake it" in status.detail and "OWNER/NAME" in status.detail
    assert set(calls) <= {"huggingface.co"}


@pytest.mark.parametrize(
    ("answers", "began"),
    [
        ({"config": httpx.ConnectError("no")}, False),
        ({"config": httpx.Response(503), "hub": started("SLEEPING")}, False),
        ({"call": httpx.Response(503, json={"detail": "Queue is full."})}, False),
        ({"call": httpx.ConnectError("no")}, False),
        ({"queue": stream(failed("ZeroGPU quota exceeded", "Wait"))}, False),
        ({"call": httpx.ReadError("lost"), "queue": httpx.ReadError("lost")}, True),
        ({"call": httpx.Response(200, text="<html>")}, True),
        ({"queue": httpx.Response(404)}, True),
        ({"queue": stream(NO_SESSION)}, True),
        ({"queue": stream(generating(Queued(position=0)), cut=True)}, True),
        ({"queue": stream({"msg": "unexpected_error", "message": "Stopped."})}, True),
    ],
)
async def test_an_error_says_whether_the_work_may_have_begun(
    answers: dict[str, Any], began: bool
) -> None:
    script = Script(answers)
    with pytest.raises(CygnetError) as error:
        await script.run(fail_fast=True)
    assert error.value.began is began
    assert script.called("call/generate") <= 1
    if not began:
        assert script.waits == []  # somebody else can be asked


async def test_to_stop_reading_stops_the_work_in_the_space(serve: Serve) -> None:
    held = HeldBackend(steps=1)
    with serve(held) as url:
        backend = SpaceBackend(url)
        async with aclosing(backend.generate(REQUEST)) as events:
            while not isinstance(await anext(events), Step):
                pass
        assert await asyncio.to_thread(held.stopped.get, timeout=10) == "a fox"
        await backend.aclose()
    assert held.stopped.empty()


async def test_who_waits_in_the_queue_sees_it_and_may_leave_it(serve: Serve) -> None:
    held = HeldBackend(steps=1)
    with serve(held, concurrency=1) as url:
        first, second = SpaceBackend(url), SpaceBackend(url)
        async with aclosing(first.generate(REQUEST)) as running:
            while not isinstance(await anext(running), Step):
                pass
            async with aclosing(second.generate(REQUEST)) as waiting:
                assert await anext(waiting) == Queued(position=0)
        await first.aclose()
        await second.aclose()
        assert await asyncio.to_thread(held.stopped.get, timeout=10) == "a fox"
    assert held.stopped.empty()


async def test_a_private_space_is_found_through_the_hub_with_a_token(serve: Serve) -> None:
    with serve(FakeBackend()) as url, running(Hub()) as hub:
        hub.spaces["swan/cygnet"] = Space(private=True, settings={}, host=url)
        backend = SpaceBackend("swan/cygnet", hub=hub.url)
        with pytest.raises(Unauthorised, match="HF_TOKEN"):
            await collect(backend.generate(REQUEST))
        await backend.aclose()
        for space in ("swan/cygnet", f"{hub.url}/spaces/swan/cygnet"):
            backend = SpaceBackend(space, HUB_TOKEN, hub.url)
            result, _ = await collect(backend.generate(REQUEST))
            assert result.request == REQUEST
            await backend.aclose()


async def test_a_key_that_is_named_for_an_address_goes_there_and_the_hubs_does_not(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backends.toml"
    monkeypatch.setenv("CYGNET_CONFIG", str(file))
    monkeypatch.setenv("MY_KEY", "right")
    monkeypatch.setenv("HF_TOKEN", "right")
    settings.cache_clear()
    with serve(FakeBackend(), keys=("right",)) as url:
        for variable, opens in (("MY_KEY", True), ("HF_TOKEN", False)):
            section = f'kind = "space"\naddress = "{url}"\nkey_variable = "{variable}"'
            file.write_text(f"[backends.mine]\n{section}")
            backend = open_backend(read_backends().find("mine"))
            if opens:
                assert (await collect(backend.generate(REQUEST)))[0].request == REQUEST
            else:
                with pytest.raises(Unauthorised):
                    await collect(backend.generate(REQUEST))
            await backend.aclose()


async def test_previews_come_through_as_they_are(serve: Serve) -> None:
    expected = [event async for event in FakeBackend().generate(REQUEST)]
    with serve(FakeBackend()) as url:
        backend = SpaceBackend(url)
        got = [event async for event in backend.generate(REQUEST)]
        await backend.aclose()
    assert [event for event in got if not isinstance(event, Queued)] == expected[1:]


def test_the_environment_says_which_space(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match="CYGNET_SPACE is not set"):
        find_backend("space")()
    monkeypatch.setenv("CYGNET_SPACE", "swan/cygnet")
    settings.cache_clear()
    assert find_backend("space")().name == "space"
