"""What a container's runtime asks and tells: heartbeats, the snapshot, inputs and results."""

from __future__ import annotations

import asyncio
import json
import time

from modal_proto import api_pb2 as pb

from tests.modal.local_modal.calls import CANCELLED
from tests.modal.local_modal.outfit import write_phase
from tests.modal.local_modal.records import Container
from tests.modal.local_modal.rpc import Handlers, nothing_to_do
from tests.modal.local_modal.rpc.inputs import LONG_POLL

HEARTBEAT = 14.0
"""Seconds; the container expects an answer within 15."""


class ContainerCalls(Handlers):
    ContainerHello = FunctionFinishInputs = nothing_to_do

    async def ContainerHeartbeat(
        self, request: object, container: Container
    ) -> pb.ContainerHeartbeatResponse:
        await self.platform.changes.until(lambda: container.cancels, HEARTBEAT)
        response = pb.ContainerHeartbeatResponse()
        if container.cancels:
            response.cancel_input_event.input_ids.extend(container.cancels)
            container.cancels = []
        return response

    async def ContainerCheckpoint(
        self, request: pb.ContainerCheckpointRequest, container: Container
    ) -> None:
        detail = request.checkpoint_id
        self.platform.happened("container.snapshot", container.function, container.id, detail)
        asyncio.get_running_loop().call_later(0.2, self._restore, container)

    def _restore(self, container: Container) -> None:
        """Tell a container that it was restored; its process just goes on."""
        if container.id not in self.platform.containers.by_id:
            return
        write_phase(container, "restored")
        state = {"task_id": container.id, "function_id": container.function.id}
        written = container.home / "restore-state.tmp"
        written.write_text(json.dumps(state))
        written.rename(container.home / "restore-state.json")
        self.platform.happened("container.restore", container.function, container.id)

    async def TaskResult(self, request: pb.TaskResultRequest, container: Container) -> None:
        """The container could not start, or its exit hooks failed."""
        container.failure = request.result
        detail = request.result.exception
        self.platform.happened("container.failed", container.function, container.id, detail)

    async def FunctionGetDynamicConcurrency(
        self, request: pb.FunctionGetDynamicConcurrencyRequest, container: Container
    ) -> pb.FunctionGetDynamicConcurrencyResponse:
        function = container.function
        full = len(function.containers) >= self.platform.options.max_containers
        crowded = full and function.pending
        concurrency = request.max_concurrency if crowded else request.target_concurrency
        return pb.FunctionGetDynamicConcurrencyResponse(concurrency=concurrency)

    async def FunctionGetInputs(
        self, request: pb.FunctionGetInputsRequest, container: Container
    ) -> pb.FunctionGetInputsResponse:
        function = container.function
        if not container.ready:
            container.ready, container.idle_since = True, time.monotonic()
            function.broken = False
            self.platform.happened("container.ready", function, container.id)
        give_up = time.monotonic() + LONG_POLL
        while not container.stopping and time.monotonic() < give_up:
            news = await self.platform.changes.until(
                lambda: function.pending or container.stopping, 0.5
            )
            if function.pending and not container.stopping:
                return pb.FunctionGetInputsResponse(inputs=[self._next(container)])
            if not news:
                self._retire(container)
        kill = [pb.FunctionGetInputsItem(kill_switch=True)] if container.stopping else []
        return pb.FunctionGetInputsResponse(inputs=kill)

    def _next(self, container: Container) -> pb.FunctionGetInputsItem:
        item = self.platform.calls.take(container)
        return pb.FunctionGetInputsItem(
            input_id=item.id,
            input=item.payload,
            function_call_id=item.call.id,
            function_call_invocation_type=item.call.kind,
            retry_count=item.attempt,
        )

    def _retire(self, container: Container) -> None:
        """Stop a container that has been idle for long enough, if it need not stay."""
        function = container.function
        idle = time.monotonic() - container.idle_since
        if container.running or idle < self.platform.options.idle:
            return
        alive = [one for one in function.containers if not one.stopping]
        if len(alive) > function.definition.autoscaler_settings.min_containers:
            self.platform.spawn(self.platform.containers.stop([container], "idle"))

    async def FunctionPutOutputs(
        self, request: pb.FunctionPutOutputsRequest, container: Container
    ) -> None:
        for output in request.outputs:
            container.running.pop(output.input_id, None)
            container.idle_since = time.monotonic()
            item = self.platform.calls.inputs[output.input_id]
            if item.container is container and output.retry_count == item.attempt:
                result = CANCELLED if item.cancelled else output.result
                self.platform.calls.finish(item, result, output)
        self.platform.changes.tell()
