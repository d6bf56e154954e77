"""What a barrier costs: one round trip more than the statements that it guards."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from kit.dtm.barrier import BranchBarrier, Outcome
from kit.testing.barrier import SqlBank
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings
from tests.conformance.barrier import banks


class Turns:
    """A relay that counts how often the client speaks after the server has spoken."""

    def __init__(self, host: str, port: int) -> None:
        self.count = 0
        self._to = (host, port)
        self._server_spoke = True
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection(*self._to)

        async def answers() -> None:
            while data := await there.read(65_536):
                self._server_spoke = True
                writer.write(data)
            writer.close()

        back = asyncio.create_task(answers())  # cancelled below
        try:
            while data := await reader.read(65_536):
                self.count += self._server_spoke
                self._server_spoke = False
                onward.write(data)
        finally:
            back.cancel()
            onward.close()
            writer.close()


@asynccontextmanager
async def relayed(host: str, port: int) -> AsyncIterator[tuple[Turns, int]]:
    turns = Turns(host, port)
    server = await asyncio.start_server(turns, "127.0.0.1", 0)
    async with server:
        yield turns, server.sockets[0].getsockname()[1]


POSTGRES: dict[str, Callable[[PostgresSettings], SqlBank]] = {
    "psycopg": lambda found: banks.psycopg_bank(found, autocommit=False),
    "psycopg-autocommit": lambda found: banks.psycopg_bank(found, autocommit=True),
    "asyncpg": banks.asyncpg_bank,
    "sqlalchemy-psycopg": lambda found: banks.core_bank(banks.postgres_url(found, "psycopg")),
}

MYSQL: dict[str, Callable[[MariadbServer], SqlBank]] = {
    "pymysql": lambda server: banks.pymysql_bank(server, autocommit=False),
    "pymysql-autocommit": lambda server: banks.pymysql_bank(server, autocommit=True),
    "aiomysql": lambda server: banks.aiomysql_bank(server, autocommit=False),
    "asyncmy": lambda server: banks.asyncmy_bank(server, autocommit=True),
}


async def measured(bank: SqlBank, turns: Turns, call: Callable[[Any], Any]) -> int:
    """Turns of ``call`` on a connection on which it has run before."""

    def work(connection: Any) -> Any:
        yield lambda: call(connection)
        before = turns.count
        yield lambda: call(connection)
        return turns.count - before

    return cast("int", await bank._with(work))


async def cost(bank: SqlBank, turns: Turns, op: str, name: str, bare: Callable[[Any], Any]) -> int:
    """Turns of a guarded insert less those of the bare one in a transaction."""
    numbers = iter(range(10))

    def guarded(connection: Any) -> Any:
        gid = f"cost-{name}-{next(numbers)}"
        barrier = BranchBarrier("saga", gid, "01", op)
        call = barrier.acall if bank._awaited else barrier.call
        return call(connection, lambda: bank._add(connection, gid, 1))

    for number in range(2 if op == "compensate" else 0):
        action = BranchBarrier("saga", f"cost-{name}-{number}", "01", "action")
        done = await bank._with(
            lambda connection, action=action: one(
                lambda: (action.acall if bank._awaited else action.call)(
                    connection, lambda: bank._add(connection, "cost", 1)
                )
            )
        )
        assert done is Outcome.DONE
    more = await measured(bank, turns, guarded)
    return more - await measured(bank, turns, bare)


def one(call: Callable[[], Any]) -> Any:
    return (yield call)


def bare_transaction(bank: SqlBank, name: str) -> Callable[[Any], Any]:
    """BEGIN, the insert and COMMIT, as the driver's users write them."""

    def add(connection: Any) -> Any:
        return bank._add(connection, "bare", 1)

    async def block(connection: Any) -> None:
        async with connection.transaction():
            await add(connection)

    async def aplain(connection: Any) -> None:
        if "autocommit" in name or name == "asyncmy":
            await connection.begin()
        await add(connection)
        await connection.commit()

    def psycopg_block(connection: Any) -> None:
        with connection.transaction():
            add(connection)

    def plain(connection: Any) -> None:
        if name == "pymysql-autocommit":
            connection.begin()
        add(connection)
        connection.commit()

    if name == "asyncpg":
        return block
    if name.startswith("psycopg"):
        return psycopg_block
    return aplain if bank._awaited else plain


@pytest.mark.parametrize("op", ["action", "compensate"])
@pytest.mark.parametrize("name", POSTGRES)
async def test_a_barrier_in_postgres_costs_one_round_trip(
    postgres: PostgresSettings, name: str, op: str
) -> None:
    async with relayed(postgres["host"], postgres["port"]) as (turns, port):
        bank = POSTGRES[name]({**postgres, "port": port})
        bare = bare_transaction(bank, name)
        assert await cost(bank, turns, op, f"{name}-{op}", bare) <= 1


@pytest.mark.parametrize("op", ["action", "compensate"])
@pytest.mark.parametrize("name", MYSQL)
async def test_a_barrier_in_mariadb_costs_one_round_trip(
    mariadb: MariadbServer, name: str, op: str
) -> None:
    async with relayed(mariadb.host, mariadb.port) as (turns, port):
        relay = MariadbServer("127.0.0.1", port, mariadb.user, mariadb.password)
        bank = MYSQL[name](relay)
        assert await cost(bank, turns, op, f"{name}-{op}", bare_transaction(bank, name)) <= 1
