"""Coordinator processes for fault tests: armed with a failpoint, killed, started again.

A :class:`Stand` is one database, one pair of ports and one business. It starts the next life of a
coordinator on them; each life begins later than the last one ended, on its own clock.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc.aio
import pytest

from kit.ports import free_port
from kit.transport.grpc.engines import EngineName
from tests.conformance.dtm.business import grpc_branches
from tests.conformance.dtm.clients import GrpcApi, unique
from tests.conformance.dtm.coordinators import Coordinator, Coordinators, Settings
from tests.engines import chosen
from tests.faults.histories import TERMINAL, History, complaints
from tests.faults.workload import Client, Participants, stored_in
from tests.processes import Process

ENDS_WITHIN_S = 60.0

LIFE_S = 1_000
"""Between the beginnings of two lives: every lease, retry and timeout of the last one is over."""


ENGINES: dict[str, EngineName] = {"sqlite": "lean", "mysql": "lean"}
"""The gRPC engine of a store's coordinators, grpcio for others: each kind of fault meets both, and
so does each store, for ``tests/conformance/dtm`` has it the other way round.
"""


def seeded(where: str) -> random.Random:
    """A generator whose seed is printed with the command that repeats the run."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"repeat with: SEED={seed} .venv/bin/pytest {where}")
    return random.Random(seed)


def namespace(store: str) -> dict[str, str]:
    """Settings of ``Store`` that give a coordinator of its own a place that nobody else uses."""
    name = unique("faults").replace("-", "_")
    match store:
        case "postgres":
            return {"Schema": name}
        case "mysql":
            return {"Db": name}
        case "redis":
            return {"RedisPrefix": f"{{{name}}}"}
    return {}


@dataclass
class Life:
    """One process, and what talks to it."""

    process: Process
    tm: Coordinator
    client: Client


@dataclass
class Stand:
    """Where lives follow one another.

    Attributes:
        history: of all lives.
        lives: so far.
    """

    deployed: Coordinators
    store: str
    business: Participants
    settings: Settings
    history: History
    stack: AsyncExitStack
    lives: list[Life] = field(default_factory=list)

    async def begin(self, failpoint: str = "", *flags: str, **settings: Any) -> Life:
        """The next life; it may end at once when it is armed.

        Args:
            failpoint: as in ``saved:3``; empty for a life that ends when it is stopped.
            flags: after ``-c``; ``--dev`` by default.
            settings: of this life's configuration.
        """
        folder = self.deployed.folder()
        env = {"KIT_FAILPOINT": failpoint} if failpoint else {}
        given = {**self.settings, **settings}
        process = await self.deployed.launch(given, folder, flags or ("--dev",), env)
        try:
            await process.listens(given["GrpcPort"], given["HttpPort"])
        except AssertionError:
            if not failpoint or process.running:
                raise
        tm = await self.deployed.connected(self.store, given, process)
        client = Client(
            GrpcApi(await self.channel(given["GrpcPort"]), self.business), self.business
        )
        self.business.resume = client.resume
        life = Life(process, tm, client)
        self.lives.append(life)
        return life

    async def channel(self, port: int) -> grpc.aio.Channel:
        """A connection of its own: others to this port may wait for a process that was killed."""
        return await self.stack.enter_async_context(
            grpc.aio.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
            )
        )

    async def now_is_later(self, life: Life) -> None:
        """Move a life's clock behind all that earlier ones left; nothing when it has ended."""
        await self.advance(life, LIFE_S * len(self.lives))

    async def advance(self, life: Life, seconds: float) -> None:
        """Move a life's clock; nothing when it has ended."""
        try:
            await life.tm.http.post("/api/dev/clock", {"advance_s": seconds})
        except (OSError, aiohttp.ClientError):
            return

    async def judge(self, life: Life) -> None:
        """Take down what is stored at the end, and fail when anything is wrong with the run."""
        gids = [gid for gid, told in self.history.told.items() if told.stored or told.decided]
        self.history.stored = await stored_in(life.tm.query, gids)
        if found := complaints(self.history):
            pytest.fail("\n".join([*found, *(one.process.output for one in self.lives[-3:])]))
        for one in self.lives:
            assert "Traceback" not in one.process.output, one.process.output


@asynccontextmanager
async def stand(deployed: Coordinators, store: str, **settings: Any) -> AsyncIterator[Stand]:
    """A new one, with its own business and its own place in ``store``."""
    history = History()
    business = Participants(history)
    async with grpc_branches(business) as business.grpc_address, AsyncExitStack() as stack:
        found = await deployed.store_settings(store, deployed.folder())
        given = {
            "Listen": "127.0.0.1",
            "HttpPort": free_port(),
            "GrpcPort": free_port(),
            "GrpcEngine": chosen(ENGINES.get(store, "grpcio")),
            "TransCronInterval": 1,
            "MicroService": {"Driver": "dtm-driver-kratos"},
            **settings,
            "Store": {**found, **namespace(store), **settings.get("Store", {})},
        }
        made = Stand(deployed, store, business, given, history, stack)
        try:
            yield made
        finally:
            for life in made.lives:
                await life.process.reap()


async def until_over(place: Stand, life: Life) -> None:
    """Let time pass until no transaction is left that can go on."""
    await place.now_is_later(life)
    gids = list(place.history.told)
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            while gids:
                found = await asyncio.gather(*map(life.tm.query, gids))
                gids = [
                    gid
                    for gid, one in zip(gids, found, strict=True)
                    if one["transaction"] and one["transaction"]["status"] not in TERMINAL
                ]
                await place.advance(life, 100)
                await asyncio.sleep(0.05)
    except TimeoutError:
        return  # the judge names what is still going on
