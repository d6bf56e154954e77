"""Speed and memory beside a growing number of unfinished transactions.

Stores hold that many transactions that are due in an hour. A coordinator on such a store and one on
an empty store take turns at the same msg transactions; then claims are timed on the store itself;
then up to 100,000 of the stored ones are due at once and the coordinator is started anew, as after
a long outage: the time from its start to the first branch call counts, imports included.

Run: ``python -m tests.bench.growth [--sizes 10000,100000] [--stores sqlite,postgres]
[--seconds 1] [--rounds 3] [--clients 32]``.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import apsw
import asyncpg

from kit.dtm.core.model import Branch, Options, Transaction
from kit.dtm.server.config import StoreSettings
from kit.dtm.server.stores import make_store
from kit.dtm.store import Store
from kit.dtm.wire import Op, Status, TransType
from kit.testing.postgres import postgres_server
from tests.bench.deployment import BenchmarkFailed, Servers, deployment, running_servers
from tests.bench.load import BRANCH_PAYLOAD

ROOT = Path(__file__).parents[2]
BACKLOG = 100_000
CLAIMS = 30
BATCH = 100
DRAINED_S = 3.0
FIRST_WITHIN_S = 30.0
AN_HOUR = 3_600_000
PATTERN = "pattern"
"""The gid of the transaction that the others are copies of."""

REACH = {"submit": 0.9, "claim": 5.0, "start": 2.0, "memory": 200.0}
"""Share of the empty store's rate; ms; seconds; MiB (design.md §7, for a million)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one number of unfinished transactions; units as their names end."""

    rate_per_s: float
    ratio: float
    claim_ms: float
    worst_claim_ms: float
    first_retry_s: float
    retries_per_s: float
    peak_mib: float

    @property
    def missed(self) -> list[str]:
        """What is not as good as it has to be."""
        met = {
            "submit": self.ratio >= REACH["submit"],
            "claim": self.claim_ms <= REACH["claim"],
            "start": self.first_retry_s <= REACH["start"],
            "memory": self.peak_mib <= REACH["memory"],
        }
        return [name for name, reached in met.items() if not reached]


def opened(settings: Mapping[str, object]) -> Store:
    """The store that a coordinator with ``settings`` would use."""
    return make_store(StoreSettings.model_validate(settings))


async def fill(settings: Mapping[str, object], number: int, sink: str) -> None:
    """Store unfinished transactions that are due in an hour and later, with random gids.

    The store writes one of them, the database copies it.
    """
    async with opened(settings) as store:
        now = await store.now_ms()
        rows = [
            Branch(branch_id, Op.ACTION, f"{sink}/api.trans.v1.Trans/{name}", BRANCH_PAYLOAD)
            for branch_id, name in (("01", "TransOut"), ("02", "TransIn"))
        ]
        pattern = Transaction(
            PATTERN,
            TransType.MSG,
            Status.SUBMITTED,
            options=Options(wait_result=True),
            branches=tuple(rows),
            create_time=now,
            update_time=now,
            next_cron_interval=10,
            next_cron_time=now + AN_HOUR,
        )
        await store.create(pattern)
    if settings["Driver"] == "sqlite":
        await asyncio.to_thread(_copy_in_sqlite, str(settings["Path"]), number - 1)
    else:
        await _copy_in_postgres(settings, number - 1)


def _copies(due: str, gid: str, numbers: str, rows: list[str], branches: list[str]) -> list[str]:
    """The statements that copy the pattern; ``due`` is the column that says when it is due."""
    rest = ", ".join(column for column in rows if column != due)
    branch = ", ".join(branches)
    read = ", ".join(f"b.{column}" for column in branches)
    return [
        f"""
        INSERT INTO trans_global (gid, {due}, {rest})
        SELECT {gid}, {due} + n.i, {rest} FROM trans_global, {numbers} WHERE gid = '{PATTERN}'
        """,
        f"""
        INSERT INTO trans_branch_op (gid, {branch})
        SELECT g.gid, {read} FROM trans_global AS g, trans_branch_op AS b
        WHERE b.gid = '{PATTERN}' AND g.gid <> '{PATTERN}'
        """,
    ]


def _copy_in_sqlite(path: str, number: int) -> None:
    db = apsw.Connection(path)

    def columns(table: str) -> list[str]:
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        return [name for name in names if name not in ("id", "gid")]

    numbers = (
        f"(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) "
        "SELECT i FROM n) AS n"
    )
    for pragma in ("synchronous = off", "cache_size = -400000"):  # KiB; a million in a minute
        db.execute(f"PRAGMA {pragma}").fetchall()
    gid = "lower(hex(randomblob(16)))"
    tables = columns("trans_global"), columns("trans_branch_op")
    with db:
        for statement in _copies("next_cron_time", gid, numbers, *tables):
            db.execute(statement)
    db.close()


async def _copy_in_postgres(settings: Mapping[str, object], number: int) -> None:
    db = await asyncpg.connect(
        host=settings["Host"],
        port=settings["Port"],
        user=settings["User"],
        password=settings["Password"],
        database=settings["Db"],
        server_settings={"search_path": settings["Schema"]},
    )

    async def columns(table: str) -> list[str]:
        found = await db.fetch(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = $1 AND table_name = $2 AND column_name NOT IN ('id', 'gid')",
            settings["Schema"],
            table,
        )
        return [row[0] for row in found]

    try:
        gid = "md5(random()::text || n.i)"
        tables = await columns("trans_global"), await columns("trans_branch_op")
        numbers = f"generate_series(1, {number}) AS n (i)"
        for statement in _copies("next_cron_ms", gid, numbers, *tables):
            await db.execute(statement)
        await db.execute("VACUUM ANALYZE")  # now, and not while something is measured
    finally:
        await db.close()


