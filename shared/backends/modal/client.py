"""The deployment of `modal_app.py` as a backend: its HTTP API, with patience for cold starts.

A deployment that nobody has used for a while has no machine. Its web door starts in seconds; the
machine that draws may take a minute or more, during which the stream says `starting` and stays open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx

from shared.backends.api_client import ApiBackend
from shared.contract import BackendStatus, Event, GenerationRequest
from shared.errors import Unauthorised

TIMEOUT = httpx.Timeout(connect=30, read=170, write=30, pool=10)
"""Modal answers within 150 s: with 303 and a new address where the work itself takes longer."""

DOOR_SECONDS = 4.0
"""How long the door may take to say how things are: less than a router waits for it."""


class ModalBackend(ApiBackend):
    """Generates on the deployment at `url`, with one of its keys."""

    name = "modal"
    timeout = TIMEOUT
    where_to_look = (
        "Check CYGNET_MODAL_URL; modal app list shows whether it is deployed, "
        "modal app logs cygnet what it says."
    )

    async def status(self) -> BackendStatus:
        """What the web door says. One that is only starting is cold, and not down."""
        try:
            async with asyncio.timeout(DOOR_SECONDS):
                return await super().status()
        except TimeoutError:
            starting = "Its web door is starting."
            return BackendStatus(name=self.name, healthy=True, warm=False, detail=starting)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    yield event
        except Unauthorised as error:
            error.next_step = "Set CYGNET_MODAL_KEY to the key in its secret, cygnet."
            raise
