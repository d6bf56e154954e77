"""The database dies, and later hangs, under load; nothing acknowledged is lost (G1, G8, G11).

Meanwhile every request is answered: UNAVAILABLE or 503, and soon.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest

from kit.testing.mariadb import MariadbServer, mariadb_server
from kit.testing.postgres import PostgresServer, postgres_server
from kit.testing.redis import RedisServer, redis_server
from tests.conformance.dtm.clients import GrpcApi, Reply, Tx, unique
from tests.conformance.dtm.coordinators import Coordinators, Settings
from tests.faults.stand import Life, Stand, stand, until_over
from tests.faults.workload import MODES, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

Server = PostgresServer | MariadbServer | RedisServer

CLIENTS = 4
ANSWERED_WITHIN_S = 8.0
"""Promised are 3; this machine may be busy. Without the limits of the stores it would be 90."""

AWAY_S = 3.6
BACK_WITHIN_S = 60.0
WARM_UP = 40

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]


@dataclass
class Answered:
    """One request: when it was sent, how long it took, and what came back."""

    at: float
    took: float
    reply: Reply


@dataclass
class Log:
    """Requests of all clients, in the order of their answers."""

    entries: list[Answered] = field(default_factory=list)

    def during(self, began: float, ended: float) -> list[Answered]:
        """Those that were under way in between, or a part of it."""
        return [one for one in self.entries if one.at < ended and one.at + one.took >= began]


class TimedApi(GrpcApi):
    """Writes down how long each call takes."""

    def __init__(self, api: GrpcApi, place: Stand, log: Log) -> None:
        super().__init__(api.channel, place.business)
        self._log = log

    async def call(self, *args: Any, **kwargs: Any) -> Reply:
        began = time.monotonic()
        reply = await super().call(*args, **kwargs)
        self._log.entries.append(Answered(began, time.monotonic() - began, reply))
        return reply


@asynccontextmanager
async def own_server(store: str) -> AsyncIterator[tuple[Server, Settings]]:
    """A server to be stopped, and the settings to reach it."""
    if store == "postgres":
        async with postgres_server() as postgres:
            at = postgres.settings
            yield (
                postgres,
                {
                    "Driver": store,
                    "Host": at["host"],
                    "Port": at["port"],
                    "User": at["user"],
                    "Password": at["password"],
                    "Db": at["database"],
                },
            )
    elif store == "mysql":
        async with mariadb_server(own=True) as maria:
            yield (
                maria,
                {
                    "Driver": store,
                    "Host": maria.host,
                    "Port": maria.port,
                    "User": maria.user,
                    "Password": maria.password,
                },
            )
    else:
        async with redis_server() as redis:
            yield redis, {"Driver": store, "Host": redis.host, "Port": redis.port}


@pytest.mark.parametrize("store", ["postgres", "mysql", "redis"])
async def test_a_database_that_dies_and_hangs_costs_nothing_acknowledged(
    deployed: Coordinators, store: str
) -> None:
    """First SIGKILL and a start, then SIGSTOP and SIGCONT."""
    print(f"repeat with: .venv/bin/pytest tests/faults/test_outages.py -k {store}")
    async with (
        own_server(store) as (server, settings),
        stand(deployed, store, Store=settings) as place,
    ):
        life = await place.begin()
        log = Log()
        load = asyncio.create_task(under_load(place, life, log))
        try:
            await outage(life, log, server.kill, server.start)
            await outage(life, log, server.freeze, server.thaw)
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        await until_over(place, life)
        await place.judge(life)
        assert await life.process.stop() == 0


async def outage(life: Life, log: Log, take: Callable[[], None], bring: Callable[[], Any]) -> None:
    """The server is away for a while; judge what clients were told meanwhile."""
    await until(lambda: successes(log.entries) >= WARM_UP, "the load does not get going")
    seen = len(log.entries)
    take()
    began = time.monotonic()
    replies: list[tuple[float, Reply]] = []
    step = {"action": life.client.business.grpc("a")}
    over_http = Tx(unique("http"), "msg", [step], options={"protocol": "grpc"})
    while time.monotonic() < began + AWAY_S:
        asked = time.monotonic()
        if len(replies) % 2:
            reply = await life.tm.http.get("query", gid="nobody")
        else:
            reply = await life.tm.http.submit(over_http)
        replies.append((time.monotonic() - asked, reply))
        await asyncio.sleep(0.05)
    ended = time.monotonic()
    if (starting := bring()) is not None:
        await starting
    back = time.monotonic()

    slow = [took for took, _ in replies if took > ANSWERED_WITHIN_S]
    assert not slow, f"HTTP took {slow} s"
    assert {reply.code for _, reply in replies} == {503}, replies
    later = len(log.entries)
    await until(lambda: successes(log.entries[later:]) >= WARM_UP, "the store is not back")
    answers = log.during(began, ended)
    assert answers, f"nobody asked anything after {seen} requests"
    late = [
        one for one in log.during(began - ANSWERED_WITHIN_S, back) if one.took > ANSWERED_WITHIN_S
    ]
    assert not late, f"gRPC took {[one.took for one in late]} s"
    assert {one.reply.code for one in answers if one.reply.code} == {UNAVAILABLE}, answers


def successes(entries: list[Answered]) -> int:
    return sum(1 for one in entries if one.reply.word == "SUCCESS")


async def under_load(place: Stand, life: Life, log: Log) -> None:
    """Clients of every mode, until cancelled."""

    async def client(name: str) -> None:
        mine = Client(TimedApi(life.client.api, place, log), place.business)
        serial = 0
        while True:
            mode = MODES[serial % len(MODES)]
            went = await mine.run(f"{mode}-{name}-{serial}", mode)
            await asyncio.sleep(0.02 if went else 0.1)
            serial += 1

    async with asyncio.TaskGroup() as clients:
        for n in range(CLIENTS):
            clients.create_task(client(f"c{n}"))


async def until(enough: Callable[[], bool], otherwise: str) -> None:
    """Wait for it."""
    try:
        async with asyncio.timeout(BACK_WITHIN_S):
            while not enough():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(otherwise)