async def claims(settings: Mapping[str, object], due: int) -> list[float]:
    """Make ``due`` transactions due; give the milliseconds of claims of 100 of them."""
    took = []
    async with opened(settings) as store:
        later_than = await store.now_ms() + AN_HOUR // 2
        while due > 0:
            made, _ = await store.reset_cron_time(later_than, min(due, 1_000))
            due -= made or due
        for _ in range(CLAIMS):
            began = time.perf_counter()
            claimed = await store.claim("bench", BATCH, lease_s=0.001)
            took.append((time.perf_counter() - began) * 1e3)
            if len(claimed) != BATCH:
                raise BenchmarkFailed(f"a claim of {BATCH} gave {len(claimed)}")
    return took


async def rates(
    folders: Mapping[str, Path],
    stores: Mapping[str, Mapping[str, object]],
    servers: Servers,
    clients: int,
    seconds: float,
    rounds: int,
) -> tuple[list[tuple[float, float]], float]:
    """Transactions a second, empty and filled in turns; and the MiB of the filled one."""
    async with AsyncExitStack() as stack:
        empty, filled = [
            await stack.enter_async_context(
                deployment(folders[name], store=stores[name], servers=servers)
            )
            for name in ("empty", "filled")
        ]
        turns = []
        for number in range(rounds + 1):
            pair = [await each.measure("msg", clients, seconds) for each in (empty, filled)]
            if number > 0:  # the first is for warming up
                turns.append((pair[0].rate, pair[1].rate))
        return turns, filled.peak_mib()


async def cold_start(
    folder: Path, store: Mapping[str, object], servers: Servers
) -> tuple[float, float, float]:
    """Seconds from start to the first retry, retries a second afterwards, and peak MiB."""
    await servers.first_branch()
    async with deployment(folder, store=store, servers=servers) as deployed:
        first = 0.0
        while not first:
            if time.perf_counter() - deployed.started > FIRST_WITHIN_S:
                raise BenchmarkFailed(f"no retry within {FIRST_WITHIN_S:g} s of the start")
            await asyncio.sleep(0.05)
            first = await servers.first_branch()
        calls, began = await servers.branches(), time.perf_counter()
        await asyncio.sleep(DRAINED_S)
        calls = await servers.branches() - calls
        took = time.perf_counter() - began
        return first - deployed.started, calls / 2 / took, deployed.peak_mib()


async def grown(
    stores: Mapping[str, Mapping[str, object]],
    folder: Path,
    size: int,
    clients: int,
    seconds: float,
    rounds: int,
) -> Figures:
    """Everything about one size; ``stores`` are an empty and a filled one."""
    folders = {name: folder / f"{name}-{size}" for name in stores}
    for each in folders.values():
        each.mkdir()
    async with running_servers() as servers:
        began = time.perf_counter()
        await fill(stores["filled"], size, servers.sink)
        print(f"{size:,} made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        turns, peak = await rates(folders, stores, servers, clients, seconds, rounds)
        took = await claims(stores["filled"], min(size, BACKLOG))
        first, drained, again = await cold_start(folders["filled"], stores["filled"], servers)
    return Figures(
        rate_per_s=median(filled for _, filled in turns),
        ratio=median(filled / empty for empty, filled in turns),
        claim_ms=median(took),
        worst_claim_ms=max(took),
        first_retry_s=first,
        retries_per_s=drained,
        peak_mib=max(peak, again),
    )


async def measured(store: str, size: int, clients: int, seconds: float, rounds: int) -> Figures:
    """The figures of one store and size, on data of their own."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as name:
        folder = Path(name)
        if store == "sqlite":
            stores = {
                which: {"Driver": "sqlite", "Path": str(folder / f"{which}.db")}
                for which in ("empty", "filled")
            }
            return await grown(stores, folder, size, clients, seconds, rounds)
        if store != "postgres":
            raise BenchmarkFailed(f"store {store!r} is unknown here; use sqlite, postgres")
        async with postgres_server() as server:
            given = server.settings
            common = {
                "Driver": "postgres",
                "Host": given["host"],
                "Port": given["port"],
                "User": given["user"],
                "Password": given["password"],
                "Db": given["database"],
            }
            schemas = {which: {**common, "Schema": which} for which in ("empty", "filled")}
            return await grown(schemas, folder, size, clients, seconds, rounds)


async def main() -> None:
    """Print a line for each store and size."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="numbers, separated by commas")
    parser.add_argument("--stores", default="sqlite")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    print(
        f"msg at {options.clients} clients; to reach: {REACH['submit']:g} of the empty store's "
        f"rate, claim {REACH['claim']:g} ms, first retry {REACH['start']:g} s, "
        f"{REACH['memory']:g} MiB"
    )
    print(
        f"{'store':10}{'unfinished':>11}{'tx/s':>7}{'of empty':>10}{'claim ms':>10}{'worst':>8}"
        f"{'1st retry s':>13}{'retries/s':>11}{'peak MiB':>10}"
    )
    for store in options.stores.split(","):
        for size in map(int, options.sizes.split(",")):
            got = await measured(store, size, options.clients, options.seconds, options.rounds)
            verdict = f"missed: {', '.join(got.missed)}" if got.missed else "reached"
            print(
                f"{store:10}{size:11,}{got.rate_per_s:7,.0f}{got.ratio:10.2f}{got.claim_ms:10.1f}"
                f"{got.worst_claim_ms:8.1f}{got.first_retry_s:13.2f}{got.retries_per_s:11,.0f}"
                f"{got.peak_mib:10.0f}  {verdict}",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main())
