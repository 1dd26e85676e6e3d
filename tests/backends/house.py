"""A router before backends that say and do what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from shared.backends import Backend, Opening
from shared.backends.config import AUTO, BackendConfig, Backends, Limits
from shared.backends.fake import FakeBackend
from shared.backends.ledger import Ledger
from shared.backends.router import Router
from shared.contract import BackendStatus, Event, GenerationRequest, Step, collect, parse_request
from shared.errors import BackendUnavailable, CygnetError

REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2})
DOWN = BackendUnavailable("It is down.", "Wait.")


class Stage(FakeBackend):
    """A fake that says of itself what it is told to, and fails before or after its first step."""

    def __init__(
        self,
        *,
        healthy: bool = True,
        warm: bool = True,
        checkpoints: tuple[str, ...] = ("cygnet-tiny",),
        before: CygnetError | None = None,
        after: CygnetError | None = None,
    ) -> None:
        super().__init__()
        self.told = BackendStatus(
            name="fake", healthy=healthy, warm=warm, checkpoints=checkpoints, detail="It rests."
        )
        self.before, self.after = before, after
        self.asked = self.served = self.closed = 0

    async def status(self) -> BackendStatus:
        self.asked += 1
        await asyncio.sleep(0)
        return self.told

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.served += 1
        async with aclosing(super().generate(request)) as events:
            async for event in events:
                yield event
                if isinstance(event, Step) and self.after:
                    raise self.after
                if self.before:
                    raise self.before

    async def aclose(self) -> None:
        self.closed += 1


class House:
    """A router before backends of these names, all in the order of `auto`."""

    def __init__(self, folder: Path, limits: Limits | None = None, **stages: Stage) -> None:
        self.stages = stages
        self.time = 0.0
        self.opened: list[tuple[str, bool]] = []
        self.prices: dict[str, float | None] = {}
        self.folder, self.limits = folder, limits or Limits()
        self.routers: list[Router] = []

    def router(self, name: str = AUTO) -> Router:
        known = {
            one: BackendConfig(
                name=one, kind="api", address=f"http://{one}", price=self.prices.get(one, 0.0)
            )
            for one in self.stages
        }
        backends = Backends(known, tuple(known), tuple(known), self.limits)
        ledger = Ledger(self.folder, self.limits)
        router = Router(backends, name, None, ledger, self.open, lambda: self.time)
        self.routers.append(router)
        return router

    def open(self, config: BackendConfig, how: Opening) -> Backend:
        self.opened.append((config.name, how.fail_fast))
        return self.stages[config.name]

    async def ask(self, name: str = AUTO, **fields: Any) -> tuple[str, str]:
        """Who served, and why."""
        request = REQUEST.model_copy(update=fields)
        result, _ = await collect(self.router().generate(request, name))
        return result.backend, result.backend_reason


MakeHouse = Callable[..., House]
