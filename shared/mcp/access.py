"""Who calls: the holder of a key, or whoever uses this machine."""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import get_access_token


def owner() -> str:
    """Whose jobs and pictures the caller may see: what stands for the key, "" where none is asked for."""
    token = get_access_token()
    return token.client_id if token else ""
