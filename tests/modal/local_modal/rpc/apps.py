"""The session, and apps from their making to their end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from grpclib import Status
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.handles import app_layout
from tests.modal.local_modal.records import App, Container
from tests.modal.local_modal.reports import refusal
from tests.modal.local_modal.rpc import Handlers, nothing_to_do

BUILDER = "2025.06"
"""The version of the image builder that the client is told."""
STOP_GRACE = 8.0
"""Seconds that the containers of `modal run` have when it ends."""


class AppCalls(Handlers):
    AppHeartbeat = nothing_to_do

    async def ClientHello(
        self, request: object, container: Container | None
    ) -> pb.ClientHelloResponse:
        return pb.ClientHelloResponse(image_builder_version=BUILDER)

    async def EnvironmentGetOrCreate(
        self, request: pb.EnvironmentGetOrCreateRequest, container: Container | None
    ) -> pb.EnvironmentGetOrCreateResponse:
        settings = pb.EnvironmentSettings(image_builder_version=BUILDER)
        metadata = pb.EnvironmentMetadata(name=request.deployment_name or "main", settings=settings)
        return pb.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)

    async def AppCreate(
        self, request: pb.AppCreateRequest, container: Container | None
    ) -> pb.AppCreateResponse:
        app = self._new(request.description, request.app_state == pb.APP_STATE_EPHEMERAL)
        page = f"local:{app.id}"
        return pb.AppCreateResponse(app_id=app.id, app_page_url=page, app_logs_url=page)

    async def AppGetByDeploymentName(
        self, request: pb.AppGetByDeploymentNameRequest, container: Container | None
    ) -> pb.AppGetByDeploymentNameResponse:
        app = self._deployed(request.name)
        return pb.AppGetByDeploymentNameResponse(app_id=app.id if app else "")

    async def AppGetOrCreate(
        self, request: pb.AppGetOrCreateRequest, container: Container | None
    ) -> pb.AppGetOrCreateResponse:
        app = self._deployed(request.app_name)
        if app is None and not request.object_creation_type:
            raise refusal(Status.NOT_FOUND, f"App '{request.app_name}' not found")
        app = app or self._new(request.app_name)
        app.deployed = True
        return pb.AppGetOrCreateResponse(app_id=app.id)

    async def AppGetLayout(
        self, request: pb.AppGetLayoutRequest, container: Container | None
    ) -> pb.AppGetLayoutResponse:
        app = self.platform.apps[request.app_id]
        return pb.AppGetLayoutResponse(app_layout=app_layout(self.platform, app))

    async def AppPublish(
        self, request: pb.AppPublishRequest, container: Container | None
    ) -> pb.AppPublishResponse:
        platform, app = self.platform, self.platform.apps[request.app_id]
        app.function_ids, app.class_ids = dict(request.function_ids), dict(request.class_ids)
        app.deployed = request.app_state == pb.APP_STATE_DEPLOYED
        app.name = request.name or app.name
        old = [one for one in platform.containers.alive(app) if not one.stopping]
        if old:  # a new deployment replaces the running containers
            platform.spawn(platform.containers.stop(old, "redeployed"))
        platform.happened("app.deploy" if app.deployed else "app.run", detail=app.name)
        for function in app.function_ids.values():
            platform.functions[function].broken = False
            platform.containers.scale(platform.functions[function])
        return pb.AppPublishResponse(url=f"local:{app.id}", deployed_at=time.time())

    async def AppClientDisconnect(
        self, request: pb.AppClientDisconnectRequest, container: Container | None
    ) -> None:
        app = self.platform.apps[request.app_id]
        if not app.deployed:
            self.platform.spawn(self._close(app))

    async def AppGetLogs(
        self, request: pb.AppGetLogsRequest, container: Container | None
    ) -> AsyncIterator[pb.TaskLogsBatch]:
        app = self.platform.apps[request.app_id]
        position = int(request.last_entry_id or 0)
        await self.platform.changes.until(lambda: len(app.logs) > position, request.timeout)
        for batch in app.logs[position:]:
            yield batch

    def _new(self, name: str, ephemeral: bool = False) -> App:
        app = App(self.platform.new_id("ap"), name, ephemeral)
        self.platform.apps[app.id] = app
        return app

    def _deployed(self, name: str) -> App | None:
        apps = self.platform.apps.values()
        return next((app for app in apps if app.deployed and app.name == name), None)

    async def _close(self, app: App) -> None:
        app.closed, app.deployed = True, False
        containers = self.platform.containers
        await containers.stop(containers.alive(app), "app stopped", STOP_GRACE)
        containers.add_log(app, pb.TaskLogsBatch(app_done=True))
