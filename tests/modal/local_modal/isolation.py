"""A root folder and processes of its own for each container, by Linux's namespaces.

Where those are not allowed, /root is a plain folder, volumes are symbolic links, and files that are
mounted elsewhere are missing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.modal.local_modal.records import Container

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform

BOOTSTRAP = Path(__file__).with_name("bootstrap.py").read_text()
WORKDIR = Path("/root")


class Isolation:
    def __init__(self, state: Path, python: Path) -> None:
        self._state = state
        self._python = python
        self._unshare = _namespaces()
        self._needed = {*_prefixes(python), state}
        self._links: list[Path] = []

    def command(
        self, platform: Platform, container: Container, environment: dict[str, str]
    ) -> list[str]:
        """What runs a container, with its files and volumes in their places."""
        tree = container.home / "fs"
        volumes = {
            Path(mount.mount_path): platform.volume(mount.volume_id)
            for mount in container.function.definition.volume_mounts
        }
        run = f"exec {shlex.quote(str(self._python))} -c {shlex.quote(BOOTSTRAP)}"
        if not self._unshare:
            root = tree / WORKDIR.relative_to("/")
            environment["PYTHONPATH"] = environment["HOME"] = str(root)
            self._link(tree, volumes)
            return ["/bin/sh", "-c", f"cd {shlex.quote(str(root))} && {run}"]
        lines = ["set -e", *self._mounts(tree, volumes)]
        inner = f"cd {WORKDIR} && {run}"
        lines.append(
            f"exec {_tool('chroot')} {shlex.quote(str(tree))} /bin/sh -c {shlex.quote(inner)}"
        )
        return [*self._unshare, "/bin/sh", "-c", "\n".join(lines)]

    def forget_links(self) -> None:
        for link in self._links:
            link.unlink()

    def _mounts(self, tree: Path, volumes: dict[Path, Path]) -> Iterator[str]:
        """The commands that show the host's files in a tree, but for the container's own."""

        def inside(path: Path) -> Path:
            return tree / path.relative_to("/")

        files = {Path("/") / path.relative_to(tree) for path in tree.rglob("*") if path.is_file()}
        for folder in (WORKDIR, *volumes):
            inside(folder).mkdir(parents=True, exist_ok=True)
        hidden = [path for path in self._needed if path.is_relative_to(WORKDIR)]
        binds = [
            *_host_binds(Path("/"), files | {WORKDIR} | set(volumes), tree),
            *((path, inside(path)) for path in sorted(hidden)),
            *((folder, inside(path)) for path, folder in volumes.items()),
        ]
        # The state's own folder first: later, `tree` inside it has mounts that would be copied.
        binds.sort(key=lambda bind: not self._state.is_relative_to(bind[0]))
        for source, target in binds:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.mkdir() if source.is_dir() else target.touch()
            yield f"{_tool('mount')} --rbind {shlex.quote(str(source))} {shlex.quote(str(target))}"

    def _link(self, tree: Path, volumes: dict[Path, Path]) -> None:
        for path, folder in volumes.items():
            if path.is_relative_to(WORKDIR):
                link = tree / path.relative_to("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(folder)
            elif path not in self._links:
                path.symlink_to(folder)
                self._links.append(path)


def _host_binds(path: Path, own: set[Path], tree: Path) -> Iterator[tuple[Path, Path]]:
    """Sources and targets that show the host's `path` in a tree, around the container's own paths."""
    target = tree / path.relative_to("/")
    if path in own:
        return
    if any(one.is_relative_to(path) for one in own):
        for child in sorted(path.iterdir()) if path.is_dir() else []:
            yield from _host_binds(child, own, tree)
    elif path.is_symlink():
        target.symlink_to(path.readlink())
    else:
        yield path, target


def _namespaces() -> list[str]:
    """What gives a program mounts, and processes that end with it, of its own; as far as allowed."""
    processes = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    for user in ([], ["--user", "--map-root-user"]):
        for more in (processes, []):
            command = [_tool("unshare"), *user, "--mount", "--propagation", "private", *more]
            if (
                shutil.which(command[0])
                and not subprocess.run([*command, "true"], capture_output=True).returncode
            ):
                return command
    return []


def _tool(name: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    return shutil.which(name, path=path) or name


def _prefixes(python: Path) -> list[Path]:
    """The folders that an interpreter needs."""
    code = "import sys; print(sys.prefix); print(sys.base_prefix)"
    told = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return [Path(line) for line in told.splitlines()] + [python.resolve().parent.parent]
