"""Whose pictures are whose.

With keys, a key owns the pictures made with it. On this machine alone, they are its user's. On a page
that is open to everyone, a random token in the visitor's browser owns them: whoever has not that token
does not see them.
"""

from __future__ import annotations

import hashlib
import re
import secrets

import gradio as gr

TOKEN = re.compile(r"[0-9a-f]{32}")


def token(kept: object) -> str:
    """The browser's token, or a new one where it has none."""
    return kept if isinstance(kept, str) and TOKEN.fullmatch(kept) else secrets.token_hex(16)


def key_of(request: gr.Request) -> str:
    """By what the API's limits count the caller: the key or, where none is asked for, all as one."""
    return getattr(request.state, "owner", None) or ""


def owner_of(request: gr.Request, kept: object) -> str:
    """The owner in the gallery: what the guard found, else a digest of the browser's token.

    A digest, so that the gallery's index opens nobody's history.
    """
    known = getattr(request.state, "owner", None)
    if known is not None:
        return known
    return f"visitor:{hashlib.sha256(token(kept).encode()).hexdigest()[:32]}"
