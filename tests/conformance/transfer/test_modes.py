"""Transfers in all five modes on three databases, by the programs themselves.

Whatever is refused and whoever is killed: the sum of money stays, as an independent reader of the
balances sees it.
"""

import asyncio
import random
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncmy
import asyncpg
import pytest

from kit.ports import free_port
from kit.testing.mariadb import mariadb_server
from kit.testing.postgres import postgres_server
from kit.transport.grpc.engines import EngineName
from tests.engines import chosen, speaking
from tests.processes import COORDINATOR, TRANS, Process, Processes, client_command, processes

OPENING = 10_000
USERS = (1, 2, 3)
MODES = ("msg", "saga", "tcc", "xa", "workflow")
ENGINES: dict[str, EngineName] = {"sqlite": "lean", "postgres": "grpcio", "mysql": "lean"}
"""The databases, and the gRPC engine of the programs around each."""

UNDOABLE = tuple(mode for mode in MODES if mode != "msg")


@dataclass
class Bank:
    """trans on a database, and who reads its accounts without it."""

    driver: str
    source: str
    rows: Callable[[], Awaitable[list[tuple[int, int, int]]]]
    prepared: Callable[[], Awaitable[int]]

    async def balances(self) -> dict[int, int]:
        return {user: balance for user, balance, _ in await self.rows()}

    async def settled(self) -> bool:
        return all(frozen == 0 for _, _, frozen in await self.rows())


@asynccontextmanager
async def bank_on(driver: str, folder: Path) -> AsyncIterator[Bank]:
    query = "SELECT user_id, balance, trading_balance FROM user_account ORDER BY user_id"
    async with AsyncExitStack() as stack:
        if driver == "sqlite":
            path = folder / "bank.db"

            async def rows() -> list[tuple[int, int, int]]:
                with sqlite3.connect(path) as connection:
                    return connection.execute(query).fetchall()

            async def none() -> int:
                return 0

            yield Bank(driver, str(path), rows, none)
        elif driver == "postgres":
            server = await stack.enter_async_context(postgres_server())
            given = server.settings
            place = f"{given['host']}:{given['port']}/{given['database']}"
            source = f"postgres://{given['user']}:{given['password']}@{place}"

            async def fetched(text: str) -> list[tuple[int, ...]]:
                connection = await asyncpg.connect(source)
                try:
                    return [tuple(row) for row in await connection.fetch(text)]
                finally:
                    await connection.close()

            async def xids() -> int:
                return len(await fetched("SELECT gid FROM pg_prepared_xacts"))

            yield Bank(driver, source, lambda: fetched(query), xids)  # type: ignore[arg-type,return-value]
        else:
            maria = await stack.enter_async_context(mariadb_server(own=True))

            async def asked(text: str, db: str = "bank") -> list[tuple[int, ...]]:
                connection = await asyncmy.connect(
                    host=maria.host,
                    port=maria.port,
                    user=maria.user,
                    password=maria.password,
                    db=db,
                    autocommit=True,
                )
                try:
                    async with connection.cursor() as cursor:
                        await cursor.execute(text)
                        return list(await cursor.fetchall())
                finally:
                    await connection.ensure_closed()

            async def recovered() -> int:
                return len(await asked("XA RECOVER"))

            await asked("CREATE DATABASE bank", db="mysql")
            source = f"mysql://{maria.user}:{maria.password}@{maria.host}:{maria.port}/bank"
            yield Bank(driver, source, lambda: asked(query), recovered)  # type: ignore[arg-type,return-value]


@pytest.fixture(params=ENGINES)
async def bank(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bank]:
    """The programs are all on one engine, and each mode of transaction meets both."""
    with speaking(chosen(ENGINES[request.param])):
        async with bank_on(request.param, tmp_path) as made:
            yield made


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path) as owner:
        yield owner


async def trans_on(run: Processes, bank: Bank, port: int) -> Process:
    config = run.folder / "trans.yaml"
    config.write_text(
        f"server: {{grpc: {{addr: '127.0.0.1:{port}', timeout: 3s, engine: {chosen()}}}}}\n"
        f"data:\n  database: {{driver: {bank.driver}, source: '{bank.source}'}}\n"
        f"  opening_balance: {OPENING}\n"
    )
    process = await run.start("trans", TRANS, "-conf", str(config))
    await process.listens(port)
    return process


def has_xa(bank: Bank) -> bool:
    return bank.driver != "sqlite"


