"""What the platform was told about a deployed app, as JSON."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from modal_proto import api_pb2 as pb

from tests.modal.local_modal import images
from tests.modal.local_modal.platform import Platform
from tests.modal.local_modal.records import Function


def describe(platform: Platform) -> dict[str, Any]:
    app = next(one for one in platform.apps.values() if one.deployed)
    functions = {
        tag: _function(platform, platform.functions[one])
        for tag, one in sorted(app.function_ids.items())
    }
    return {"app": app.name, "functions": functions}


def _function(platform: Platform, function: Function) -> dict[str, Any]:
    told, web = function.definition, function.web
    secrets = [platform.secrets[secret] for secret in told.secret_ids]
    files = images.mounted_files(platform.images, platform.mounts, told)
    return {
        "methods": sorted(told.method_definitions),
        "gpu": function.gpus,
        "cpu": told.resources.milli_cpu / 1000,
        "memory_mib": told.resources.memory_mb,
        "enable_memory_snapshot": told.checkpointing_enabled,
        "experimental_options": dict(told.experimental_options),
        "volumes": {
            mount.mount_path: {
                "name": platform.volumes[mount.volume_id],
                "read_only": mount.read_only,
                "sub_path": mount.sub_path,
            }
            for mount in told.volume_mounts
        },
        "secrets": [
            {"name": one.name, "required_keys": one.required, "keys": sorted(one.values)}
            for one in secrets
        ],
        "web": {"": {"type": _kind(web), "label": web.requested_suffix}} if web else {},
        "max_concurrent_inputs": told.max_concurrent_inputs,
        "target_concurrent_inputs": told.target_concurrent_inputs,
        "autoscaler": MessageToDict(told.autoscaler_settings, preserving_proto_field_name=True),
        "retries": MessageToDict(told.retry_policy, preserving_proto_field_name=True),
        "timeout": told.timeout_secs,
        "startup_timeout": told.startup_timeout_secs,
        "mounted_files": sorted(file.filename for file in files),
        "image": {
            "commands": images.commands(platform.images, told.image_id),
            "pip_packages": images.pip_packages(platform.images, told.image_id),
            "env": images.environment(platform.images, told.image_id),
        },
    }


def _kind(web: pb.WebhookConfig) -> str:
    return pb.WebhookType.Name(web.type).removeprefix("WEBHOOK_TYPE_").lower()
