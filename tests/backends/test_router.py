"""The choice among backends: who serves, why, and what is never done twice."""

from __future__ import annotations

import asyncio

import pytest

from shared.backends.router import FRESH_SECONDS
from shared.contract import Done, collect
from shared.errors import (
    BackendUnavailable,
    Cancelled,
    CheckpointMissing,
    CygnetError,
    InvalidRequest,
    InvalidSetting,
    OutOfMemory,
    QueueFull,
    UnknownBackend,
)
from tests.backends.house import DOWN, REQUEST, MakeHouse, Stage

pytestmark = pytest.mark.anyio


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


async def test_a_space_that_did_not_say_which_checkpoints_it_has_lets_auto_go_on(
    house: MakeHouse,
) -> None:
    error = CheckpointMissing("This Space holds wan2.1-14b alone.", "Use that.")
    made = house(a=Stage(checkpoints=(), before=error), b=Stage())
    who, why = await made.ask()
    assert (who, "a did not serve: This Space holds wan2.1-14b alone." in why) == ("b", True)
    assert made.stages["a"].served == 1


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


async def test_the_last_event_is_still_the_last(house: MakeHouse) -> None:
    router = house(a=Stage()).router()
    events = [event async for event in router.generate(REQUEST)]
    assert [isinstance(event, Done) for event in events].index(True) == len(events) - 1
