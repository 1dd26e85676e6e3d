"""Backends: anything that turns a request into a stream of events."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.backends.config import KEY_VARIABLES, BackendConfig, Kind, read_backends
from shared.contract import BackendStatus, Event, GenerationRequest
from shared.packages import needed
from shared.settings import settings

if TYPE_CHECKING:
    from shared.backends.router import Router


IDEMPOTENCY_KEY: ContextVar[str | None] = ContextVar("IDEMPOTENCY_KEY", default=None)
"""Names the work of the calls that follow in this context. To a server that keeps jobs, two calls of
one key are one job, which whoever comes second follows from its start. None names each call anew."""


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


@dataclass(frozen=True)
class Opening:
    """How a backend is opened."""

    previews: bool = False
    """With previews in its steps, if it can."""
    apart: bool = False
    """The engine of this machine in a process of its own: torch stays out of this one."""
    fail_fast: bool = False
    """Leave at once where the work surely has not begun: another backend can be tried."""
    priority: int | None = None
    """The urgency of its jobs on a server, from 0 to 7 (RFC 9218), if it is not the usual one."""


def _local(_config: BackendConfig, how: Opening) -> Backend:
    if how.apart:
        from shared.backends.child import ChildBackend

        return ChildBackend()

    from shared.backends.local import LocalBackend

    return LocalBackend(settings().acceleration, how.previews)


def _fake(_config: BackendConfig, _how: Opening) -> Backend:
    from shared.backends.fake import FakeBackend

    return FakeBackend()


def _api(config: BackendConfig, how: Opening) -> Backend:
    from shared.backends.api_client import ApiBackend

    return ApiBackend(
        config.required_address, config.key, fail_fast=how.fail_fast, priority=how.priority
    )


def _modal(config: BackendConfig, how: Opening) -> Backend:
    from shared.backends.modal.client import ModalBackend

    return ModalBackend(
        config.required_address, config.key, fail_fast=how.fail_fast, priority=how.priority
    )


def _space(config: BackendConfig, how: Opening) -> Backend:
    from shared.backends.space_client import SpaceBackend

    is_the_hubs = config.key_variable == KEY_VARIABLES["space"]
    return SpaceBackend(
        config.required_address,
        token=config.key if is_the_hubs else "",
        key="" if is_the_hubs else config.key,
        hub=settings().hub_url,
        fail_fast=how.fail_fast,
    )


# Imported when opened: the local backend brings torch with it, those elsewhere httpx.
_OPENERS: dict[Kind, Callable[[BackendConfig, Opening], Backend]] = {
    "local": _local,
    "api": _api,
    "modal": _modal,
    "space": _space,
    "fake": _fake,
}


def open_backend(config: BackendConfig, how: Opening | None = None) -> Backend:
    """The backend, which was not asked anything yet.

    Raises `InvalidSetting` if its address or its key is missing, `PackageMissing`.
    """
    with needed(f"The backend {config.name}", "serve"):
        return _OPENERS[config.kind](config, how or Opening())


def find_backend(
    name: str,
    previews: bool = False,
    apart: bool = False,
    priority: int | None = None,
    named: bool = True,
) -> Callable[[], Router]:
    """What opens the backend of that name, or `auto`, behind a router that says who served and why.

    `named` is False for a server, whose callers have not named what it draws on.

    Raises `UnknownBackend`, or `InvalidSetting` if the file of backends is wrong.
    """
    from shared.backends.router import Router

    backends = read_backends()
    backends.check(name)
    how = Opening(previews, apart, priority=priority)
    return functools.partial(Router, backends, name, how, named=named)
