"""What is refused before any work, and how; and what needs no work at all."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from shared.backends.fake import FakeBackend
from shared.checkpoints import CHECKPOINTS
from tests.api.conftest import HeldBackend, Serve, Server

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    assert told["request_id"] == answer.headers["x-request-id"]
    assert told["type"] == f"urn:cygnet:error:{told['code']}"
    assert told["detail"] and told["next_step"]
    return told


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"prompt=fox", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'"fox"', JSON, 400),
        (b'{"prompt": "\xff"}', JSON, 400),
        ('{"prompt": "fox"}'.encode("utf-16"), JSON, 400),
        (b'{"prompt": "fox", "seed": NaN}', JSON, 400),
        (b'{"prompt": "fox", "seed": ' + b"9" * 5000 + b"}", JSON, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON, 400),
        (b'{"prompt": "' + b"x" * 10 * 2**20 + b'"}', JSON, 413),
        (b"{}", JSON, 422),
        (b'{"prompt": ""}', JSON, 422),
        (b'{"prompt": "fox", "steps": 1e3}', JSON, 422),
        (b'{"prompt": "fox", "\\ud800": 1}', JSON, 422),
        (b'{"prompt": "fox", "checkpoint": "\\ud800"}', JSON, 422),
        (b'{"prompt": "fox", "checkpoint": "../../etc/passwd"}', JSON, 422),
        (b'{"prompt": "fox", "width": [[[1]]]}', JSON, 422),
    ],
)
async def test_a_body_that_is_no_request_is_refused_with_a_reason(
    server: Server, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await server.client.post("/v1/jobs", content=body, headers=headers)
    assert answer.status_code == status
    assert "sys." not in problem(answer)["detail"]
    assert (await server.client.get("/v1/jobs")).json()["data"] == []


async def test_a_body_that_does_not_say_how_long_it_is_has_the_same_limit(server: Server) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    answer = await server.client.post("/v1/jobs", content=pieces(), headers=JSON)
    assert (answer.status_code, problem(answer)["code"]) == (413, "invalid_call")


async def test_a_refused_field_is_named_with_the_nearest_value(server: Server) -> None:
    answer = await server.client.post("/v1/jobs", json={"prompt": "fox", "steps": 500})
    told = problem(answer)
    assert (told["code"], told["fields"]) == ("invalid_request", ["steps"])
    assert "Use steps=100." in told["next_step"]


@pytest.mark.parametrize(
    "path", ["/v1/jobs/x", "/v1/jobs/x/events", "/v1/images/x", "/v1/models/x"]
)
async def test_what_is_not_there_is_not_found(server: Server, path: str) -> None:
    answer = await server.client.get(path)
    assert (answer.status_code, problem(answer)["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", ["..%2f..%2fjobs.sqlite3", "..", "%00", "a%2fb", "%ff%fe"])
async def test_the_id_of_an_image_leads_to_no_other_file(server: Server, name: str) -> None:
    answer = await server.client.get(f"/v1/images/{name}")
    assert answer.status_code in (404, 405)
    problem(answer)


async def test_a_wrong_path_or_method_is_a_problem_too(server: Server) -> None:
    for method, path, status in (("GET", "/v2", 404), ("PUT", "/v1/jobs", 405)):
        answer = await server.client.request(method, path)
        assert (answer.status_code, problem(answer)["code"]) == (status, "invalid_call")


async def test_a_fault_of_ours_is_logged_and_told_as_one_with_the_calls_id(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(server.runner, "job", broken)
    with caplog.at_level(logging.INFO, "shared.api.request_log"):
        answer = await server.client.get("/v1/jobs/x", headers={"X-Request-Id": "mine"})
    told = problem(answer)
    assert (answer.status_code, told["code"]) == (500, "internal_error")
    assert told["request_id"] == "mine"
    assert "a secret" not in answer.text
    calls = [vars(record)["fields"] for record in caplog.records if record.message == "call"]
    assert [(call["request_id"], call["status"]) for call in calls] == [("mine", 500)]
    counted = (await server.client.get("/metrics")).text
    assert 'route="/v1/jobs/{job}",status="500"} 1.0' in counted


async def test_the_reference_loads_nothing_from_elsewhere(server: Server) -> None:
    page = (await server.client.get("/docs")).text
    named = re.findall(r"""(?:src|href|url)["']?[=:] *["']([^"']+)""", page)
    assert {"/openapi.json", "/static-offline-docs/swagger-ui-bundle.js"} < set(named)
    for path in named:
        assert path.startswith("/") and (await server.client.get(path)).status_code == 200
    assert "//" not in page.replace("window.location.origin + '/", "")


async def test_with_keys_every_call_that_shows_or_does_something_needs_one(serve: Serve) -> None:
    keys = ("first-key", "second-key")
    async with serve(FakeBackend(), keys=keys) as server:
        calls = [
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs"),
            ("GET", "/v1/jobs/x"),
            ("DELETE", "/v1/jobs/x"),
            ("GET", "/v1/jobs/x/events"),
            ("GET", "/v1/images/x"),
            ("GET", "/v1/models"),
        ]
        wrong = ["", "Bearer", "Bearer first-ke", "Basic first-key", "first-key", "Bearer \xff"]
        for method, path in calls:
            for value in wrong:
                headers = {b"Authorization": value.encode("latin-1")}
                answer = await server.client.request(method, path, headers=headers)
                assert (answer.status_code, problem(answer)["code"]) == (401, "unauthorised")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "first-key" not in answer.text
        for key in keys:
            headers = {"Authorization": f"Bearer {key}"}
            assert (await server.client.get("/v1/jobs", headers=headers)).status_code == 200
        for path in ("/healthz", "/readyz"):
            for method in ("GET", "HEAD"):
                assert (await server.client.request(method, path)).status_code == 200
    assert "first-key" not in repr(server.runner.options)


async def test_a_key_sees_its_own_jobs_and_images_only(serve: Serve) -> None:
    async with serve(FakeBackend(), keys=("one", "two")) as server:
        one, two = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
        server.client.headers.update(one)
        job = await server.ended((await server.post())["id"])
        image = f"/v1/images/{job['images'][0]['id']}"
        assert (await server.client.get(image)).status_code == 200
        for path in (f"/v1/jobs/{job['id']}", image):
            assert (await server.client.get(path, headers=two)).status_code == 404
        assert (await server.client.delete(f"/v1/jobs/{job['id']}", headers=two)).status_code == 404
        assert (await server.client.get("/v1/jobs", headers=two)).json()["data"] == []


async def test_where_strangers_may_call_a_job_is_for_who_knows_its_id(serve: Serve) -> None:
    async with serve(FakeBackend(), hosts=()) as server:
        job = await server.ended((await server.post())["id"])
        listed = await server.client.get("/v1/jobs")
        assert (listed.status_code, problem(listed)["code"]) == (401, "unauthorised")
        assert job["id"] not in listed.text and "Keep the id" in listed.text
        assert (await server.client.get(f"/v1/jobs/{job['id']}")).json() == job
    assert len(bytes.fromhex(job["id"])) == 16


async def test_a_host_name_that_is_not_the_servers_is_refused(serve: Serve) -> None:
    async with serve(FakeBackend(), hosts=("127.0.0.1", "localhost")) as server:
        assert (await server.client.get("/v1/jobs")).status_code == 200
        answer = await server.client.get("/v1/jobs", headers={"Host": "evil.example"})
        assert answer.status_code == 421
        problem(answer)


async def test_a_web_page_may_call_only_from_the_origins_that_are_configured(serve: Serve) -> None:
    page = {"Origin": "https://page.example"}
    async with serve(FakeBackend()) as server:
        answer = await server.client.get("/v1/jobs", headers=page)
        assert "access-control-allow-origin" not in answer.headers
    async with serve(FakeBackend(), origins=("https://page.example",)) as server:
        answer = await server.client.get("/v1/jobs", headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


async def test_a_sane_request_id_comes_back_and_another_is_replaced(server: Server) -> None:
    for given, kept in (("abc-1", True), ("", False), ("a b", False), ("x" * 65, False)):
        answer = await server.client.get("/healthz", headers={"X-Request-Id": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.headers["x-request-id"]


async def test_an_image_is_sent_once_to_who_keeps_it(server: Server, backend: HeldBackend) -> None:
    backend.go.set()
    job = await server.ended((await server.post(output_format="webp"))["id"])
    url = job["images"][0]["url"]
    whole = await server.client.get(url)
    assert whole.headers["content-type"] == "image/webp"
    tags = {whole.headers["etag"]}
    for size in (128, 256, 512):
        small = await server.client.get(url, params={"size": size})
        tags.add(small.headers["etag"])
        assert small.headers["content-type"] == "image/jpeg"
        assert max(Image.open(BytesIO(small.content)).size) == min(size, 256)
    assert len(tags) == 4
    for seen in (whole.headers["etag"], f'"x", W/{whole.headers["etag"]}', "*"):
        again = await server.client.get(url, headers={"If-None-Match": seen})
        assert (again.status_code, again.content) == (304, b"")
    changed = await server.client.get(url, headers={"If-None-Match": '"x"'})
    assert changed.status_code == 200
    assert (await server.client.get(url, params={"size": 200})).status_code == 422


async def test_ready_is_another_thing_than_alive(serve: Serve) -> None:
    class Cold(FakeBackend):
        async def status(self) -> Any:
            return (await super().status()).model_copy(update={"warm": False})

    async with serve(Cold()) as server:
        assert (await server.client.get("/healthz")).json() == {"status": "ok"}
        answer = await server.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "ready": False,
            "detail": "The checkpoint is not loaded.",
            "queued": 0,
            "running": 0,
        }
    async with serve(FakeBackend()) as server:
        assert (await server.client.get("/readyz")).json()["ready"]


@pytest.mark.parametrize("what", ["disk", "quota", "folder"])
async def test_a_server_that_cannot_keep_a_picture_is_not_ready_until_it_can(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    usage = shutil.disk_usage(Path())

    def refuse(*_: object) -> None:
        raise OSError({"quota": errno.EDQUOT, "folder": errno.EROFS}[what], "No.")

    async with serve(FakeBackend()) as server:
        with monkeypatch.context() as disk:
            if what == "disk":
                disk.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
            else:
                disk.setattr(Path, "write_bytes", refuse)
            for method in ("GET", "HEAD"):
                answer = await server.client.request(method, "/readyz")
                assert answer.status_code == 503
            told = (await server.client.get("/readyz")).json()
            words = "cannot be written" if what == "folder" else "The disk is full."
            assert words in told["detail"] and not told["ready"]
            assert (await server.client.get("/healthz")).status_code == 200
            assert (await server.client.get("/v1/models")).json()["data"]
        assert (await server.client.get("/readyz")).status_code == 200


async def test_a_server_that_warms_up_draws_before_it_is_asked(
    serve: Serve, backend: HeldBackend
) -> None:
    async with serve(backend, warm_up=True) as server:
        await server.client.get("/healthz")
        assert backend.started == ["a swan"]
        assert server.runner.store.jobs("") == []


async def test_the_models_are_the_checkpoints(server: Server) -> None:
    models = (await server.client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == [checkpoint.name for checkpoint in CHECKPOINTS]
    one = (await server.client.get("/v1/models/cygnet-tiny")).json()
    assert one == models[0] | {"id": "cygnet-tiny"}


async def test_the_description_names_every_route_its_body_and_its_refusals(server: Server) -> None:
    document = (await server.client.get("/openapi.json")).json()
    create = document["paths"]["/v1/jobs"]["post"]
    assert {"202", "400", "401", "413", "415", "422", "429", "503"} <= create["responses"].keys()
    body = create["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["prompt"] and body["additionalProperties"] is False
    refusal = create["responses"]["422"]["content"]
    assert refusal == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(document["paths"])
    assert (await server.client.get("/docs")).status_code == 200
