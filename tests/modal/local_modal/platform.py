"""The platform: all that it knows, the servers by which it is reached, its start and its end."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import itertools
import shutil
import tempfile
import time
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web
from grpclib.server import Server
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.calls import Calls
from tests.modal.local_modal.changes import Changes
from tests.modal.local_modal.containers import Containers
from tests.modal.local_modal.endpoints import Endpoints
from tests.modal.local_modal.options import Options
from tests.modal.local_modal.records import App, Function, Secret
from tests.modal.local_modal.reports import say
from tests.modal.local_modal.service import make_service

HOST = "127.0.0.1"
CHUNK = 1 << 20


class Platform:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.state = Path(tempfile.mkdtemp(prefix="local_modal."))
        self.changes = Changes()
        self.timeline: list[dict[str, Any]] = []
        self.apps: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.images: dict[str, pb.Image] = {}
        self.mounts: dict[str, list[pb.MountFile]] = {}
        self.secrets: dict[str, Secret] = {}
        self.volumes: dict[str, str] = {}
        """Names by id; the folder of each has its id as name."""
        self.dicts: dict[str, dict[bytes, bytes]] = collections.defaultdict(dict)
        self.calls = Calls(self)
        self.containers = Containers(self)
        self.endpoints = Endpoints(self)
        self.closing = False
        self.url = self.blob_url = ""
        self._started = time.time()
        self._named: dict[tuple[str, str], str] = {}
        self._ids: dict[str, itertools.count[int]] = collections.defaultdict(
            lambda: itertools.count(1)
        )
        self._runners: list[web.AppRunner] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids[prefix])}"

    def named_id(self, prefix: str, name: str) -> str:
        """The id of a named object, made at its first use; what has no name is new each time."""
        if not name:
            return self.new_id(prefix)
        if (prefix, name) not in self._named:
            self._named[prefix, name] = self.new_id(prefix)
        return self._named[prefix, name]

    def happened(
        self, event: str, function: Function | None = None, task: str = "", detail: str = ""
    ) -> None:
        """Write down what happened, for the timeline."""
        self.timeline.append(
            {
                "t": round(time.time() - self._started, 3),
                "event": event,
                "function": function.name if function else "",
                "task": task,
                "detail": detail,
            }
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background; what goes wrong is shown."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            say("internal error:\n" + "".join(traceback.format_exception(error)))

    def file(self, sha256: str) -> Path:
        """An uploaded file."""
        return self.state / "files" / sha256

    def blob(self, blob: str) -> Path:
        """What is too large for a message."""
        return self.state / "blobs" / blob

    def volume(self, volume: str) -> Path:
        folder = self.state / "volumes" / volume
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    async def start(self) -> None:
        for folder in ("files", "blobs", "containers", "volumes"):
            (self.state / folder).mkdir()
        blobs = web.Application(client_max_size=0)
        blobs.router.add_put("/{id}", self._put_blob)
        blobs.router.add_get("/{id}", self._get_blob)
        self.blob_url = await self.serve(blobs)
        self._server = Server([make_service(self)])
        await self._server.start(HOST, 0)
        inner: Any = self._server._server  # grpclib has no public way to ask for the port
        self.url = f"http://{HOST}:{inner.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.closing = True
        await self.containers.stop(self.containers.alive(), "shutdown")
        for runner in self._runners:
            await runner.cleanup()
        self._server.close()
        await self._server.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        self.containers.forget_links()
        shutil.rmtree(self.state, ignore_errors=True)

    async def serve(self, application: web.Application) -> str:
        """Serve over HTTP at a port that is free; the address."""
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, HOST, 0).start()
        return f"http://{HOST}:{runner.addresses[0][1]}"

    async def _put_blob(self, request: web.Request) -> web.Response:
        digest = hashlib.md5()
        with self.blob(request.match_info["id"]).open("wb") as target:
            async for part in request.content.iter_chunked(CHUNK):
                digest.update(part)
                target.write(part)
        return web.Response(headers={"ETag": f'"{digest.hexdigest()}"'})

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self.blob(request.match_info["id"]))
