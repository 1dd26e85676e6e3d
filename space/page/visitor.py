"""Whose pictures are whose.

With keys, a key owns the pictures made with it. On this machine alone, they are its user's. On a page
that is open to everyone, a random token in the visitor's browser owns them: whoever has not that token
does not see them. What a visitor uploads there belongs to a cookie, for a form is sent without the token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path

import gradio as gr
from starlette.requests import Request

from shared.api.origins import is_https
from shared.errors import InvalidRequest

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


def upload_of(request: gr.Request) -> Path:
    """The file that the call names; the guard found it. Raises `InvalidRequest` if it names none."""
    uploads: list[Path] = getattr(request.state, "uploads", [])
    if not uploads:
        raise InvalidRequest("No file came with the call.", "Choose the picture again.")
    return uploads[0]


class Visitors:
    """Tells browsers apart by a cookie that only this server can make."""

    COOKIE = "cygnet-visitor"

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def known(self, request: Request) -> str | None:
        """Who shows a cookie of ours."""
        visitor, _, signature = request.cookies.get(self.COOKIE, "").partition(".")
        good = hmac.compare_digest(signature.encode(), self._signature(visitor).encode())
        return visitor if good else None

    def new(self) -> str:
        return secrets.token_hex(16)

    def cookie(self, visitor: str, request: Request) -> str:
        """The header's value. In another site's page, as Spaces are shown, a browser keeps a cookie for
        that page alone, if it is told to."""
        framed = "SameSite=None; Secure; Partitioned" if is_https(request) else "SameSite=Lax"
        value = f"{visitor}.{self._signature(visitor)}"
        return f"{self.COOKIE}={value}; Path=/; HttpOnly; {framed}"

    def _signature(self, visitor: str) -> str:
        return hmac.new(self._secret, visitor.encode(), hashlib.sha256).hexdigest()
