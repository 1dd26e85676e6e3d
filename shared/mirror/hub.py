"""Publishing: makes the Space on the Hub as asked, and its files those of a folder.

What the Hub has is read first and only the difference is sent, as one commit, so that a Space is never
built from half a tree and publishing again without a change sends nothing.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    SpaceHardware,
    SpaceRuntime,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from pydantic import SecretStr

from shared import __version__, http_clients
from shared.checkpoints import ON_A_GPU
from shared.errors import BackendUnavailable, CygnetError, InvalidRequest, Unauthorised
from shared.mirror.preload import preloaded
from shared.mirror.tree import HUBS_OWN, published
from shared.settings import Settings, read_settings


@dataclass(frozen=True)
class Wishes:
    """What the Space should be; what is None or empty is left as it is."""

    private: bool | None = None
    hardware: SpaceHardware | None = None
    sleep_time: int | None = None
    """Seconds without a visitor; -1 for never."""
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What came of it: the Space's page, whether it is new, and the paths that were sent or removed.

    `checkpoint` is the one that was chosen for its GPU, where none had been.
    """

    url: str
    created: bool
    sent: tuple[str, ...]
    removed: tuple[str, ...]
    checkpoint: str | None


def read_hardware(name: str | None) -> SpaceHardware | None:
    """Raises `InvalidRequest`, with the nearest name that there is."""
    names = [one.value for one in SpaceHardware]
    if name is None or name in names:
        return SpaceHardware(name) if name else None
    near = difflib.get_close_matches(name, names, n=3, cutoff=0)
    raise InvalidRequest(
        f"--hardware {name[:60]} is not known.", f"Choose one, such as {', '.join(near)}."
    )


def publish(space: str, tree: Path, wishes: Wishes, token: str | None, hub: str) -> Published:
    """Make or update the Space `OWNER/NAME` on the Hub at `hub`.

    Without a token the one that `hf auth login` stored is used. The README of `tree` gets the Space's
    name, and what it draws with, for Spaces to fetch when they build. Raises `InvalidSetting`,
    `UnknownCheckpoint`, `Unauthorised`, `InvalidRequest` or `BackendUnavailable`.
    """
    if space.count("/") != 1:
        raise _no_name(space)
    http_clients.keep_the_hub_to_it()
    api = HfApi(endpoint=hub, token=token)
    hidden = [token or "", *(secret.get_secret_value() for secret in wishes.secrets.values())]
    with _clear_errors(space, hidden):
        created = not api.repo_exists(space, repo_type="space")
        runtime = None if created else api.get_space_runtime(space)
        variables = {} if created else _variables(api, space)
        if checkpoint := _choose_checkpoint(
            wishes.hardware or _hardware(runtime),
            read_settings({**variables, **wishes.variables}),
        ):
            chosen = {**wishes.variables, "CYGNET_CHECKPOINT": checkpoint}
            wishes = replace(wishes, variables=chosen)
        readme = tree / "README.md"
        lines = preloaded(api, read_settings({**variables, **wishes.variables}))
        readme.write_bytes(published(readme.read_bytes(), space, lines))
        if runtime is None:
            _create(api, space, wishes)
        else:
            _adjust(api, space, wishes, variables, runtime)
        sent, removed = _send(api, space, tree)
    return Published(f"{hub}/spaces/{space}", created, sent, removed, checkpoint)


def _variables(api: HfApi, space: str) -> dict[str, str]:
    return {key: one.value for key, one in api.get_space_variables(space).items()}


def _hardware(runtime: SpaceRuntime | None) -> str | None:
    return runtime and (runtime.requested_hardware or runtime.hardware)


def _choose_checkpoint(hardware: str | None, settings: Settings) -> str | None:
    """A real Wan for a Space with a GPU that draws itself, where its variables name none."""
    on_a_gpu = hardware is not None and not hardware.startswith("cpu-")
    named = "checkpoint" in settings.model_fields_set
    return ON_A_GPU if on_a_gpu and settings.backend == "local" and not named else None


