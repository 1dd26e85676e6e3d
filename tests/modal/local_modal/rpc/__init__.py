"""The calls of Modal's client, by name: `async (request, container or None) -> reply`.

A generator answers a call whose reply is a stream. None is an empty reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from tests.modal.local_modal.records import Container

if TYPE_CHECKING:
    from tests.modal.local_modal.platform import Platform


class Handlers:
    """Some of the calls, over the platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform


async def nothing_to_do(_self: Any, _request: Message, _container: Container | None) -> None:
    """For a call that an empty reply is enough for."""
