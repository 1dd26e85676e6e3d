"""What clients and containers are told about functions, classes and apps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.records import App, Function

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform


def copy_common_fields(source: Message, target: Message) -> None:
    """Copy the fields that two types of message have in common by name."""
    for field, value in source.ListFields():
        twin = target.DESCRIPTOR.fields_by_name.get(field.name)
        if twin is None or field.name == "ranked_functions":
            continue
        if twin.is_repeated:
            getattr(target, field.name).MergeFrom(value)
        elif twin.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def function_metadata(function: Function) -> pb.FunctionHandleMetadata:
    app, definition = function.app.id, function.definition
    metadata = pb.FunctionHandleMetadata(app_id=app, definition_id=f"de-{function.id}")
    copy_common_fields(definition, metadata)
    for name, method in definition.method_definitions.items():
        entry = pb.FunctionHandleMetadata(app_id=app, is_method=True, use_method_name=name)
        copy_common_fields(method, entry)
        metadata.method_handle_metadata[name].CopyFrom(entry)
    return metadata


def function_data(function: Function) -> pb.FunctionData:
    data = pb.FunctionData()
    copy_common_fields(function.definition, data)
    data.ranked_functions.add(rank=0).function.CopyFrom(function.definition)
    return data


def class_metadata(platform: Platform, app: App, tag: str) -> pb.ClassHandleMetadata:
    function = platform.functions.get(app.function_ids.get(f"{tag}.*", ""))
    if function is None:
        return pb.ClassHandleMetadata()
    return pb.ClassHandleMetadata(
        class_function_id=function.id, class_function_metadata=function_metadata(function)
    )


def app_layout(platform: Platform, app: App, definition: pb.Function | None = None) -> pb.AppLayout:
    layout = pb.AppLayout(function_ids=app.function_ids, class_ids=app.class_ids)
    for function in app.function_ids.values():
        metadata = function_metadata(platform.functions[function])
        layout.objects.append(pb.Object(object_id=function, function_handle_metadata=metadata))
    for tag, class_id in app.class_ids.items():
        layout.objects.append(
            pb.Object(object_id=class_id, class_handle_metadata=class_metadata(platform, app, tag))
        )
    for dependency in definition.object_dependencies if definition else []:
        entry = pb.Object(object_id=dependency.object_id)
        if dependency.object_id in platform.volumes:
            entry.volume_metadata.CopyFrom(volume_metadata(platform, dependency.object_id))
        layout.objects.append(entry)
    return layout


def volume_metadata(platform: Platform, volume: str) -> pb.VolumeMetadata:
    return pb.VolumeMetadata(name=platform.volumes[volume], version=pb.VOLUME_FS_VERSION_V1)
