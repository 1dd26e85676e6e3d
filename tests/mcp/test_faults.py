"""What goes wrong between a backend and its server, as a client of MCP meets it.

The network's faults, and what has to come of each, are those of the backends' own tests.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from mcp import Client

from shared.backends.api_client import ApiBackend
from shared.backends.config import AUTO, BackendConfig, Backends, Limits
from shared.backends.ledger import Ledger
from shared.backends.router import Router
from shared.gallery import Gallery
from shared.images import read_recipe
from shared.mcp.server import create_server
from tests.api.conftest import HeldBackend, Serve
from tests.api.conftest import serve as serve_api
from tests.backends.faulty_network import faulty
from tests.backends.test_faults import CASES, KEY, Case, two_backends
from tests.mcp.conftest import data, images, words

__all__ = ["serve_api"]

pytestmark = pytest.mark.anyio

WISH = {"prompt": "a private wish", "seed": 7, "steps": 2}


def willing() -> HeldBackend:
    backend = HeldBackend()
    backend.go.set()
    return backend


@pytest.mark.parametrize("asked", ["studio", AUTO])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_fault_is_a_picture_or_an_error_with_a_next_step_and_no_work_is_done_twice(
    case: Case,
    asked: str,
    serve_api: Serve,
    gallery: Gallery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ApiBackend, "timeout", httpx.Timeout(case.patience))
    studio, spare = willing(), willing()
    expected = case.auto if asked == AUTO else case.named or "studio"
    async with (
        serve_api(studio, keys=(KEY,), grace=0) as server,
        faulty(server.url, case.fault) as way,
        asyncio.timeout(60),
    ):
        router = two_backends(way.url, spare, tmp_path / "spent")
        async with Client(create_server(router, gallery)) as client:
            answer = await client.call_tool("generate_image", WISH | {"backend": asked})
        await router.aclose()
        server.client.headers["Authorization"] = f"Bearer {KEY}"
        jobs = (await server.client.get("/v1/jobs")).json()["data"]
    if isinstance(expected, str):
        told = data(answer)
        assert told["backend"] == expected
        assert f"on {expected}" in words(answer)
        assert ("studio did not serve" in words(answer)) == (expected == "spare")
        assert read_recipe(gallery.read(gallery.search()[0])).fields["seed"] == 7
        assert len(images(answer)) == 1
    else:
        assert answer.is_error
        assert "Next: " in words(answer)
        assert f"(error code: {expected.code})" in words(answer)
        assert gallery.search() == []
    assert len(jobs) == (case.jobs if expected != "spare" else 0)
    assert len(spare.started) == (expected == "spare")
    assert len(studio.started) <= 1
    assert KEY not in str(answer) + caplog.text
    assert "private wish" not in words(answer) + caplog.text


@pytest.mark.parametrize("asked", ["studio", AUTO])
async def test_a_server_that_refuses_connections_is_named_or_passed_over(
    asked: str, gallery: Gallery, tmp_path: Path
) -> None:
    router = two_backends("http://127.0.0.1:9", willing(), tmp_path / "spent")
    async with Client(create_server(router, gallery)) as client:
        answer = await client.call_tool("generate_image", WISH | {"backend": asked})
        rows = data(await client.call_tool("list_backends"))["backends"]
    await router.aclose()
    if asked == AUTO:
        assert data(answer)["backend"] == "spare"
        assert "studio did not serve: The server does not answer." in words(answer)
    else:
        assert answer.is_error and "(error code: backend_unavailable)" in words(answer)
    assert {row["name"]: row["healthy"] for row in rows} == {"studio": False, "spare": True}


async def test_what_would_cost_too_much_is_refused_with_the_figure(
    gallery: Gallery, tmp_path: Path
) -> None:
    studio, limits = willing(), Limits(per_image=0.1)
    known = {"studio": BackendConfig(name="studio", kind="modal", price=0.5)}
    router = Router(
        Backends(known, tuple(known), tuple(known), limits),
        ledger=Ledger(tmp_path / "spent", limits),
        open=lambda config, how: studio,
    )
    async with Client(create_server(router, gallery)) as client:
        answer = await client.call_tool("generate_image", WISH | {"backend": "studio"})
    await router.aclose()
    assert answer.is_error and "(error code: spending_limit)" in words(answer)
    assert "$0.50" in words(answer) and "$0.10" in words(answer)
    assert studio.started == []
