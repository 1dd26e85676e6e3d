"""Containers: started as inputs wait, watched, stopped; their output, and what their death means."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modal_proto import api_pb2 as pb

from tests.modal.local_modal.calls import CANCELLED
from tests.modal.local_modal.isolation import Isolation
from tests.modal.local_modal.outfit import prepare
from tests.modal.local_modal.records import App, Container, Function

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform

Result = pb.GenericResult
STOP_GRACE = 30.0
"""Seconds that a container has for its exit hooks."""
STARTUP = 300.0
"""Seconds that one has to start where its function does not say."""


class Containers:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._isolation = Isolation(platform.state, platform.options.python)
        self.by_id: dict[str, Container] = {}

    def alive(self, app: App | None = None) -> list[Container]:
        return [one for one in self.by_id.values() if app in (None, one.function.app)]

    def scale(self, function: Function) -> None:
        """Start the containers that the waiting inputs, and `min_containers`, call for."""
        options = self._platform.options
        if self._platform.closing or function.app.closed or options.describes:
            return
        wished = function.definition.autoscaler_settings
        alive = [one for one in function.containers if not one.stopping]
        demand = len(function.pending) + sum(len(one.running) for one in alive)
        floor = 0 if function.broken else wished.min_containers
        limit = min(wished.max_containers or options.max_containers, options.max_containers)
        wanted = min(max(math.ceil(demand / function.capacity), floor), limit)
        for _ in range(wanted - len(alive)):
            home = self._platform.state / "containers" / self._platform.new_id("box")
            container = Container(self._platform.new_id("ta"), function, home)
            self.by_id[container.id] = container
            function.containers.append(container)
            self._platform.spawn(self._run(container))

    async def _run(self, container: Container) -> None:
        """The life of one container, from its files to its exit."""
        function = container.function
        try:
            environment = prepare(self._platform, container)
            command = self._isolation.command(self._platform, container, environment)
        except OSError as error:
            text = f"the container could not be prepared: {error}"
            container.failure = Result(status=Result.GENERIC_STATUS_INIT_FAILURE, exception=text)
            self._exited(container, -1)
            return
        gpu = environment["LOCAL_MODAL_GPU"] or "none"
        detail = f"phase={environment['LOCAL_MODAL_PHASE']} gpu={gpu}"
        self._platform.happened("container.start", function, container.id, detail)
        stdout, stdout_reader = await self._open_log(container, pb.FILE_DESCRIPTOR_STDOUT)
        stderr, stderr_reader = await self._open_log(container, pb.FILE_DESCRIPTOR_STDERR)
        container.process = process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=container.home, start_new_session=True,
            preexec_fn=_die_with_parent, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
        )  # fmt: skip
        os.close(stdout)
        os.close(stderr)
        self._platform.spawn(self._watch_start(container, process))
        code = await process.wait()
        _signal(process, signal.SIGKILL)  # whatever the container left running
        await asyncio.wait([stdout_reader, stderr_reader], timeout=2)
        self._exited(container, code)

    async def _watch_start(self, container: Container, process: asyncio.subprocess.Process) -> None:
        seconds = container.function.definition.startup_timeout_secs or STARTUP
        if not await self._platform.changes.until(
            lambda: container.ready or process.returncode is not None, seconds
        ):
            text = f"Container {container.id} did not start within {seconds}s"
            container.failure = Result(status=Result.GENERIC_STATUS_INIT_FAILURE, exception=text)
            await self.stop([container], "startup timeout", grace=0)

    async def _open_log(
        self, container: Container, descriptor: pb.FileDescriptor.ValueType
    ) -> tuple[int, asyncio.Task[None]]:
        """A pipe for a container's output: its write end, and the task that reads it.

        asyncio's own pipes would hold up the end of the process until its last child has exited.
        """
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: protocol, os.fdopen(read_end, "rb"))
        return write_end, loop.create_task(self._read_log(container, reader, descriptor))

    async def _read_log(
        self,
        container: Container,
        stream: asyncio.StreamReader,
        descriptor: pb.FileDescriptor.ValueType,
    ) -> None:
        app, decoder = container.function.app, codecs.getincrementaldecoder("utf8")("replace")
        begun = ""  # a line that has not ended yet
        while data := await stream.read(65536):
            text = decoder.decode(data)
            if descriptor == pb.FILE_DESCRIPTOR_STDERR:
                container.stderr_tail = (container.stderr_tail + text)[-4000:]
            *lines, begun = (begun + text).split("\n")
            for line in lines if app.deployed else []:
                print(f"[{container.function.name} {container.id}] {line}", file=sys.stderr)
            log = pb.TaskLogs(data=text, timestamp=time.time(), file_descriptor=descriptor)
            batch = pb.TaskLogsBatch(
                task_id=container.id, function_id=container.function.id, items=[log]
            )
            self.add_log(app, batch)

    def add_log(self, app: App, batch: pb.TaskLogsBatch) -> None:
        app.logs.append(batch)
        batch.entry_id = str(len(app.logs))
        self._platform.changes.tell()

    def _exited(self, container: Container, code: int) -> None:
        """Settle the inputs of a container that is gone."""
        function, calls = container.function, self._platform.calls
        function.containers.remove(container)
        del self.by_id[container.id]
        detail = f"code={code} {container.stopping}".strip()
        self._platform.happened("container.exit", function, container.id, detail)
        text = (
            f"Container {container.id} of {function.name} exited with code {code}. "
            f"The end of its stderr:\n{container.stderr_tail.strip()[-2000:]}"
        )
        failure = container.failure or Result(status=Result.GENERIC_STATUS_FAILURE, exception=text)
        if not container.ready and (container.failure or not container.stopping):
            function.broken = True  # the next would not start either
            while function.pending:
                calls.finish(function.pending.popleft(), failure)
        left = [one for one in container.running.values() if one.container is container]
        interrupted = container.stopping or any(one.cancelled for one in left)
        for item in [one for one in left if not one.done]:
            if item.cancelled:
                calls.finish(item, CANCELLED)
            elif interrupted:  # not this input's fault
                calls.enqueue(item)
            else:
                calls.finish(item, failure)
        container.running.clear()
        shutil.rmtree(container.home, ignore_errors=True)
        self.scale(function)
        self._platform.changes.tell()

    async def stop(
        self, containers: Sequence[Container], why: str, grace: float = STOP_GRACE
    ) -> None:
        """Idle containers leave by themselves, busy ones are interrupted; then they are killed."""
        for container in containers:
            if not container.stopping:
                container.stopping = why
                self._platform.happened("container.stop", container.function, container.id, why)
            if container.process and not container.ready:
                _signal(container.process, signal.SIGKILL)
            elif container.process and container.running and grace:
                _signal(container.process, signal.SIGINT)
        self._platform.changes.tell()

        def gone() -> bool:
            return not any(one.id in self.by_id for one in containers)

        if await self._platform.changes.until(gone, grace):
            return
        for container in containers:
            if container.id in self.by_id and container.process:
                _signal(container.process, signal.SIGKILL)
        await self._platform.changes.until(gone, 10)

    def forget_links(self) -> None:
        self._isolation.forget_links()


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    """To a container and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _die_with_parent() -> None:
    """Have the kernel kill this process when the stand-in dies, however that happens."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
