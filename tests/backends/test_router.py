"""The choice among backends: who serves, why, and what is never done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from shared.backends import Backend, Opening
from shared.backends.config import AUTO, BackendConfig, Backends, Limits
from shared.backends.fake import FakeBackend
from shared.backends.ledger import Ledger
from shared.backends.router import FRESH_SECONDS, Router
from shared.contract import (
    BackendStatus,
    Done,
    Event,
    GenerationRequest,
    Step,
    collect,
    parse_request,
)
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CygnetError,
    InvalidRequest,
    InvalidSetting,
    OutOfMemory,
    QueueFull,
    SpendingLimit,
    UnknownBackend,
)

pytestmark = pytest.mark.anyio

REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


DOWN = BackendUnavailable("It is down.", "Wait.")


async def test_auto_takes_the_healthy_then_the_warm_then_the_users_order(house: MakeHouse) -> None:
    asleep, ill = Stage(warm=False), Stage(healthy=False)
    made = house(a=ill, b=asleep, c=Stage(), d=Stage())
    told = "the first that is warm. a did not serve: It rests."
    assert await made.ask() == ("c", told)
    assert (ill.served, asleep.served) == (0, 0)


async def test_auto_takes_a_cold_one_where_none_is_warm(house: MakeHouse) -> None:
    made = house(a=Stage(warm=False), b=Stage(warm=False))
    assert await made.ask() == ("a", "the first that answers, none being warm.")


async def test_auto_passes_over_who_lacks_the_checkpoint(house: MakeHouse) -> None:
    made = house(a=Stage(checkpoints=("wan2.1-14b",)), b=Stage(checkpoints=()))
    who, why = await made.ask()
    assert (who, "a did not serve: it has no cygnet-tiny." in why) == ("b", True)


@pytest.mark.parametrize(
    "error",
    [DOWN, QueueFull("Full.", "Wait."), OutOfMemory("No.", "Less."), InvalidSetting("No.", "Set.")],
    ids=lambda error: error.code,
)
async def test_where_one_fails_before_its_work_the_next_is_tried_and_it_is_said(
    house: MakeHouse, error: CygnetError
) -> None:
    made = house(a=Stage(before=error), b=Stage())
    why = f"the first that is warm. a did not serve: {error.message}"
    assert await made.ask() == ("b", why)


@pytest.mark.parametrize("seen", [True, False], ids=["a step came", "only the server knows"])
async def test_work_that_may_have_begun_is_never_sent_elsewhere(
    house: MakeHouse, seen: bool
) -> None:
    error, spare = BackendUnavailable("It broke.", "Look."), Stage()
    error.began = not seen
    made = house(a=Stage(after=error) if seen else Stage(before=error), b=spare)
    with pytest.raises(BackendUnavailable, match=r"a did not serve: It broke\. Nothing was sent"):
        await made.ask()
    assert spare.served == 0


@pytest.mark.parametrize("error", [InvalidRequest("No.", "Mend."), Cancelled("Stopped.", "Again.")])
async def test_what_nobody_could_do_better_is_not_tried_elsewhere(
    house: MakeHouse, error: CygnetError
) -> None:
    spare = Stage()
    with pytest.raises(type(error)) as refused:
        await house(a=Stage(before=error), b=spare).ask()
    assert (refused.value.message, spare.served) == (error.message, 0)


async def test_a_backend_that_was_named_has_no_substitute(house: MakeHouse) -> None:
    made = house(a=Stage(before=DOWN), b=Stage())
    assert await made.ask("b") == ("b", "asked for by name.")
    with pytest.raises(BackendUnavailable, match=r"^It is down\. Wait\.$"):
        await made.ask("a")
    with pytest.raises(UnknownBackend):
        await made.ask("c")
    assert made.stages["b"].served == 1


async def test_where_all_fail_each_is_named_and_the_last_error_stays(house: MakeHouse) -> None:
    made = house(
        a=Stage(healthy=False),
        b=Stage(before=DOWN),
        c=Stage(before=OutOfMemory("No room.", "Less.")),
    )
    with pytest.raises(OutOfMemory) as refused:
        await made.ask()
    assert refused.value.message == (
        "a did not serve: It rests. b did not serve: It is down. c did not serve: No room."
    )
    with pytest.raises(BackendUnavailable, match=r"No backend can draw this\. a did not serve"):
        await house(a=Stage(healthy=False)).ask()


async def test_only_the_last_in_line_is_waited_for(house: MakeHouse) -> None:
    made = house(a=Stage(before=DOWN), b=Stage())
    await made.ask()
    assert made.opened == [("a", False), ("b", False), ("a", True)]


async def test_a_status_is_asked_once_for_all_and_believed_for_a_while(house: MakeHouse) -> None:
    stage = Stage()
    made = house(a=stage)
    router = made.router()
    await asyncio.gather(*(router.statuses() for _ in range(10)))
    made.time = FRESH_SECONDS - 1
    await router.statuses()
    assert stage.asked == 1
    made.time = FRESH_SECONDS + 1
    await router.statuses()
    assert stage.asked == 2


async def test_after_a_call_its_backend_is_asked_anew(house: MakeHouse) -> None:
    stage = Stage()
    router = house(a=stage).router()
    for asked in (1, 2):
        await collect(router.generate(REQUEST))
        assert stage.asked == asked


async def test_the_table_has_what_one_chooses_by(house: MakeHouse) -> None:
    made = house(a=Stage(warm=False), b=Stage(healthy=False))
    made.prices["a"] = 0.25
    first, second = await made.router().statuses()
    assert (first.name, first.rank, first.healthy, first.warm) == ("a", 1, True, False)
    assert (first.price_usd, first.wait_seconds, first.checkpoints) == (
        0.25,
        None,
        ("cygnet-tiny",),
    )
    assert (second.healthy, second.detail) == (False, "It rests.")
    await made.ask()
    first, _ = await made.router().statuses()
    assert first.wait_seconds is not None and first.wait_seconds >= 0


async def test_a_router_says_of_itself_what_its_backends_can(house: MakeHouse) -> None:
    made = house(a=Stage(healthy=False), b=Stage(warm=False))
    one, both = await made.router("b").status(), await made.router().status()
    assert (one.name, one.healthy, one.warm) == ("b", True, False)
    assert (both.name, both.healthy, both.warm) == ("auto", True, False)
    assert both.checkpoints == ("cygnet-tiny",)
    nobody = await house(a=Stage(healthy=False)).router().status()
    assert (nobody.healthy, nobody.detail) == (False, "No backend answers.")


async def test_every_backend_that_was_opened_is_closed(house: MakeHouse) -> None:
    made = house(a=Stage(before=DOWN), b=Stage())
    router = made.router()
    await collect(router.generate(REQUEST))
    await router.aclose()
    assert (made.stages["a"].closed, made.stages["b"].closed) == (2, 1)


# The guard.


async def test_a_price_becomes_the_cost_of_a_result(house: MakeHouse) -> None:
    made = house(a=Stage())
    made.prices["a"] = 0.25
    router = made.router("a")
    request = REQUEST.model_copy(update={"num_images": 2})
    result, _ = await collect(router.generate(request))
    assert result.cost_usd == 0.5


async def test_a_limit_refuses_with_the_figure_before_anything_is_sent(house: MakeHouse) -> None:
    made = house(Limits(per_image=0.1), a=Stage())
    made.prices["a"] = 0.25
    with pytest.raises(SpendingLimit, match=r"about \$0\.25, and may cost \$0\.10"):
        await made.ask("a")
    assert made.stages["a"].served == 0


async def test_a_day_has_its_limit_across_routers(house: MakeHouse) -> None:
    made = house(Limits(per_day=0.6), a=Stage())
    made.prices["a"] = 0.25
    await made.ask("a", num_images=2)
    with pytest.raises(SpendingLimit, match=r"\$0\.25 on a, and of \$0\.60 .* \$0\.50 is spent"):
        await made.ask("a")
    assert made.stages["a"].served == 1


async def test_calls_have_their_limit_and_those_that_were_not_made_do_not_count(
    house: MakeHouse,
) -> None:
    made = house(Limits(calls_per_day=2), a=Stage(before=DOWN), b=Stage())
    assert [(await made.ask())[0] for _ in range(2)] == ["b", "b"]
    with pytest.raises(SpendingLimit, match="2 calls were made today"):
        await made.ask("b")


async def test_auto_goes_past_what_costs_too_much_and_says_so(house: MakeHouse) -> None:
    made = house(Limits(per_image=0.1), a=Stage(), b=Stage())
    made.prices["a"] = 0.25
    who, why = await made.ask()
    assert who == "b"
    assert "a did not serve: A picture on a costs about $0.25, and may cost $0.10." in why


async def test_of_calls_at_once_no_more_are_made_than_the_limit_allows(house: MakeHouse) -> None:
    made = house(Limits(per_day=1.0), a=Stage())
    made.prices["a"] = 0.25
    routers = [made.router("a") for _ in range(3)]

    async def call(router: Router) -> bool:
        try:
            await collect(router.generate(REQUEST))
        except SpendingLimit:
            return False
        return True

    went = await asyncio.gather(*(call(router) for router in routers for _ in range(4)))
    assert sum(went) == made.stages["a"].served == 4


async def test_a_price_that_nobody_knows_is_refused_where_dollars_are_limited(
    house: MakeHouse,
) -> None:
    made = house(Limits(per_day=1.0), a=Stage())
    made.prices["a"] = None
    with pytest.raises(SpendingLimit, match="is not known"):
        await made.ask("a")


async def test_the_last_event_is_still_the_last(house: MakeHouse) -> None:
    router = house(a=Stage()).router()
    events = [event async for event in router.generate(REQUEST)]
    assert [isinstance(event, Done) for event in events].index(True) == len(events) - 1
