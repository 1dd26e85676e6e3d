"""What Cygnet asks of the platform, so that neither the web door nor a test needs Modal itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from shared.contract import GenerationRequest


class Table(Protocol):
    """Rows by key, which all containers see. A row that is left alone for seven days is gone."""

    async def get(self, key: str) -> Any:
        """None where there is no such row."""
        ...

    async def put(self, key: str, row: Any) -> None: ...

    async def put_new(self, key: str, row: Any) -> bool:
        """False, and nothing is changed, where there is such a row already."""
        ...

    async def remove(self, key: str) -> None: ...

    def items(self) -> AsyncIterator[tuple[str, Any]]: ...


@dataclass(frozen=True)
class CallStats:
    """Calls that wait and that run, and machines that are there or being started."""

    waiting: int
    running: int
    machines: int


class Calls(Protocol):
    """The calls of the machines' method that runs a job, by the ids that the platform gives them.

    All but `is_over` raise `BackendUnavailable` if the platform does not answer.
    """

    async def spawn(self, job: str, request: GenerationRequest) -> str: ...

    async def is_over(self, call: str, wait: float) -> bool:
        """Whether it has ended, after at most `wait` seconds. Raises how it failed."""
        ...

    async def cancel(self, call: str) -> None: ...

    async def stats(self) -> CallStats:
        """Wakes nothing."""
        ...
