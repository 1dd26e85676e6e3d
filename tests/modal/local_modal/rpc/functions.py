"""Functions, classes and their images, as an app is deployed; and how busy a function is."""

from __future__ import annotations

import hashlib

from grpclib import Status
from modal._serialization import serialize
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.handles import (
    copy_common_fields,
    function_data,
    function_metadata,
)
from tests.modal.local_modal.records import Container, Function
from tests.modal.local_modal.reports import refusal
from tests.modal.local_modal.rpc import Handlers
from tests.modal.local_modal.rpc.apps import BUILDER

Result = pb.GenericResult
NO_PARAMETERS = serialize(((), {}))


class FunctionCalls(Handlers):
    async def FunctionPrecreate(
        self, request: pb.FunctionPrecreateRequest, container: Container | None
    ) -> pb.FunctionPrecreateResponse:
        definition = pb.Function()
        copy_common_fields(request, definition)
        function = await self._define(request.existing_function_id, request.app_id, definition)
        return pb.FunctionPrecreateResponse(
            function_id=function.id, handle_metadata=function_metadata(function)
        )

    async def FunctionCreate(
        self, request: pb.FunctionCreateRequest, container: Container | None
    ) -> pb.FunctionCreateResponse:
        """Of a list of GPUs there is a function for each; the first is always free here."""
        ranked = [one.function for one in request.function_data.ranked_functions]
        choices = ranked or [request.function]
        function = await self._define(request.existing_function_id, request.app_id, choices[0])
        gpus = [one.resources.gpu_config for one in choices]
        function.gpus = [gpu.gpu_type for gpu in gpus if gpu.gpu_type]
        several = len(choices) > 1
        return pb.FunctionCreateResponse(
            function_id=function.id,
            function=choices[0],
            function_data=request.function_data if several else function_data(function),
            handle_metadata=function_metadata(function),
        )

    async def ClassCreate(
        self, request: pb.ClassCreateRequest, container: Container | None
    ) -> pb.ClassCreateResponse:
        class_id = request.existing_class_id or self.platform.new_id("cs")
        return pb.ClassCreateResponse(class_id=class_id, handle_metadata=pb.ClassHandleMetadata())

    async def FunctionBindParams(
        self, request: pb.FunctionBindParamsRequest, container: Container | None
    ) -> pb.FunctionBindParamsResponse:
        """The class as it was deployed; parameters and `with_options` are not there."""
        bare = request.serialized_params in (b"", NO_PARAMETERS)
        if not bare or request.function_options.ByteSize():
            text = "the stand-in for Modal has no classes with parameters or other options"
            raise refusal(Status.UNIMPLEMENTED, text)
        function = self.platform.functions[request.function_id]
        return pb.FunctionBindParamsResponse(
            bound_function_id=function.id, handle_metadata=function_metadata(function)
        )

    async def FunctionGetCurrentStats(
        self, request: pb.FunctionGetCurrentStatsRequest, container: Container | None
    ) -> pb.FunctionStats:
        function = self.platform.functions[request.function_id]
        return pb.FunctionStats(
            backlog=len(function.pending),
            num_total_tasks=len(function.containers),
            num_running_inputs=sum(len(one.running) for one in function.containers),
        )

    async def ImageGetOrCreate(
        self, request: pb.ImageGetOrCreateRequest, container: Container | None
    ) -> pb.ImageGetOrCreateResponse:
        digest = hashlib.sha256(request.image.SerializeToString(deterministic=True)).hexdigest()
        image = self.platform.named_id("im", digest)
        self.platform.images[image] = request.image
        version = request.builder_version or BUILDER
        return pb.ImageGetOrCreateResponse(
            image_id=image,
            result=Result(status=Result.GENERIC_STATUS_SUCCESS),
            metadata=pb.ImageMetadata(image_builder_version=version),
        )

    async def _define(self, known: str, app: str, definition: pb.Function) -> Function:
        """Make a function, or give one that is there its new definition."""
        function = self.platform.functions.get(known)
        if function is None:
            new = self.platform.new_id("fu")
            function = Function(new, self.platform.apps[app], definition)
            self.platform.functions[function.id] = function
        function.definition = definition
        await self.platform.endpoints.open(function)
        return function
