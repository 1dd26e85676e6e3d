"""Who calls: the holder of a key, or whoever uses this machine.

The SDK's own bearer middleware does the asking; a key is not a token of OAuth, so nothing is issued
here, only compared.
"""

from __future__ import annotations

import hashlib
import hmac

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken


class Keys:
    """Lets in who shows one of the keys."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys

    async def verify_token(self, token: str) -> AccessToken | None:
        # Every key is compared, each in constant time, so that the time taken tells nothing.
        given = token.encode()
        matches = [hmac.compare_digest(given, key.encode()) for key in self._keys]
        if not any(matches):
            return None
        return AccessToken(token=token, client_id=_digest(given), scopes=[])


def owner() -> str:
    """Whose jobs and pictures the caller may see: a digest of the key, "" where none is asked for."""
    token = get_access_token()
    return token.client_id if token else ""


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]
