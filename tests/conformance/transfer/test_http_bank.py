"""Transfers in all five modes over HTTP on three databases, while everybody is killed at random.

Branches are refused, answered late or with a lost answer, and called again; see ``http_bank``.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from kit.ports import free_port
from tests.conformance.transfer.http_bank import OPENING, USERS
from tests.conformance.transfer.test_modes import MODES, Bank, bank_on, has_xa, skipping, unfinished
from tests.processes import Process, Processes, processes

ROOT = Path(__file__).parents[3]
PROGRAM = (sys.executable, "-m", "tests.conformance.transfer.http_bank")
COUNT = 20


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
async def bank(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bank]:
    async with bank_on(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path) as owner:
        yield owner


class World:
    """The coordinator, the bank's service and clients, each to be killed."""

    def __init__(self, run: Processes, bank: Bank, rng: random.Random, trouble: float) -> None:
        self.run = run
        self.bank = bank
        self.rng = rng
        self.trouble = trouble
        self.modes = [mode for mode in MODES if mode != "xa" or has_xa(bank)]
        self.grpc, self.http, self.port = free_port(), free_port(), free_port()
        self.dtm = f"http://127.0.0.1:{self.http}"

    async def coordinator(self) -> Process:
        return await skipping(self.run, self.grpc, self.http)

    async def service(self) -> Process:
        process = await self.program(
            "serve", "--port", str(self.port), "--driver", self.bank.driver,
            "--source", self.bank.source, "--trouble", str(self.trouble),
        )  # fmt: skip
        await process.listens(self.port)
        return process

    async def client(self, workers: int = 3) -> Process:
        address = f"http://127.0.0.1:{self.port}"
        modes = ",".join(self.rng.sample(self.modes, len(self.modes)))
        return await self.program(
            "transfer", "--bank", address, "--modes", modes, "--count", str(COUNT),
            "--workers", str(workers),
        )  # fmt: skip

    async def program(self, what: str, *flags: str) -> Process:
        seed = ("--seed", str(self.rng.randrange(10**6)))
        command = (*PROGRAM, what, "--dtm", self.dtm, *seed, *flags)
        return await self.run.start(what, *command, env={"PYTHONPATH": str(ROOT)})

    async def ends(self, within: float = 150) -> None:
        """Let time pass until every transaction has ended."""
        async with asyncio.timeout(within), aiohttp.ClientSession(self.dtm) as session:
            while await unfinished(session):
                async with session.post("/api/dev/clock", json={"advance_s": 60}) as reply:
                    assert reply.status == 200
                await asyncio.sleep(0.3)

    async def statuses(self) -> dict[str, Counter[str]]:
        """How many transactions of each mode have ended how."""
        counts = {mode: Counter[str]() for mode in self.modes}
        async with aiohttp.ClientSession(self.dtm) as session:
            for status in ("succeed", "failed"):
                asked = {"status": status, "limit": "500"}
                async with session.get("/api/dtmsvr/all", params=asked) as reply:
                    for tx in (await reply.json())["transactions"] or ():
                        counts[tx["trans_type"]][status] += 1
        return counts


async def test_every_mode_moves_money_over_http(run: Processes, bank: Bank) -> None:
    """Without trouble, each transfer that was answered has happened, and nothing else has."""
    world = World(run, bank, random.Random(68), trouble=0.0)
    await world.coordinator()
    await world.service()
    client = await world.client(workers=1)  # two xa transfers may be in each other's way
    assert await client.ended(within=120) == 0, client.output
    assert "unknown" not in client.output
    assert client.output.count(" done") + client.output.count(" failed") == COUNT
    await world.ends()
    statuses = await world.statuses()
    for mode in world.modes:
        assert statuses[mode]["succeed"], (mode, client.output)
    assert any(statuses[mode]["failed"] for mode in world.modes), client.output
    assert sum((await bank.balances()).values()) == OPENING * len(USERS)
    assert await bank.settled()
    assert await bank.prepared() == 0


@pytest.mark.slow
async def test_the_sum_of_money_stays_over_http_whatever_is_killed(
    run: Processes, bank: Bank
) -> None:
    """Refusals, lost answers and repeats, and kill -9 of clients, bank and coordinator."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    world = World(run, bank, rng, trouble=0.08)
    coordinator = await world.coordinator()
    service = await world.service()
    for victim in ("client", "service", "coordinator"):
        clients = [await world.client(), await world.client()]
        await clients[0].says("-", within=60)
        await asyncio.sleep(rng.uniform(0.1, 1.2))
        if victim == "client":
            await clients[0].kill()
        elif victim == "service":
            await service.kill()
            service = await world.service()
        else:
            await coordinator.kill()
            coordinator = await world.coordinator()
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        for client in clients:
            await client.kill()
    await world.ends()
    await asyncio.sleep(2)  # the last repeats arrive: they must change nothing
    balances = await bank.balances()
    told = f"seed {seed}: {balances} {await world.statuses()}"
    assert sum(balances.values()) == OPENING * len(USERS), told
    assert len(set(balances.values())) > 1, f"nothing moved, {told}"
    assert await bank.settled(), told
    assert await bank.prepared() == 0, told
    for ended in (await world.statuses()).values():
        assert ended.total(), told
