"""Calls as those see them who make them: inputs, results, and streams of data."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable

from grpclib import Status
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.records import Call, Container
from tests.modal.local_modal.reports import refusal
from tests.modal.local_modal.rpc import Handlers

LONG_POLL = 50.0
"""Seconds; the client gives up after 55."""


class InputCalls(Handlers):
    async def FunctionMap(
        self, request: pb.FunctionMapRequest, container: Container | None
    ) -> pb.FunctionMapResponse:
        function = self.platform.functions[request.function_id]
        call = self.platform.calls.open(function)
        call.kind = request.function_call_invocation_type
        return pb.FunctionMapResponse(
            function_call_id=call.id,
            pipelined_inputs=self._accept(call, request.pipelined_inputs),
            retry_policy=function.definition.retry_policy,
            sync_client_retries_enabled=False,  # they happen here
            max_inputs_outstanding=1000,
        )

    async def FunctionPutInputs(
        self, request: pb.FunctionPutInputsRequest, container: Container | None
    ) -> pb.FunctionPutInputsResponse:
        call = self._call(request.function_call_id)
        return pb.FunctionPutInputsResponse(inputs=self._accept(call, request.inputs))

    async def FunctionGetOutputs(
        self, request: pb.FunctionGetOutputsRequest, container: Container | None
    ) -> pb.FunctionGetOutputsResponse:
        call = self._call(request.function_call_id)
        seen = int((request.last_entry_id or "0-0").split("-")[0])
        first = request.start_idx if request.HasField("start_idx") else 0
        last = request.end_idx if request.HasField("end_idx") else math.inf

        def fresh() -> list[tuple[int, pb.FunctionGetOutputsItem]]:
            numbered = enumerate(call.outputs[seen:], seen + 1)
            found = [(number, one) for number, one in numbered if first <= one.idx <= last]
            return found[: request.max_values or 100]

        found = await self.platform.changes.until(fresh, request.timeout)
        return pb.FunctionGetOutputsResponse(
            idxs=[output.idx for _, output in found],
            outputs=[output for _, output in found],
            last_entry_id=f"{found[-1][0]}-0" if found else request.last_entry_id,
            num_unfinished_inputs=len(call.inputs) - len(call.outputs),
        )

    async def FunctionCallFromId(
        self, request: pb.FunctionCallFromIdRequest, container: Container | None
    ) -> pb.FunctionCallFromIdResponse:
        call = self._call(request.function_call_id)
        metadata = pb.FunctionCallHandleMetadata(
            app_id=call.function.app.id, function_id=call.function.id
        )
        return pb.FunctionCallFromIdResponse(
            function_call_id=call.id, num_inputs=len(call.inputs), metadata=metadata
        )

    async def FunctionCallCancel(
        self, request: pb.FunctionCallCancelRequest, container: Container | None
    ) -> None:
        self.platform.calls.cancel(self._call(request.function_call_id))

    async def FunctionCallGetDataIn(
        self, request: pb.FunctionCallGetDataRequest, container: Container | None
    ) -> AsyncIterator[pb.DataChunk]:
        chunks = self._call(request.function_call_id).data_in
        async for chunk in self._stream(chunks, request.last_index):
            yield chunk

    async def FunctionCallGetDataOut(
        self, request: pb.FunctionCallGetDataRequest, container: Container | None
    ) -> AsyncIterator[pb.DataChunk]:
        chunks = self._call(request.function_call_id).data_out
        async for chunk in self._stream(chunks, request.last_index):
            yield chunk

    async def FunctionCallPutDataOut(
        self, request: pb.FunctionCallPutDataRequest, container: Container | None
    ) -> None:
        self._call(request.function_call_id).data_out.extend(request.data_chunks)
        self.platform.changes.tell()

    async def _stream(
        self, chunks: list[pb.DataChunk], position: int
    ) -> AsyncIterator[pb.DataChunk]:
        while await self.platform.changes.until(lambda at=position: chunks[at:], LONG_POLL):
            while len(chunks) > position:
                yield chunks[position]
                position += 1

    def _call(self, call: str) -> Call:
        if call not in self.platform.calls.by_id:
            raise refusal(Status.NOT_FOUND, f"no function call {call}")
        return self.platform.calls.by_id[call]

    def _accept(
        self, call: Call, items: Iterable[pb.FunctionPutInputsItem]
    ) -> list[pb.FunctionPutInputsResponseItem]:
        added = [(item.idx, self.platform.calls.add_input(call, item.idx, item.input).id)
                 for item in items]  # fmt: skip
        return [
            pb.FunctionPutInputsResponseItem(idx=idx, input_id=one, input_jwt=one)
            for idx, one in added
        ]
