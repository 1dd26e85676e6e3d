"""A stand-in for the Hugging Face Hub on the loopback: as much of it as a Space needs.

It keeps repositories in memory and speaks what huggingface_hub speaks: repositories, settings, trees,
preupload, LFS batches and commits, with git's and LFS's own digests.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.api.server import listen

TOKEN = "hf_a_token_that_may_write"
LARGE = 1_000_000
"""Bytes from which a file is stored as a large one; the real Hub also goes by its name."""


@dataclass
class Space:
    """One repository: its files, and what it was told to be."""

    private: bool
    settings: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    """What each commit did, a word and a path for each file."""
    stage: str = "RUNNING"
    host: str = ""


class Hub:
    """`spaces` is what there is, `calls` what was asked, `fail` the next answers instead of ours."""

    def __init__(self) -> None:
        self.url = ""
        self.spaces: dict[str, Space] = {}
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, list[str]] = {}
        """The files of each `repository@revision`."""
        self.calls: list[str] = []
        self.fail: dict[str, Response] = {}
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=_METHODS)])

    def uploads(self) -> list[str]:
        """The calls that carried something into a repository."""
        return [call for call in self.calls if call.startswith("PUT /lfs") or "/commit/" in call]

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        self.calls.append(f"{request.method} {path}")
        if failure := self.fail.pop(path, None):
            return failure
        if path.startswith("/lfs/"):
            self.blobs[path.removeprefix("/lfs/")] = await request.body()
            return Response()
        if path == "/api/validate-yaml":
            return JSONResponse({"errors": [], "warnings": []})
        allowed = request.headers.get("authorization") == f"Bearer {TOKEN}"
        if path.startswith("/api/models/") and "/tree/" in path:
            repository, _, revision = path.removeprefix("/api/models/").partition("/tree/")
            files = self.models.get(f"{repository}@{revision}", [])
            return JSONResponse([_file(path, b"") for path in files])
        if path == "/api/repos/create":
            return self._create(await request.json()) if allowed else _refused()
        owner, name, what = _space_path(path)
        space = self.spaces.get(f"{owner}/{name}")
        if space is None or (space.private and not allowed):
            return _refused() if space else _missing()
        if request.method != "GET" and not allowed:
            return _refused()
        return await self._about(space, f"{owner}/{name}", what, request)

    def _create(self, asked: dict[str, Any]) -> Response:
        name = f"{asked['organization']}/{asked['name']}"
        assert (asked["type"], asked["sdk"]) == ("space", "gradio")
        if name in self.spaces:
            return JSONResponse({"error": "You already created this Space"}, 409)
        settings = {
            "hardware": asked.get("hardware", "cpu-basic"),
            "sleep": asked.get("sleepTimeSeconds"),
        }
        self.spaces[name] = Space(
            asked.get("visibility") == "private" or asked.get("private") is True,
            settings,
            {
                ".gitattributes": b"*.safetensors filter=lfs\n",
                "README.md": b"---\nsdk: gradio\n---\n",
            },
            variables={one["key"]: one["value"] for one in asked.get("variables", ())},
            secrets={one["key"]: one["value"] for one in asked.get("secrets", ())},
        )
        return JSONResponse({"url": f"{self.url}/spaces/{name}", "id": name})

    async def _about(self, space: Space, name: str, what: str, request: Request) -> Response:
        asked = await request.json() if _holds_json(request) else {}
        match what.split("/")[0]:
            case "":
                return JSONResponse({"id": name, "private": space.private, "sha": "0" * 40})
            case "host":
                return JSONResponse({"host": space.host})
            case "settings":
                space.private = asked.get("visibility", asked.get("private")) in ("private", True)
            case "hardware":
                space.settings["hardware"] = asked["flavor"]
            case "sleeptime":
                space.settings["sleep"] = asked["seconds"]
            case "variables" if asked:
                space.variables[asked["key"]] = asked["value"]
            case "secrets":
                space.secrets[asked["key"]] = asked["value"]
            case "tree":
                return JSONResponse([_entry(space, path) for path in sorted(space.files)])
            case "preupload":
                return JSONResponse({"files": [_mode(one) for one in asked["files"]]})
            case "info":
                return JSONResponse({"objects": [self._upload(one) for one in asked["objects"]]})
            case "commit":
                self._commit(space, await request.body())
                url = f"{self.url}/spaces/{name}/commit/1"
                return JSONResponse({"commitUrl": url, "commitOid": "1" * 40})
        if what == "variables":
            return JSONResponse({key: {"value": value} for key, value in space.variables.items()})
        return JSONResponse(
            {
                "stage": space.stage,
                "hardware": {"current": None, "requested": space.settings["hardware"]},
                "gcTimeout": space.settings["sleep"],
            }
        )

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What an LFS batch says of one object: where to put it, unless it is there."""
        if asked["oid"] in self.blobs:
            return asked
        return asked | {"actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}

    def _commit(self, space: Space, body: bytes) -> None:
        done = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "file":
                    space.files[value["path"]] = base64.b64decode(value["content"])
                    space.large.discard(value["path"])
                case "lfsFile":
                    data = self.blobs[value["oid"]]
                    assert hashlib.sha256(data).hexdigest() == value["oid"]
                    space.files[value["path"]] = data
                    space.large.add(value["path"])
                case "deletedFile":
                    del space.files[value["path"]]
                case _:
                    continue
            done.append(f"{line['key']} {value['path']}")
        space.commits.append(done)


_METHODS = ["GET", "POST", "PUT", "DELETE"]


def _space_path(path: str) -> tuple[str, str, str]:
    """Owner, name and the rest, of the API's paths and of git's."""
    parts = path.removeprefix("/api").removeprefix("/spaces/").split("/", 2)
    owner, name = (*parts, "", "")[:2]
    return owner, name.removesuffix(".git"), parts[2] if len(parts) > 2 else ""


def _holds_json(request: Request) -> bool:
    return "json" in request.headers.get("content-type", "").replace("x-ndjson", "")


def _mode(asked: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if asked["size"] >= LARGE else "regular"
    return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}


def _entry(space: Space, path: str) -> dict[str, Any]:
    data = space.files[path]
    entry = _file(path, data)
    if path in space.large:
        pointer = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entry["lfs"] = pointer
    return entry


def _file(path: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return {"type": "file", "path": path, "size": len(data), "oid": digest}


def _refused() -> Response:
    return JSONResponse({"error": "Invalid credentials"}, 401)


def _missing() -> Response:
    headers = {"X-Error-Code": "RepoNotFound"}
    return JSONResponse({"error": "Repository not found"}, 404, headers)


@contextlib.contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serves it from a thread, because the Hub's own client blocks."""
    with listen("127.0.0.1", 0) as listener:
        hub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(hub.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join(timeout=10)
