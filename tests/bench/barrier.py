"""What a barrier costs: the same statement with it and without, on every database.

Bare is the statement in a transaction of its own, as a careful program writes it; in Redis, which
has no such thing, a script that checks and adjusts. Rounds of both alternate. Statements are those
that reach the database, BEGIN and COMMIT among them: each is a round trip where there is a server.

Run: ``python -m tests.bench.barrier [--calls 100] [--rounds 9]``; 1 is the code of a missed figure.
A database that is not installed is left out by name.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiosqlite
import asyncmy
import asyncpg
import pytest
import redis.asyncio

from kit.dtm.barrier import BranchBarrier
from kit.dtm.barrier.redis import acheck_adjust
from kit.dtm.barrier.table import acreate_table
from kit.testing.mariadb import mariadb_server
from kit.testing.postgres import postgres_server
from kit.testing.redis import redis_server

REACH = 1
UPDATE = "UPDATE account SET cents = cents + 1 WHERE name = 'ann'"
TABLE = "CREATE TABLE account (name VARCHAR(20) PRIMARY KEY, cents BIGINT)"
ROW = "INSERT INTO account VALUES ('ann', 0)"
ADJUST = """
local balance = redis.call('GET', KEYS[1])
if balance == false or balance + ARGV[1] < 0 then return 'FAILURE' end
redis.call('INCRBY', KEYS[1], ARGV[1])
return 'DONE'
"""

_gids = itertools.count(1)

Call = Callable[[], Awaitable[object]]


@dataclass
class Subject:
    """One database.

    Attributes:
        trips: says how often it was asked until now.
        remote: whether a statement is a round trip; SQLite runs in the process.
    """

    bare: Call
    guarded: Call
    trips: Callable[[], Awaitable[int]]
    remote: bool = True


def barrier() -> BranchBarrier:
    return BranchBarrier("saga", f"bench-{next(_gids)}", "01", "action")


@asynccontextmanager
async def sqlite() -> AsyncIterator[Subject]:
    with tempfile.TemporaryDirectory(dir=".") as folder:  # /tmp may be no disk
        async with aiosqlite.connect(Path(folder) / "bench.db") as db:
            await db.execute("PRAGMA journal_mode = WAL")
            await acreate_table(db)
            await db.execute(TABLE)
            await db.execute(ROW)
            await db.commit()
            seen: list[str] = []
            await db.set_trace_callback(seen.append)

            async def bare() -> None:
                await db.execute("BEGIN IMMEDIATE")
                await db.execute(UPDATE)
                await db.commit()

            async def trips() -> int:
                return len(seen)

            yield Subject(
                bare, lambda: barrier().acall(db, lambda: db.execute(UPDATE)), trips, remote=False
            )


@asynccontextmanager
async def postgres() -> AsyncIterator[Subject]:
    async with postgres_server() as server:
        db = await asyncpg.connect(**server.settings)
        await acreate_table(db)
        await db.execute(TABLE)
        await db.execute(ROW)
        seen: list[object] = []
        db.add_query_logger(seen.append)

        async def bare() -> None:
            async with db.transaction():
                await db.execute(UPDATE)

        async def trips() -> int:
            return len(seen)

        yield Subject(bare, lambda: barrier().acall(db, lambda: db.execute(UPDATE)), trips)
        await db.close()


@asynccontextmanager
async def mariadb() -> AsyncIterator[Subject]:
    async with mariadb_server(own=True) as server:
        db = await asyncmy.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            db="mysql",
            autocommit=True,
        )

        async def ask(text: str) -> Any:
            async with db.cursor() as cursor:
                await cursor.execute(text)
                return await cursor.fetchall() if cursor.description else None

        await acreate_table(db)
        await ask("CREATE DATABASE bench")
        await ask("USE bench")
        await ask(f"{TABLE} ENGINE=InnoDB")
        await ask(ROW)

        async def bare() -> None:
            await db.begin()
            await ask(UPDATE)
            await db.commit()

        async def trips() -> int:
            rows = await ask("SHOW SESSION STATUS LIKE 'Questions'")
            asked["status"] += 1
            return int(rows[0][1]) - asked["status"]

        asked = {"status": 0}
        yield Subject(bare, lambda: barrier().acall(db, lambda: ask(UPDATE)), trips)
        await db.ensure_closed()


@asynccontextmanager
async def redis_() -> AsyncIterator[Subject]:
    async with redis_server() as server:
        host, port = server.address.rsplit(":", 1)
        client = redis.asyncio.Redis(host=host, port=int(port))
        await client.set("ann", 0)

        async def trips() -> int:
            stats = await client.info("commandstats")
            names = ("cmdstat_eval", "cmdstat_evalsha")
            return sum(int(stats.get(name, {"calls": 0})["calls"]) for name in names)

        yield Subject(
            lambda: client.eval(ADJUST, 1, "ann", 1),
            lambda: acheck_adjust(barrier(), client, "ann", 1),
            trips,
        )
        await client.aclose()


SUBJECTS = {
    "SQLite (aiosqlite)": sqlite,
    "PostgreSQL (asyncpg)": postgres,
    "MariaDB (asyncmy)": mariadb,
    "Redis": redis_,
}


async def measure(name: str, calls: int, rounds: int) -> bool:
    """Print the row of one database; whether it is within reach."""
    async with AsyncExitStack() as stack:
        subject = await stack.enter_async_context(SUBJECTS[name]())

        async def timed(call: Call) -> float:
            began = time.perf_counter()
            for _ in range(calls):
                await call()
            return (time.perf_counter() - began) / calls * 1e6

        async def counted(call: Call) -> int:
            before = await subject.trips()
            await call()
            return await subject.trips() - before

        await timed(subject.bare)
        await timed(subject.guarded)
        trips = [await counted(call) for call in (subject.bare, subject.guarded)]
        pairs = [(await timed(subject.bare), await timed(subject.guarded)) for _ in range(rounds)]
    bare, guarded = (statistics.median(side) for side in zip(*pairs, strict=True))
    more = statistics.median(with_it - without for without, with_it in pairs)
    added = trips[1] - trips[0]
    print(
        f"| {name} | {trips[0]} | {trips[1]} | {added:+d} | {bare:.0f} | {guarded:.0f} "
        f"| {more:+.0f} |",
        flush=True,
    )
    return added <= REACH or not subject.remote


async def measured(name: str, calls: int, rounds: int) -> bool:
    """As :func:`measure`; a database that is absent misses nothing."""
    try:
        return await measure(name, calls, rounds)
    except pytest.skip.Exception as absent:
        print(f"| {name} | {absent} | | | | | |", flush=True)
        return True


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.barrier")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    print("| database | statements bare | with barrier | more | µs bare | with barrier | more |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    missed = [name for name in SUBJECTS if not await measured(name, given.calls, given.rounds)]
    verdict = f"missed by {', '.join(missed)}" if missed else "met"
    print(f"\nReach: at most +{REACH} round trip, of which SQLite has none: {verdict}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