def _create(api: HfApi, space: str, wishes: Wishes) -> None:
    api.create_repo(
        space,
        repo_type="space",
        space_sdk="gradio",
        private=wishes.private,
        space_hardware=wishes.hardware,
        space_sleep_time=wishes.sleep_time,
        space_variables=[{"key": k, "value": v} for k, v in wishes.variables.items()] or None,
        space_secrets=[
            {"key": key, "value": value.get_secret_value()} for key, value in wishes.secrets.items()
        ]
        or None,
    )


def _adjust(
    api: HfApi,
    space: str,
    wishes: Wishes,
    variables: Mapping[str, str],
    runtime: SpaceRuntime,
) -> None:
    """Change what differs. Secrets cannot be read back, so those that are given are always set."""
    if wishes.private is not None and api.space_info(space).private != wishes.private:
        api.update_repo_settings(space, repo_type="space", private=wishes.private)
    if wishes.hardware not in (None, _hardware(runtime)):
        api.request_space_hardware(space, wishes.hardware)
    if wishes.sleep_time not in (None, runtime.sleep_time):
        api.set_space_sleep_time(space, wishes.sleep_time)
    for key, value in wishes.variables.items():
        if variables.get(key) != value:
            api.add_space_variable(space, key, value)
    for key, secret in wishes.secrets.items():
        api.add_space_secret(space, key, secret.get_secret_value())


def _send(api: HfApi, space: str, tree: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make the Space's files those of `tree` in one commit, if there is anything to change."""
    listed = api.list_repo_tree(space, repo_type="space", recursive=True)
    there = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
    here = {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_file()}
    sent = sorted(name for name, path in here.items() if not _same(path, there.get(name)))
    removed = sorted(there.keys() - here.keys() - {HUBS_OWN})
    if sent or removed:
        api.create_commit(
            space,
            [
                *(CommitOperationDelete(name) for name in removed),
                *(CommitOperationAdd(name, here[name]) for name in sent),
            ],
            commit_message=f"Mirror Cygnet {__version__}",
            repo_type="space",
        )
    return tuple(sent), tuple(removed)


def _same(path: Path, there: RepoFile | None) -> bool:
    """Whether the Hub has the file: by sha256 where it is a large one, else by git's own digest."""
    if there is None or there.size != path.stat().st_size:
        return False
    data = path.read_bytes()
    if there.lfs:
        return hashlib.sha256(data).hexdigest() == there.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == there.blob_id


@contextlib.contextmanager
def _clear_errors(space: str, hidden: list[str]) -> Iterator[None]:
    """Whatever goes wrong between here and the Hub becomes one of our errors, without the `hidden`."""
    try:
        yield
    except CygnetError:
        raise
    except HFValidationError as error:
        raise _no_name(space) from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise Unauthorised(
                f"The Hub does not let this token write to {space}.",
                "Set HF_TOKEN to a token that may write, from huggingface.co/settings/tokens.",
            ) from error
        said = error.server_message or f"status {error.response.status_code}"
        if any(text and text in said for text in hidden):
            said = f"status {error.response.status_code}"
        raise BackendUnavailable(
            f"The Hub refused: {said[:300].rstrip('.')}.",
            "Change what it names, or try again later.",
        ) from error
    except Exception as error:  # the Hub's client passes on errors of the network's libraries
        if fault := http_clients.proxy_fault(error):
            raise fault from error
        raise BackendUnavailable(
            f"The Hub cannot be reached ({type(error).__name__}).",
            "Check the connection and HF_ENDPOINT.",
        ) from error


def _no_name(space: str) -> InvalidRequest:
    return InvalidRequest(
        f"{space[:100]!r} is no name of a Space.", "Give OWNER/NAME, as on the Hub."
    )
