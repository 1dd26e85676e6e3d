"""The gRPC service: each call goes to the method of its name, or fails with that name."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass
from grpclib import GRPCError, Status
from grpclib.exceptions import StreamTerminatedError
from modal_proto import api_pb2 as pb
from modal_proto.api_grpc import ModalClientBase

from tests.modal.local_modal.outfit import TASK_HEADER
from tests.modal.local_modal.reports import refusal, say
from tests.modal.local_modal.rpc.apps import AppCalls
from tests.modal.local_modal.rpc.containers import ContainerCalls
from tests.modal.local_modal.rpc.functions import FunctionCalls
from tests.modal.local_modal.rpc.inputs import InputCalls
from tests.modal.local_modal.rpc.storage import StorageCalls

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform


def make_service(platform: Platform) -> ModalClientBase:
    methods = pb.DESCRIPTOR.services_by_name["ModalClient"].methods_by_name
    kinds = (AppCalls, FunctionCalls, InputCalls, ContainerCalls, StorageCalls)
    handlers = [kind(platform) for kind in kinds]
    answers = {}
    for name in methods:
        handler = next((found for one in handlers if (found := getattr(one, name, None))), None)
        reply = GetMessageClass(methods[name].output_type)
        answers[name] = _answer(platform, name, handler, reply)
    return type("Service", (ModalClientBase,), answers)()


def _answer(
    platform: Platform, name: str, handler: Callable[..., Any] | None, empty: type[Any]
) -> Callable[..., Any]:
    """One method of the service; a handler that returns None sends an empty reply."""

    async def answer(_: ModalClientBase, stream: Any) -> None:
        request = await stream.recv_message()
        if request is None:
            return
        if handler is None:
            raise refusal(Status.UNIMPLEMENTED, f"the stand-in for Modal has no {name}")
        container = platform.containers.by_id.get(stream.metadata.get(TASK_HEADER, ""))
        try:
            if inspect.isasyncgenfunction(handler):
                async for reply in handler(request, container):
                    await stream.send_message(reply)
            else:
                reply = await handler(request, container)
                await stream.send_message(empty() if reply is None else reply)
        except (GRPCError, StreamTerminatedError, asyncio.CancelledError):
            raise
        except Exception as error:
            say(f"internal error in {name}:\n{traceback.format_exc()}")
            text = f"the stand-in for Modal failed in {name}: {error!r}"
            raise GRPCError(Status.FAILED_PRECONDITION, text) from None

    return answer
