"""What makes no sense is refused as the caller's fault, whatever part of Gradio reads it: no 500, no
traceback in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.space.doors import Door, door
from tests.space.routes import functions

__all__ = ["door"]

pytestmark = pytest.mark.slow

VALUES: list[Any] = [
    None,
    [1],
    {"a": [{}]},
    "x",
    "x" * 10_000,
    "\ud83e",
    -1,
    1e308,
    10**300,
    True,
    [[[[[]]]]],
    "1x1",
    "../../x",
]
BODIES = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"data": null}',
    b'{"data": {}, "fn_index": 0}',
    b'{"data": [], "fn_index": "x"}',
    b'{"data": [], "fn_index": 9999, "session_hash": "x"}',
    b'{"data": [], "fn_index": -1, "session_hash": "x"}',
    b'{"data": [], "fn_index": 1.5, "session_hash": "x"}',
    b'{"data": [], "fn_index": 2, "session_hash": ["x"]}',
    b'{"data": [], "fn_index": 2, "session_hash": "x", "trigger_id": {"a": 1}}',
    b'{"data": [], "fn_index": 2, "session_hash": "x", "batched": true}',
    b'{"data": [NaN], "fn_index": 2, "session_hash": "x"}',
    b'{"data": [1e999], "fn_index": 2, "session_hash": "x"}',
    b'{"data": [' + b"9" * 5000 + b'], "fn_index": 2}',
    b"[" * 100_000,
    b'{"data":' * 5000 + b"1" + b"}" * 5000,
    b"\xff\xfe{}",
    b"\x00",
    b'{"nonsense": 1}',
]
PATHS = [
    "run/predict",
    "run/nothing",
    "api/predict",
    "call/generate",
    "call/nothing",
    "call/v2/generate",
    "call/v2/nothing",
    "queue/join",
    "cancel",
    "reset",
    "upload",
    "component_server",
    "stream/x",
    "process_recording",
    "vibe-edit",
]


@pytest.fixture(autouse=True)
def quiet_log(door: Door) -> Iterator[None]:
    """Nothing in the log but a line or two for each call."""
    before = len(door.log.read_text())
    yield
    said = door.log.read_text()[before:]
    assert "Traceback" not in said and '"ERROR"' not in said, said[-3000:]


def refused(answer: httpx.Response) -> bool:
    return 400 <= answer.status_code < 500


def test_no_function_of_the_page_fails_for_what_it_is_sent(door: Door) -> None:
    for one in functions(door.client):
        count = len(one["inputs"])
        for value in VALUES:
            for data in ([value] * count, [value], [value] * (count + 3), []):
                body = {"data": data, "fn_index": one["id"], "session_hash": "x"}
                sent = json.dumps(body | {"event_data": value, "trigger_id": 1})
                answer = door.client.post(
                    "/gradio_api/run/predict",
                    content=sent,
                    headers={"Content-Type": "application/json"},
                )
                assert answer.status_code == 200 or refused(answer), (sent[:300], answer.text)
                assert str(door.data) not in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_makes_no_sense_is_refused(door: Door, path: str) -> None:
    kinds = ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/x")
    for body in BODIES:
        for kind in kinds:
            answer = door.client.post(
                f"/gradio_api/{path}", content=body, headers={"Content-Type": kind}
            )
            # Nothing is there to cancel; and what waits its turn is refused in its stream.
            may_pass = path in ("cancel", "reset", "call/generate", "queue/join")
            passed = may_pass and answer.status_code == 200
            assert refused(answer) or passed, (body[:100], kind, answer.status_code, answer.text)


def test_events_that_are_not_there_are_not_found(door: Door) -> None:
    nobodys = "queue/data?session_hash=nobodys", "call/generate/nobodys", "call/v2/x/nobodys"
    for path in ("queue/data", *nobodys):
        assert door.client.get(f"/gradio_api/{path}").status_code in (404, 422)


def test_an_upload_without_a_file_is_refused(door: Door) -> None:
    tries: tuple[dict[str, Any], ...] = ({"data": {"files": "null"}}, {"files": {"other": b"x"}})
    for sent in tries:
        assert refused(door.client.post("/gradio_api/upload", **sent))
