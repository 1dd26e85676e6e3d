"""No path of a client's is opened: not at any function of the page, in any nesting, through any route.

Tried on `cygnet serve` as it is without a key, with keys, and on the Space as Spaces start it. What is tried
is what the page itself says that it has, so that a new part of it is tried on the day it is added.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.api import ApiOptions
from shared.backends.fake import FakeBackend
from shared.backends.fake import draw as fake_draw
from shared.contract import parse_request
from shared.images import encode_image
from shared.site import create_site
from tests.mcp.conftest import routed
from tests.space.doors import ROOT, SERVE, Door, door, environment
from tests.space.routes import function_of, functions, routes

__all__ = ["door"]

pytestmark = pytest.mark.slow


def paths(door: Door, upload: str) -> list[str]:
    """Names of the secret, and of what the server keeps."""
    secret = str(door.secret)
    kept = str(door.data / "page" / upload)
    return [
        secret,
        os.path.relpath(secret),
        str(door.folder / "link"),
        str(door.folder / "above" / "secret.txt"),
        f"{door.data}/page/../../{door.secret.name}",
        f"{kept}/../../../../{door.secret.name}",
        f"{upload}/../../../../{door.secret.name}",
        f"file://{secret}",
        f"FILE://localhost{secret}",
        secret.replace("/", "%2f"),
        f"/{secret}",
        f"//localhost{secret}",
        f"\\\\localhost\\{secret}",
        f"{secret}\0.png",
        f"{secret} ",
        f"{door.client.base_url}/healthz",
        "http://169.254.169.254/latest/meta-data/",
        str(door.data / "jobs.sqlite3"),
        "/proc/self/environ",
        kept,
        f"{upload}/",
        f"./{upload}",
        upload.replace("/", "//"),
        f"{upload.partition('/')[0]}/x",
        upload.partition("/")[0],
        upload.upper(),
        "",
    ]


Nest = Callable[[Any], Any]
NESTS: list[Nest] = [
    lambda file: file,
    lambda file: [file],
    lambda file: [[file, "a caption"]],
    lambda file: {"value": file},
    lambda file: {"files": [file], "text": ""},
    lambda file: {"background": file, "layers": [file], "composite": file},
    lambda file: {"image": file, "caption": None},
    lambda file: {"path": file},
    lambda file: {"a": [{"b": [[{"c": file}]]}]},
]
META = {"_type": "gradio.FileData"}


def forms(path: str) -> list[Any]:
    """A file as some part of Gradio's takes one."""
    return [
        {"path": path, "meta": META},
        {"path": path},
        {"path": path, "url": path, "orig_name": "x.png", "is_stream": True, "meta": META},
        {"url": path, "meta": META},
        {"path": None, "url": path},
        {"path": [path], "meta": META},
    ]


def upload(client: httpx.Client, data: bytes = b"x", **options: Any) -> str:
    sent = client.post("/gradio_api/upload", files={"files": ("x.png", data)}, **options)
    assert sent.status_code == 200, sent.text
    return sent.json()[0]


def call(number: int, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"data": data, "fn_index": number, "session_hash": "x"} | more


def test_a_path_gives_nothing_at_any_function_of_the_page(door: Door) -> None:
    mine = upload(door.client)
    named = paths(door, mine)
    for one in functions(door.client):
        inputs = max(1, len(one["inputs"]))
        tries = [forms(path)[0] for path in named]
        tries += [nest(forms(named[0])[0]) for nest in NESTS]
        tries += forms(named[0])[1:]
        for number, tried in enumerate(tries):
            body = call(one["id"], [tried] * inputs)
            if number % 3 == 1:
                body = call(one["id"], [None] * inputs, event_data={"key": tried})
            if number % 3 == 2:
                body = call(one["id"], [None] * inputs, trigger=tried)
            answer = door.client.post("/gradio_api/run/predict", json=body)
            assert 400 <= answer.status_code < 500, (one["id"], tried, answer.text)
            assert not door.has_told(answer)
        for route in ("queue/join", f"call/{one['api_name']}", f"api/{one['api_name']}"):
            answer = door.client.post(f"/gradio_api/{route}", json=call(one["id"], [tries[0]]))
            assert 400 <= answer.status_code < 500, (route, answer.text)
            answer = door.client.post(
                f"/gradio_api/call/v2/{one['api_name']}", json={"x": tries[0]}
            )
            assert 400 <= answer.status_code < 500
    assert not door.copies()


async def another(folder: Path) -> FastAPI:
    """A site of which the routes are known; Gradio wants to be made in a loop."""
    return create_site(routed(FakeBackend()), folder / "another", ApiOptions())


