"""Following a part of Consul, told by a client that plays the answers."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from kit.consul import ConsulError, ConsulUnavailable, Listing, follow
from kit.testing import ManualClock

AWAY = ConsulUnavailable("h:1", "refused")


class Player:
    """A client whose answers are given; it notes what it was asked to wait for."""

    def __init__(self, *answers: Listing | ConsulError) -> None:
        self._answers = list(answers)
        self.waited_for: list[int | None] = []

    async def get(
        self, *path: str, query: Mapping[str, str] | None = None, index: int | None = None
    ) -> Listing:
        assert path == ("kv", "a")
        self.waited_for.append(index)
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, ConsulError):
            raise answer
        return answer


async def told(player: Player, number: int) -> tuple[list[Any], list[str]]:
    """The first values, and what was reported meanwhile; every pause passes at once."""
    clock, reports, values = ManualClock(), list[str](), list[Any]()

    async def read() -> None:
        def report(error: ConsulError | None) -> None:
            reports.append("up" if error is None else error.message)

        states = follow(player, "kv", "a", report=report, clock=clock)  # type: ignore[arg-type]
        async with aclosing(states):
            async for value in states:
                values.append(value)
                if len(values) == number:
                    return

    reading = asyncio.ensure_future(read())
    async with asyncio.timeout(5):
        while not reading.done():
            await asyncio.sleep(0)
            clock.advance(10)
    await reading
    return values, reports


async def test_each_answer_waits_for_a_later_state_than_the_last() -> None:
    """The index of one is what the next waits with."""
    player = Player(Listing("a", 5), Listing("b", 7), Listing("c", 9))
    assert await told(player, 3) == (["a", "b", "c"], ["up"] * 3)
    assert player.waited_for == [0, 5, 7]


async def test_an_index_that_went_back_begins_anew() -> None:
    """After a restore the old one would be waited for in vain."""
    player = Player(Listing("a", 500), Listing("b", 3), Listing("b", 3), Listing("c", 4))
    await told(player, 4)
    assert player.waited_for == [0, 500, 0, 3]


async def test_after_an_outage_it_is_read_anew() -> None:
    """Nothing has to be known of what was missed."""
    player = Player(Listing("a", 5), AWAY, AWAY, Listing("b", 2))
    values, reports = await told(player, 2)
    assert values == ["a", "b"]
    assert reports == ["up", "consul at h:1: refused", "consul at h:1: refused", "up"]
    assert player.waited_for == [0, 5, 0, 0]


async def test_an_answer_without_index_is_asked_for_now_and_then() -> None:
    """And not in a tight loop: each round takes a pause of the clock."""
    player = Player(Listing("a", 0), Listing("b", 0), Listing("c", 0))
    assert (await told(player, 3))[0] == ["a", "b", "c"]
    assert player.waited_for == [0, 0, 0]
