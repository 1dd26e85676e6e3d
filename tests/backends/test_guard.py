"""Limits on what is spent: held before a call is made, whoever makes it."""

from __future__ import annotations

import asyncio

import pytest

from shared.backends.config import Limits
from shared.backends.router import Router
from shared.contract import collect
from shared.errors import SpendingLimit
from tests.backends.house import DOWN, REQUEST, MakeHouse, Stage

pytestmark = pytest.mark.anyio


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
