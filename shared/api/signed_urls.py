"""Addresses of images that open without a key, for a while."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from urllib.parse import urlencode

LONGEST_SIGNATURE = 43
"""Characters of 32 bytes in base64 without padding."""


def sign(keys: Sequence[str], image: str, seconds: float) -> str:
    """The query that opens the image for so many seconds from now; empty on a server without keys,
    which opens to all that reach it."""
    if not keys:
        return ""
    expires = int(time.time() + seconds)
    return urlencode({"expires": expires, "signature": _signature(keys[0], image, expires)})


def is_signed(
    keys: Sequence[str], image: str, expires: int, signature: str, seconds: float
) -> bool:
    """Whether one of the keys signed this for so many seconds, and it has not expired; nor was it
    signed when the clock was ahead, or it would open until then."""
    given = signature.encode()
    # Every key is tried, each in constant time; so a key that is no longer the first still opens.
    matches = [hmac.compare_digest(given, _signature(key, image, expires).encode()) for key in keys]
    return any(matches) and time.time() < expires <= time.time() + seconds


def _signature(key: str, image: str, expires: int) -> str:
    # The first word keeps it apart from anything else that a key may sign, such as a webhook.
    digest = hmac.digest(key.encode(), f"image\n{image}\n{expires}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
