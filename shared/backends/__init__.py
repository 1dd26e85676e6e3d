"""Backends: anything that turns a request into a stream of events."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from shared.contract import BackendStatus, Event, GenerationRequest
from shared.errors import InvalidSetting, UnknownBackend
from shared.settings import settings


class Backend(Protocol):
    """One verb and a close; to cancel a generation is to stop reading its stream."""

    name: str

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of one generation, ending with `Done`.

        Raises `CygnetError` when the work cannot be done. Closing the generator (`aclose`) cancels.
        """
        ...

    async def status(self) -> BackendStatus:
        """What can be said without waking a GPU."""
        ...

    async def aclose(self) -> None:
        """Cancel what runs, and let go of everything."""
        ...


def _local(previews: bool) -> Backend:
    from shared.backends.local import LocalBackend

    return LocalBackend(settings().acceleration, previews)


def _fake(_previews: bool) -> Backend:
    from shared.backends.fake import FakeBackend

    return FakeBackend()


def _api(_previews: bool) -> Backend:
    from shared.backends.api_client import ApiBackend

    if not (url := settings().api_url):
        raise InvalidSetting("CYGNET_API_URL is not set.", "Set it to the server's address.")
    keys = settings().api_keys
    return ApiBackend(url, keys[0].get_secret_value() if keys else "")


def _modal(_previews: bool) -> Backend:
    from shared.backends.modal.client import ModalBackend

    url, key = settings().modal_url, settings().modal_key
    if not url:
        raise InvalidSetting(
            "CYGNET_MODAL_URL is not set.", "Set it to the address that modal deploy printed."
        )
    return ModalBackend(url, key.get_secret_value() if key else "")


# Imported when opened: the local backend brings torch with it, the one of an API httpx.
_OPENERS = {"local": _local, "api": _api, "modal": _modal, "fake": _fake}


def find_backend(name: str, previews: bool = False) -> Callable[[], Backend]:
    """What opens the backend of that name, with previews in its steps if it can.

    Raises `UnknownBackend`.
    """
    if opener := _OPENERS.get(name):
        return functools.partial(opener, previews)
    raise UnknownBackend(
        f"There is no backend named {name[:100]!r}.", f"Choose one of {', '.join(_OPENERS)}."
    )
