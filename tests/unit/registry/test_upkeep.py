"""Rounds that make something so, and so again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit import log
from kit.errors import Error, ServiceUnavailable
from kit.outage import Outage
from kit.registry.upkeep import Upkeep


class Refused(Error):
    def __init__(self) -> None:
        super().__init__(403, "REFUSED", "no")


class Thing(Upkeep[str]):
    """Is made so when the test says."""

    errors = Error
    refusals = Refused

    def __init__(self) -> None:
        super().__init__("thing", Outage("test", log.get_logger()).part("thing"), 0.02)
        self.outcomes: list[Exception | float] = []
        self.upheld: list[str] = []

    async def uphold(self, value: str) -> float:
        outcome = self.outcomes.pop(0) if self.outcomes else 60.0
        if isinstance(outcome, Exception):
            raise outcome
        self.upheld.append(value)
        return outcome


@asynccontextmanager
async def thing(*outcomes: Exception | float) -> AsyncIterator[Thing]:
    made = Thing()
    made.outcomes = list(outcomes)
    try:
        async with asyncio.timeout(10):
            yield made
    finally:
        await made.stop(Refused())


async def test_it_is_tried_until_it_is_so_and_then_looked_at_when_due() -> None:
    """Also after a fault of ours."""
    async with thing(ServiceUnavailable("X", "away"), KeyError("fault"), 0.01, 0.01) as upkeep:
        assert await upkeep.announce("a") is None
        assert upkeep.failure is None
        while len(upkeep.upheld) < 3:
            await asyncio.sleep(0.001)
    assert upkeep.upheld == ["a"] * 3


async def test_a_refusal_is_told_at_once_and_tried_on() -> None:
    """Somebody may grant what is missing."""
    async with thing(Refused()) as upkeep:
        assert isinstance(await upkeep.announce("a"), Refused)
        while not upkeep.upheld:
            await asyncio.sleep(0.001)


async def test_a_new_value_takes_the_place_of_the_old_one_at_once() -> None:
    """Who waits for the old one is told that it is over."""
    async with thing() as upkeep:
        await upkeep.announce("a")
        await upkeep.announce("b")
        assert upkeep.upheld == ["a", "b"]


async def test_who_waits_when_it_is_stopped_is_told() -> None:
    """And nothing is tried any more."""
    async with thing(*[ServiceUnavailable("X", "away")] * 1000) as upkeep:
        waiting = upkeep.announce("a")
        await asyncio.sleep(0)
        await upkeep.stop(Refused())
        assert isinstance(await waiting, Refused)
    assert upkeep.upheld == []
