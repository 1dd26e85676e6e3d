"""Images, which are recorded and not built: what their layers set, copy and install."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from modal_proto import api_pb2 as pb

Images = Mapping[str, pb.Image]
Mounts = Mapping[str, list[pb.MountFile]]

DEFAULT_ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
}


def layers(images: Images, image: str) -> list[pb.Image]:
    """The layers of an image, the base first."""
    if image not in images:
        return []
    own = images[image]
    return [layer for base in own.base_images for layer in layers(images, base.image_id)] + [own]


def environment(images: Images, image: str) -> dict[str, str]:
    """What the ENV lines of an image set."""
    found: dict[str, str] = {}

    def expanded(match: re.Match[str]) -> str:  # as Docker does: not in single quotes
        return (DEFAULT_ENVIRONMENT | found).get(match[1], "") if match[1] else match[0]

    for layer in layers(images, image):
        for line in layer.dockerfile_commands:
            keyword, _, rest = line.strip().partition(" ")
            if keyword.upper() == "ENV":
                for pair in shlex.split(re.sub(r"'[^']*'|\$\{?(\w+)\}?", expanded, rest)):
                    key, _, value = pair.partition("=")
                    found[key] = value
    return found


def mounted_files(images: Images, mounts: Mounts, definition: pb.Function) -> list[pb.MountFile]:
    """All files that mounts (`add_local_*`, the app's own file) put into a container."""
    files: list[pb.MountFile] = []
    for layer in layers(images, definition.image_id):
        copies = [line.split() for line in layer.dockerfile_commands if line.startswith("COPY . ")]
        for file in mounts.get(layer.context_mount_id, []) if copies else []:
            target = PurePosixPath("/") / copies[0][2] / file.filename.lstrip("/")
            files.append(
                pb.MountFile(filename=str(target), sha256_hex=file.sha256_hex, mode=file.mode)
            )
    for mount in definition.mount_ids:
        files += mounts.get(mount, [])
    return files


def commands(images: Images, image: str) -> list[str]:
    return [line for layer in layers(images, image) for line in layer.dockerfile_commands]


def pip_packages(images: Images, image: str) -> list[str]:
    """What the app's own layers name in `pip install`."""
    packages: list[str] = []
    for layer in layers(images, image):
        own = "FROM base" in layer.dockerfile_commands
        for command in layer.dockerfile_commands if own else []:
            found = re.search(r"\bpip install ([^&;|]*)", re.sub(r"\$\([^)]*\)", "", command))
            words = shlex.split(found[1]) if found else []
            packages += [
                word for word in words
                if re.match(r"[A-Za-z0-9]", word) and not word.startswith(("http:", "https:"))
            ]  # fmt: skip
    return packages
