"""What Spaces fetch while they build, so that no start has to: the weights that a Space draws with."""

from __future__ import annotations

import fnmatch

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from shared.checkpoints import FILES, get_checkpoint
from shared.settings import Settings


def preloaded(api: HfApi, settings: Settings) -> list[str]:
    """The lines of `preload_from_hub` for a Space with these settings: repository, files, commit.

    Empty where the weights are in the Space's repository, or the pictures are made elsewhere. Raises
    `UnknownCheckpoint`.
    """
    if settings.backend != "local":
        return []
    checkpoint = get_checkpoint(settings.checkpoint)
    lines = []
    if checkpoint.repository:
        listed = api.list_repo_tree(
            checkpoint.repository, revision=checkpoint.revision, recursive=True
        )
        there = [entry.path for entry in listed if isinstance(entry, RepoFile)]
        files = [path for path in there if any(fnmatch.fnmatch(path, one) for one in FILES)]
        lines.append(_line(checkpoint.repository, files, checkpoint.revision))
    if (lora := checkpoint.lora) and lora.repository:
        lines.append(_line(lora.repository, [lora.filename], lora.revision))
    return lines


def _line(repository: str, files: list[str], revision: str | None) -> str:
    return " ".join(filter(None, (repository, ",".join(sorted(files)), revision)))