def test_a_path_gives_nothing_at_any_route(door: Door, tmp_path: Path) -> None:
    mine = upload(door.client)
    named = paths(door, mine)
    site = asyncio.run(another(tmp_path))
    for path in (named[0], named[2], named[4], named[6], named[10], "..%2f..%2fsecret.txt"):
        quoted = path.replace("\0", "%00")
        for route in sorted({*routes(site, quoted), f"/gradio_api/file={quoted}"}):
            if (
                "healthz" in route
                or "readyz" in route
                or "metrics" in route
                or "heartbeat" in route
            ):
                continue  # these read nothing, and the last never ends
            answer = door.client.get(route, params={"path": path, "deep_link": path, "page": path})
            assert not door.has_told(answer)
            file = forms(path)[0]
            bodies: list[dict[str, Any]] = [
                {"json": {"data": [file], "component_id": 1, "fn_name": "x", "session_hash": "x"}},
                {"json": file},
                {"data": {"data": json.dumps(file), "component_id": "1", "fn_name": "x"}},
                {"files": {"files": (path.replace("\0", ""), b"x"), "video": ("x.mp4", b"x")}},
            ]
            for body in bodies:
                if "/login" in route or route.startswith(("/v1", "/mcp")):
                    continue  # no part of the page
                with contextlib.suppress(httpx.ReadError, httpx.WriteError):  # hung up on
                    assert not door.has_told(door.client.post(route, **body))
    for path in named:
        for quoted in (path, path.replace("/", "%2F")):
            quoted = quoted.replace("\0", "%00").replace("\\", "%5C") or "x"
            got = door.client.get(f"/gradio_api/file={quoted}")
            assert got.status_code in (403, 404), (quoted, got.text)
            assert not door.has_told(got)
    assert not door.copies()


def test_an_upload_of_the_visitors_own_may_be_named_and_nobody_elses(door: Door) -> None:
    request = parse_request({"prompt": "a tulip", "seed": 77})
    picture = encode_image(fake_draw(77, 256, 256), request, None)
    mine = upload(door.client, picture)
    restore = function_of(door.client, "upload")
    mention = call(restore, forms(mine)[:1])

    answer = door.client.post("/gradio_api/run/predict", json=mention)
    assert answer.status_code == 200, answer.text
    assert "a tulip" in answer.text and str(door.data) not in answer.text

    for other in ({"Authorization": "Bearer other"}, {"Cookie": "cygnet-visitor=x.y"}, {}):
        with httpx.Client(base_url=door.client.base_url, headers=other, timeout=60) as stranger:
            answer = stranger.post("/gradio_api/run/predict", json=mention)
            if door.keys or door.is_public:
                assert answer.status_code in (401, 404), answer.text
                assert "a tulip" not in answer.text
            else:  # whoever uses this machine is one and the same
                assert answer.status_code == 200


def test_what_is_uploaded_is_given_out_to_nobody(door: Door) -> None:
    page = upload(door.client, b"<script>alert(1)</script>")
    for address in (page, str(door.data / "page" / page)):
        assert door.client.get(f"/gradio_api/file={address}").status_code == 404


def test_what_the_page_gives_out_has_no_path_of_this_machine(door: Door) -> None:
    [one] = [one for one in functions(door.client) if one["api_name"] == "generate"]
    asked = {"data": ["a fox", *[None] * (len(one["inputs"]) - 1)]}
    event = door.client.post("/gradio_api/call/generate", json=asked).json()["event_id"]
    told = door.client.get(f"/gradio_api/call/generate/{event}").text
    [line] = [line for line in told.splitlines() if '"image"' in line]
    [event] = json.loads(line.removeprefix("data: "))
    assert str(door.data) not in told
    assert door.client.get(event["image"]["url"]).content.startswith(b"\x89PNG")
    assert door.client.get(f"/gradio_api/file={event['image']['path']}").is_success


def test_the_data_folders_database_stays_this_processs_own(door: Door) -> None:
    # Whoever opens and closes the file in the same process lets go of SQLite's lock on it.
    number = function_of(door.client, "upload")
    for name in ("jobs.sqlite3", "gallery/gallery.sqlite3"):
        file = forms(str(door.data / name))[0]
        door.client.post("/gradio_api/run/predict", json=call(number, [file]))
        door.client.get(f"/gradio_api/file={door.data / name}")
    ran = subprocess.run(
        [*SERVE, "0"], env=environment(door.data),
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert ran.returncode and "Another process uses" in ran.stderr
