"""What a container gets: its files, its environment, and the arguments of the client's runtime."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from modal_proto import api_pb2 as pb

from tests.modal.local_modal import images
from tests.modal.local_modal.handles import app_layout
from tests.modal.local_modal.records import Container

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform

TASK_HEADER = "x-local-modal-task"
"""By which containers say who they are."""


def prepare(platform: Platform, container: Container) -> dict[str, str]:
    """Lay out a container's files; its environment."""
    function, home = container.function, container.home
    definition = pb.Function()
    definition.CopyFrom(function.definition)
    snapshot = definition.is_checkpointing_function = definition.checkpointing_enabled
    (home / "fs" / "root").mkdir(parents=True)
    for file in images.mounted_files(platform.images, platform.mounts, definition):
        target = home / "fs" / file.filename.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(platform.file(file.sha256_hex), target)
        if file.mode:
            target.chmod(file.mode & 0o777)
    arguments = pb.ContainerArguments(
        task_id=container.id,
        function_id=function.id,
        app_id=function.app.id,
        function_def=definition,
        environment_name="main",
        checkpoint_id=f"ch-{container.id}" if snapshot else None,
        app_layout=app_layout(platform, function.app, definition),
    )
    (home / "arguments").write_bytes(arguments.SerializeToString())
    phase = "snapshot" if snapshot else "plain"
    write_phase(container, phase)
    return _environment(platform, container, phase)


def write_phase(container: Container, phase: str) -> None:
    (container.home / "environ").write_text(f"LOCAL_MODAL_PHASE={phase}")


def _environment(platform: Platform, container: Container, phase: str) -> dict[str, str]:
    """The image's, the secrets' and the command line's, and what the runtime reads."""
    definition, home = container.function.definition, container.home
    found = images.DEFAULT_ENVIRONMENT | images.environment(platform.images, definition.image_id)
    for secret in definition.secret_ids:
        found |= platform.secrets[secret].values
    found |= platform.options.environment
    gpus = container.function.gpus
    found |= {
        "LOCAL_MODAL_PHASE": phase,
        "LOCAL_MODAL_GPU": gpus[0] if gpus else "",
        "LOCAL_MODAL_SPEC_ENVIRON": str(home / "environ"),
        "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOCAL",
        "MODAL_CONTAINER_ARGUMENTS_PATH": str(home / "arguments"),
        "MODAL_DISABLE_API_PROXY": "1",
        "MODAL_ENVIRONMENT": "main",
        "MODAL_IMAGE_ID": definition.image_id,
        "MODAL_IS_REMOTE": "1",
        "MODAL_OVERRIDE_HEADERS": f"{TASK_HEADER}:{container.id}",
        "MODAL_REGION": "local",
        "MODAL_RESTORE_STATE_PATH": str(home / "restore-state.json"),
        "MODAL_SERVER_URL": platform.url,
        "MODAL_TASK_ID": container.id,
        "PATH": f"{platform.options.python.parent}:{found['PATH']}",
        "PYTHONPATH": ":".join(filter(None, ["/root", found.get("PYTHONPATH")])),
    }
    return found | ({"MODAL_ENABLE_SNAP_RESTORE": "1"} if phase == "snapshot" else {})
