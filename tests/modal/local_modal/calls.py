"""Calls of functions and their inputs: queued, handed to containers, tried again, cancelled."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from modal_proto import api_pb2 as pb

from tests.modal.local_modal.records import Call, Container, Function, Input

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform

Result = pb.GenericResult
CANCELLED = Result(status=Result.GENERIC_STATUS_TERMINATED, exception="Input was cancelled by user")
CANCEL_GRACE = 5.0
"""Seconds that a cancelled input has before its container is stopped."""


class Calls:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.by_id: dict[str, Call] = {}
        self.inputs: dict[str, Input] = {}

    def open(self, function: Function) -> Call:
        call = Call(self._platform.new_id("fc"), function)
        self.by_id[call.id] = call
        return call

    def add_input(self, call: Call, idx: int, payload: pb.FunctionInput) -> Input:
        item = Input(self._platform.new_id("in"), call, idx, payload)
        self.inputs[item.id] = item
        call.inputs.append(item)
        self.enqueue(item)
        return item

    def enqueue(self, item: Input) -> None:
        if item.done:  # cancelled while it waited for its next attempt
            return
        item.container = None
        item.call.function.pending.append(item)
        self._platform.containers.scale(item.call.function)
        self._platform.changes.tell()

    def take(self, container: Container) -> Input:
        """Move the input that waits longest to a container."""
        item = container.function.pending.popleft()
        item.container = container
        container.running[item.id] = item
        self._platform.spawn(self._watch_timeout(item, container))
        detail = f"{item.id} {item.payload.method_name}".strip()
        self._platform.happened("input.start", container.function, container.id, detail)
        return item

    async def _watch_timeout(self, item: Input, container: Container) -> None:
        seconds, attempt = item.call.function.definition.timeout_secs, item.attempt

        def over() -> bool:
            return item.done or item.attempt != attempt or item.container is not container

        if not seconds or await self._platform.changes.until(over, seconds):
            return
        text = f"Task's current input {item.id} hit its timeout of {seconds}s"
        container.cancels.append(item.id)
        self.finish(item, Result(status=Result.GENERIC_STATUS_TIMEOUT, exception=text))
        await asyncio.sleep(CANCEL_GRACE)
        if item.id in container.running:
            await self._platform.containers.stop([container], "input timed out")

    def finish(
        self, item: Input, result: Result, output: pb.FunctionPutOutputsItem | None = None
    ) -> None:
        """An attempt is over: write its result down, or try again."""
        if item.done:
            return
        if self._may_try_again(item, result):
            self._try_again(item)
            return
        item.done = True
        task = item.container.id if item.container else ""
        status = Result.GenericStatus.Name(result.status).removeprefix("GENERIC_STATUS_").lower()
        self._platform.happened("input.done", item.call.function, task, f"{item.id} {status}")
        told = pb.FunctionGetOutputsItem(
            result=result, idx=item.idx, input_id=item.id, task_id=task,
            output_created_at=time.time(),
        )  # fmt: skip
        if output:
            told.data_format = output.data_format
            told.input_started_at = output.input_started_at
            told.output_created_at = output.output_created_at
        item.call.outputs.append(told)
        self._platform.changes.tell()

    def _may_try_again(self, item: Input, result: Result) -> bool:
        settled = (Result.GENERIC_STATUS_SUCCESS, Result.GENERIC_STATUS_TERMINATED)
        retries = item.call.function.definition.retry_policy.retries
        return result.status not in settled and not item.cancelled and item.attempt < retries

    def _try_again(self, item: Input) -> None:
        policy = item.call.function.definition.retry_policy
        delay = policy.initial_delay_ms * (policy.backoff_coefficient or 1) ** item.attempt
        if policy.max_delay_ms:
            delay = min(delay, policy.max_delay_ms)
        item.attempt, item.container = item.attempt + 1, None
        detail = f"{item.id} attempt {item.attempt + 1}"
        self._platform.happened("input.retry", item.call.function, detail=detail)
        asyncio.get_running_loop().call_later(delay / 1000, self.enqueue, item)

    def cancel(self, call: Call) -> None:
        for item in call.inputs:
            if item.done or item.cancelled:
                continue
            item.cancelled = True
            if item.container:
                item.container.cancels.append(item.id)
                continue
            if item in call.function.pending:
                call.function.pending.remove(item)
            self.finish(item, CANCELLED)
        self._platform.changes.tell()
