"""Tells an address that a job has ended: signed as Standard Webhooks describes, public places only.

An address is resolved and checked each time it is called, and the call goes to what was checked, so
that no name can lead into this network later. Redirects are not followed. This module does not know
what is told, nor when to try again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time

import httpx

from shared import http_clients
from shared.addresses import is_public
from shared.errors import InvalidRequest
from shared.resolver import Resolver

LONGEST_URL = 2000
_DELIVERY_SECONDS = 15.0
"""For all of a call, from the look-up of the name to the last header of the answer: a limit for each
part of it would be none for a receiver that sends a byte at a time."""
_LOOK_UP_SECONDS = 10.0


class WebhookSender:
    """With `private`, an address may be on this machine or network, and speak plain HTTP."""

    def __init__(self, *, private: bool = False) -> None:
        self._private = private
        # A connection was made for one name, and must not be used for another at its address.
        single_use = httpx.Limits(max_connections=32, max_keepalive_connections=0)
        self._resolver = Resolver()
        self._client = http_clients.direct_client(timeout=_DELIVERY_SECONDS, limits=single_use)

    async def check(self, url: str, owner: str = "") -> None:
        """Raises `InvalidRequest` if that address may not be called. `owner` is who waits for it."""
        await self._resolve(url, owner)

    async def send(self, url: str, message: str, body: bytes, key: bytes, owner: str = "") -> int:
        """POST the body, signed with `key`; the status of the answer, whose body is not read.

        `message` is the same at each repetition. Raises `InvalidRequest` for an address that may
        not be called, `ConnectionError` if there is no answer in time.
        """
        try:
            async with asyncio.timeout(_DELIVERY_SECONDS):
                return await self._send(url, message, body, key, owner)
        except (httpx.HTTPError, TimeoutError) as error:
            raise ConnectionError(type(error).__name__) from error

    async def aclose(self) -> None:
        self._resolver.close()
        await self._client.aclose()

    async def _send(self, url: str, message: str, body: bytes, key: bytes, owner: str) -> int:
        target, address = await self._resolve(url, owner)
        now = int(time.time())
        headers = {
            "Host": target.netloc.decode("ascii"),
            "Content-Type": "application/json",
            "User-Agent": "cygnet",
            "webhook-id": message,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(key, message, now, body),
        }
        async with self._client.stream(
            "POST",
            target.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": target.raw_host.decode("ascii")},
        ) as answer:
            return answer.status_code

    async def _resolve(self, url: str, owner: str) -> tuple[httpx.URL, str]:
        """The address taken apart, and the number that its name stands for."""
        target = self._read(url)
        host = target.raw_host.decode("ascii")
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                addresses = await self._resolver.addresses(host, owner)
        except (OSError, UnicodeError, TimeoutError):
            raise _refused("its host cannot be found") from None
        if not self._private and not all(map(is_public, addresses)):
            raise _refused("its host is not on the public internet")
        return target, addresses[0]

    def _read(self, url: str) -> httpx.URL:
        schemes = ("https", "http") if self._private else ("https",)
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError):
            raise _refused("it is no URL") from None
        if target.scheme not in schemes or not target.host:
            raise _refused(f"it does not begin with {schemes[0]}://")
        if target.userinfo:
            raise _refused("it holds a user or a password")
        if target.port is not None and not 1 <= target.port <= 65535:
            raise _refused("its port is none from 1 to 65535")
        if len(url) > LONGEST_URL:
            raise _refused(f"it is longer than {LONGEST_URL} characters")
        return target


def signature(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`; `key` is what follows `whsec_` in a secret, decoded."""
    signed = b".".join((message.encode(), str(timestamp).encode(), body))
    digest = hmac.digest(key, signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode('ascii')}"


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"webhook cannot be called: {why}.",
        "Give an https:// address on the public internet.",
        ("webhook",),
    )