async def test_every_mode_moves_money_and_a_refusal_moves_none(run: Processes, bank: Bank) -> None:
    """Exit 0 with the money there; exit 1 with the reason and the balances as they were."""
    dtm, port = free_port(), free_port()
    await run.coordinator(dtm)
    await trans_on(run, bank, port)

    async def client(*flags: str) -> Process:
        return await run.client(f"127.0.0.1:{dtm}", f"127.0.0.1:{port}", *flags)

    moved = 0
    for mode in MODES:
        done = await client("-mode", mode)
        if mode == "xa" and not has_xa(bank):
            assert done.handle.returncode == 1, done.output
            assert "this database has no XA" in done.output
            continue
        assert done.handle.returncode == 0, done.output
        assert "result: succeed" in done.output
        moved += 30
    assert await bank.balances() == {1: OPENING - moved, 2: OPENING + moved}
    for mode in UNDOABLE:
        refused = await client("-mode", mode, "-amount", str(OPENING * 2))
        assert refused.handle.returncode == 1, refused.output
        if mode != "xa" or has_xa(bank):
            assert "balance of user 1 too low" in refused.output
    assert await bank.balances() == {1: OPENING - moved, 2: OPENING + moved}
    assert await bank.settled()
    assert await bank.prepared() == 0


@dataclass
class Attempt:
    """One run of the client, and how to run it again."""

    mode: str
    flags: tuple[str, ...]
    process: Process

    @property
    def gid(self) -> str:
        found = re.search(r"^gid: (\S+)$", self.process.output, re.MULTILINE)
        return found[1] if found else ""


async def test_the_sum_of_money_stays_whatever_is_killed(run: Processes, bank: Bank) -> None:
    """Clients, trans and the coordinator die at random moments; then everything ends."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    dtm, http, port = free_port(), free_port(), free_port()
    coordinator = await skipping(run, dtm, http)
    trans = await trans_on(run, bank, port)
    modes = [mode for mode in MODES if mode != "xa" or has_xa(bank)]
    attempts: list[Attempt] = []

    async def client(mode: str, *flags: str) -> Process:
        target = ("-dtm", f"127.0.0.1:{dtm}", "-busi", f"127.0.0.1:{port}", "-timeout", "8s")
        return await run.start("client", *client_command(), *target, "-mode", mode, *flags)

    async def one(mode: str) -> None:
        source, target = rng.sample(USERS, 2)
        # a message is never undone, so only what is there may be sent
        amount = 5 if mode == "msg" else rng.choice((7, 30, OPENING * 3))
        flags = ("-from", str(source), "-to", str(target), "-amount", str(amount))
        dies, after = rng.random() < 0.3, rng.uniform(0.5, 1.2)
        process = await client(mode, *flags)
        attempts.append(Attempt(mode, flags, process))
        if dies:
            await asyncio.sleep(after)
            if process.running:
                process.handle.kill()
        await process.ended(within=45)

    for turn in range(2):
        async with asyncio.TaskGroup() as group:
            for mode in modes:
                group.create_task(one(mode))
            await asyncio.sleep(rng.uniform(0.8, 1.6))
            if turn == 0:
                trans.handle.kill()
                await trans.ended()
                trans = await trans_on(run, bank, port)
            else:
                coordinator.handle.kill()
                await coordinator.ended()
                coordinator = await skipping(run, dtm, http)
    programs = [each for each in attempts if each.mode == "workflow"]
    async with asyncio.timeout(200), aiohttp.ClientSession(f"http://127.0.0.1:{http}") as session:
        while left := await unfinished(session):
            async with session.post("/api/dev/clock", json={"advance_s": 60}) as reply:
                assert reply.status == 200
            await asyncio.sleep(0.3)
            # A workflow is its client's program: it is resumed by its gid, and again while an XA
            # branch that nobody has decided yet holds its account.
            async with asyncio.TaskGroup() as group:
                for each in programs:
                    if each.gid in left:
                        again = await client("workflow", *each.flags, "-gid", each.gid)
                        group.create_task(again.ended(within=45))
    balances = await bank.balances()
    assert sum(balances.values()) == OPENING * len(balances), f"seed {seed}: {balances}"
    assert await bank.settled(), f"seed {seed}"
    assert await bank.prepared() == 0, f"seed {seed}"


async def skipping(run: Processes, dtm: int, http: int) -> Process:
    """A coordinator whose clock can be moved; its file is that of the one before."""
    config = run.folder / "skipping.yaml"
    config.write_text(
        f"Listen: 127.0.0.1\nGrpcPort: {dtm}\nHttpPort: {http}\nTransCronInterval: 1\n"
        f"GrpcEngine: {chosen()}\n"
        f"Store: {{Driver: sqlite, Path: '{run.folder / 'skipping.db'}'}}\n"
    )
    process = await run.start("coordinator", COORDINATOR, "-c", str(config), "-dev")
    await process.listens(dtm, http)
    return process


async def unfinished(session: aiohttp.ClientSession) -> set[str]:
    gids: set[str] = set()
    for status in ("prepared", "submitted", "aborting"):
        async with session.get("/api/dtmsvr/all", params={"status": status}) as reply:
            gids.update(each["gid"] for each in (await reply.json())["transactions"] or ())
    return gids
