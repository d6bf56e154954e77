"""kill -9 at every place of the engine, in every mode, on every store (G1, G2, G3, G8, G12).

A chain of lives on one database: each is armed with the next failpoint, is loaded with transactions
until it dies there, and takes up what the one before it left; so recovery is killed as well. The
last life is not armed, and the whole history is judged when everything has ended.

On SQLite each chain has one mode; on the other stores one chain has all of them, so that at every
place transactions of each mode are under way. ``EVERY=1`` gives each of those stores a chain a mode
as well, which takes some minutes more.
"""

import asyncio
import os
import random

import pytest

from kit.dtm.server import failpoints
from tests.conformance.dtm.coordinators import Coordinators
from tests.faults.stand import Life, Stand, seeded, stand, until_over
from tests.faults.workload import MODES

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = 3
TRANSACTIONS = 12
"""Of each client in one life, at the most."""

SHARED = ("postgres", "mysql", "redis")
ALONE = ("sqlite", *SHARED) if os.environ.get("EVERY") else ("sqlite",)
"""Stores on which each mode has a chain of its own."""

DIES_WITHIN_S = 60.0
LATEST_VISIT = {"saving": 9, "saved": 9, "calling": 4, "called": 4, "answering": 3}
"""What the load reaches surely in every mode."""

Plan = list[tuple[str, int]]


def reached(mode: str) -> tuple[str, ...]:
    """The failpoints of ``mode``: who submits a workflow never waits for a round."""
    names = failpoints.NAMES
    return tuple(name for name in names if (mode, name) != ("workflow", "answering"))


def plan(rng: random.Random, *names: str) -> Plan:
    """Each failpoint once, in any order, at any visit."""
    shuffled = rng.sample(names, len(names))
    return [(name, rng.randint(1, LATEST_VISIT[name])) for name in shuffled]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("store", ALONE)
async def test_a_killed_coordinator_loses_and_reverses_nothing(
    deployed: Coordinators, store: str, mode: str
) -> None:
    """Mode by mode: every kill meets this mode."""
    rng = seeded(f"tests/faults/test_failpoints.py -k '{store}-{mode}]'")
    await chain(deployed, store, (mode,), plan(rng, *reached(mode)))


@pytest.mark.parametrize("store", SHARED)
async def test_a_killed_coordinator_leaves_a_shared_store_whole(
    deployed: Coordinators, store: str
) -> None:
    """All modes at once, on stores whose leases outlive their owner."""
    rng = seeded(f"tests/faults/test_failpoints.py -k {store}")
    await chain(deployed, store, MODES, plan(rng, *failpoints.NAMES))


async def chain(deployed: Coordinators, store: str, modes: tuple[str, ...], planned: Plan) -> None:
    """Live and die through ``planned``, then live on and be judged."""
    print(f"{store}, {', '.join(modes)}: killed at {planned}")
    async with stand(deployed, store) as place:
        for name, visit in planned:
            life = await place.begin(f"{name}:{visit}")
            await load_until_dead(place, life, modes)
            assert f"failpoint {name}" in life.process.output, (
                f"{name}:{visit} did not fire: {life.process.output}"
            )
        last = await place.begin()
        await until_over(place, last)
        await place.judge(last)
        assert await last.process.stop() == 0


async def load_until_dead(place: Stand, life: Life, modes: tuple[str, ...]) -> None:
    """Take up what is left, submit more, and call workflows back, until the process is killed."""
    await place.now_is_later(life)
    number = len(place.lives)

    async def client(name: str) -> None:
        for serial in range(TRANSACTIONS):
            mode = modes[serial % len(modes)]
            gid = f"{mode}-{number}-{name}-{serial}"
            leave = serial // len(modes) % 2 == 0
            if not await life.client.run(gid, mode, leave=leave):
                return

    async with asyncio.TaskGroup() as clients:
        for n in range(CLIENTS):
            clients.create_task(client(f"c{n}"))
    try:
        async with asyncio.timeout(DIES_WITHIN_S):
            while life.process.running:
                await place.advance(life, 100)
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"the planned failpoint did not fire:\n{life.process.output}")
    await life.process.ended()


async def test_every_failpoint_has_a_last_visit() -> None:
    """A new failpoint has to be planned for."""
    assert set(LATEST_VISIT) == set(failpoints.NAMES)
    assert os.environ.get(failpoints.VARIABLE) is None
