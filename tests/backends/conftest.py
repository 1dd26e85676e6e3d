"""What the tests of the router and of its limits share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.backends.config import Limits
from tests.backends.house import House, MakeHouse, Stage


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MakeHouse]:
    made: list[House] = []

    def make(limits: Limits | None = None, **stages: Stage) -> House:
        made.append(House(tmp_path, limits, **stages))
        return made[-1]

    yield make
    for one in made:
        for router in one.routers:
            await router.aclose()
