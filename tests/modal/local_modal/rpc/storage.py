"""What lies beside the code: uploaded files, secrets, Volumes and Dicts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator

from grpclib import Status
from modal_proto import api_pb2 as pb

from tests.modal.local_modal.handles import volume_metadata
from tests.modal.local_modal.records import Container, Secret
from tests.modal.local_modal.reports import refusal
from tests.modal.local_modal.rpc import Handlers, nothing_to_do


class StorageCalls(Handlers):
    DictHeartbeat = VolumeHeartbeat = VolumeReload = nothing_to_do

    async def MountBatchedCheckExistence(
        self, request: pb.MountBatchedCheckExistenceRequest, container: Container | None
    ) -> pb.MountBatchedCheckExistenceResponse:
        hashes = request.sha256_hex_hashes
        missing = [one for one in hashes if not self.platform.file(one).exists()]
        return pb.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(
        self, request: pb.MountPutFileRequest, container: Container | None
    ) -> pb.MountPutFileResponse:
        target, source = self.platform.file(request.sha256_hex), request.WhichOneof("data_oneof")
        if source == "data_blob_id":
            shutil.copyfile(self.platform.blob(request.data_blob_id), target)
        elif source == "data":
            target.write_bytes(request.data)
        return pb.MountPutFileResponse(exists=target.exists())

    async def MountGetOrCreate(
        self, request: pb.MountGetOrCreateRequest, container: Container | None
    ) -> pb.MountGetOrCreateResponse:
        mount = self.platform.named_id("mo", request.deployment_name)
        if request.files:
            self.platform.mounts[mount] = list(request.files)
        listing = "".join(sorted(file.filename + file.sha256_hex for file in request.files))
        checksum = hashlib.sha256(listing.encode()).hexdigest()
        metadata = pb.MountHandleMetadata(content_checksum_sha256_hex=checksum)
        return pb.MountGetOrCreateResponse(mount_id=mount, handle_metadata=metadata)

    async def BlobCreate(
        self, request: object, container: Container | None
    ) -> pb.BlobCreateResponse:
        blob = self.platform.new_id("bl")
        urls = pb.UploadUrlList(items=[f"{self.platform.blob_url}/{blob}"])
        return pb.BlobCreateResponse(blob_ids=[blob], upload_urls=urls)

    async def BlobGet(
        self, request: pb.BlobGetRequest, container: Container | None
    ) -> pb.BlobGetResponse:
        return pb.BlobGetResponse(download_url=f"{self.platform.blob_url}/{request.blob_id}")

    async def SecretGetOrCreate(
        self, request: pb.SecretGetOrCreateRequest, container: Container | None
    ) -> pb.SecretGetOrCreateResponse:
        options, name = self.platform.options, request.deployment_name
        required = sorted(request.required_keys)
        values = dict(request.env_dict) or options.secrets.get(name, {})
        if not options.describes:
            if name and name not in options.secrets:
                raise refusal(Status.NOT_FOUND, f"Secret '{name}' not found")
            if missing := [key for key in required if key not in values]:
                text = f"Secret '{name}' is missing key(s): {', '.join(missing)}"
                raise refusal(Status.NOT_FOUND, text)
        secret = self.platform.named_id("st", name)
        self.platform.secrets[secret] = Secret(name, values, required)
        metadata = pb.SecretMetadata(name=name)
        return pb.SecretGetOrCreateResponse(secret_id=secret, metadata=metadata)

    async def VolumeGetOrCreate(
        self, request: pb.VolumeGetOrCreateRequest, container: Container | None
    ) -> pb.VolumeGetOrCreateResponse:
        volume = self.platform.named_id("vo", request.deployment_name)
        self.platform.volumes[volume] = request.deployment_name
        return pb.VolumeGetOrCreateResponse(
            volume_id=volume,
            version=pb.VOLUME_FS_VERSION_V1,
            metadata=volume_metadata(self.platform, volume),
        )

    async def VolumeCommit(
        self, request: pb.VolumeCommitRequest, container: Container | None
    ) -> pb.VolumeCommitResponse:
        return pb.VolumeCommitResponse(skip_reload=True)

    async def DictGetOrCreate(
        self, request: pb.DictGetOrCreateRequest, container: Container | None
    ) -> pb.DictGetOrCreateResponse:
        name = request.deployment_name
        return pb.DictGetOrCreateResponse(
            dict_id=self.platform.named_id("di", name), metadata=pb.DictMetadata(name=name)
        )

    async def DictUpdate(
        self, request: pb.DictUpdateRequest, container: Container | None
    ) -> pb.DictUpdateResponse:
        rows = self.platform.dicts[request.dict_id]
        created = all(one.key not in rows for one in request.updates)
        if created or not request.if_not_exists:
            rows.update((one.key, one.value) for one in request.updates)
        return pb.DictUpdateResponse(created=created)

    async def DictGet(
        self, request: pb.DictGetRequest, container: Container | None
    ) -> pb.DictGetResponse:
        value = self.platform.dicts[request.dict_id].get(request.key)
        return pb.DictGetResponse(found=value is not None, value=value)

    async def DictPop(
        self, request: pb.DictPopRequest, container: Container | None
    ) -> pb.DictPopResponse:
        value = self.platform.dicts[request.dict_id].pop(request.key, None)
        return pb.DictPopResponse(found=value is not None, value=value)

    async def DictContents(
        self, request: pb.DictContentsRequest, container: Container | None
    ) -> AsyncIterator[pb.DictEntry]:
        for key, value in list(self.platform.dicts[request.dict_id].items()):
            yield pb.DictEntry(
                key=key if request.keys else b"", value=value if request.values else b""
            )
