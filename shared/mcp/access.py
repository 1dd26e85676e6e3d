"""Who calls: the holder of a key, or whoever uses this machine; and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcp.server.auth.middleware.auth_context import get_access_token


@dataclass(frozen=True)
class Rules:
    """What callers may do. Whoever started the server on their own machine may do all."""

    is_private: bool = True
    """Whether no stranger calls; else a picture is for who knows its id, and nobody may search."""
    choose_backend: bool = True
    """Among all that its operator has; else only if the server is named after `auto`."""
    limit: Callable[[str], None] = lambda _owner: None
    """Counts a call of that owner's for pictures. May raise `RateLimited`."""


def owner() -> str:
    """Whose jobs and pictures the caller may see: what stands for the key, "" where none is asked for."""
    token = get_access_token()
    return token.client_id if token else ""
