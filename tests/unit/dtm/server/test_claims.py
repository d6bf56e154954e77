"""What claims leave to clients; the engine is looked at through a window."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from kit.dtm.core.model import Transaction
from kit.dtm.server.claims import BATCH, SMALL_BATCH, Claims
from kit.dtm.server.engine import Engine
from kit.dtm.store import Held
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Status, TransType
from kit.testing import ManualClock

DUE = 3 * BATCH


class Asked(MemoryStore):
    """A store that remembers how much each claim asked for."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.limits: list[int] = []

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        self.limits.append(limit)
        return await super().claim(owner, limit, lease_s=lease_s)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[Asked]:
    async with Asked(clock) as made:
        for number in range(DUE):
            await made.create(
                Transaction(
                    f"g{number}",
                    TransType.MSG,
                    Status.SUBMITTED,
                    next_cron_time=clock.now_ms(),
                )
            )
        yield made


def claims(store: Asked, clock: ManualClock, engine: Any) -> Claims:
    return Claims(store, cast("Engine", engine), clock, owner="one")


class Window:
    """An engine that starts nothing, and has had a request each time it is looked at or not."""

    def __init__(self, *, busy: bool) -> None:
        self.room = BATCH
        self.woken: list[str] = []
        self.turns: list[int] = []
        self._busy = busy
        self._looked = 0
        self.passed = 0

    @property
    def requests(self) -> int:
        self._looked += self._busy
        return self._looked

    def wake(self, held: Held, asked: float) -> None:
        self.woken.append(held.tx.gid)
        self.turns.append(self.passed)


async def run(engine: Window, looping: Claims, enough: int) -> None:
    """Let claims run until so many were woken, counting the turns of the loop."""
    task = asyncio.create_task(looping.run())
    try:
        async with asyncio.timeout(10):
            while len(engine.woken) < enough:
                await asyncio.sleep(0)
                engine.passed += 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_while_clients_ask_few_are_claimed_and_woken_one_by_one(
    store: Asked, clock: ManualClock
) -> None:
    """Between two of them the loop belongs to whoever asks."""
    engine = Window(busy=True)
    await run(engine, claims(store, clock, engine), SMALL_BATCH)
    assert store.limits[0] == SMALL_BATCH
    assert len(set(engine.turns)) == SMALL_BATCH


async def test_when_nobody_asks_many_are_claimed_and_woken_at_once(
    store: Asked, clock: ManualClock
) -> None:
    """An idle coordinator brings a backlog forward as fast as it can."""
    engine = Window(busy=False)
    await run(engine, claims(store, clock, engine), BATCH)
    assert store.limits[0] == BATCH
    assert len(set(engine.turns)) == 1


async def test_a_coordinator_that_stops_meanwhile_has_woken_all_that_it_claimed(
    store: Asked, clock: ManualClock
) -> None:
    """Their leases are given back by the engine, which knows nothing of one that was not woken."""
    engine = Window(busy=True)
    await run(engine, claims(store, clock, engine), 1)
    assert len(engine.woken) == SMALL_BATCH
