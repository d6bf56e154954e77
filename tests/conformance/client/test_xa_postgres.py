"""XA steps of workflows on a real PostgreSQL, by a driver that is awaited and one that is not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from kit.dtm.barrier.table import acreate_table
from kit.dtm.client import DtmClient, sync
from kit.dtm.client.workflow import Workflow, Workflows, XaDatabase
from kit.dtm.errors import Failure
from kit.testing import Coordinator
from kit.testing.postgres import PostgresSettings, postgres_server

NO = Failure("no money")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgres() -> AsyncIterator[PostgresSettings]:
    """A server with one account of 100 cents."""
    async with postgres_server() as server:
        connection = await asyncpg.connect(**server.settings)
        await acreate_table(connection)
        await connection.execute("CREATE TABLE account (cents INTEGER)")
        await connection.execute("INSERT INTO account VALUES (100)")
        await connection.close()
        yield server.settings


async def left(postgres: PostgresSettings) -> tuple[int, int]:
    """What the account has, and how many transactions are prepared."""
    connection = await asyncpg.connect(**postgres)
    cents = await connection.fetchval("SELECT cents FROM account")
    prepared = await connection.fetchval("SELECT count(*) FROM pg_prepared_xacts")
    await connection.close()
    return int(cents), int(prepared)


async def test_an_xa_step_commits_or_rolls_back_with_its_workflow(
    dtm: Coordinator, postgres: PostgresSettings
) -> None:
    """§14.3: prepared while the code runs, ended in phase 2."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(**postgres)
        try:
            yield connection
        finally:
            await connection.close()

    before, _ = await left(postgres)
    async with DtmClient(dtm.grpc_address) as client:
        workflows = Workflows(client, "127.0.0.1:1")
        dies = [LookupError("the process dies here")]

        @workflows.register("pay")
        async def pay(wf: Workflow, data: bytes) -> bytes:
            async def debit(connection: asyncpg.Connection) -> bytes:
                await connection.execute("UPDATE account SET cents = cents - 30")
                return b"debited"

            given = await wf.new_branch().do_xa(XaDatabase(connect), debit)
            assert await left(postgres) == (before, 1)
            if dies:
                raise dies.pop()
            if data:
                raise NO
            return given

        with pytest.raises(LookupError):
            await workflows.execute("pay", "xa-pg-1", b"fail")
        with pytest.raises(Failure, match="no money"):
            await workflows.execute("pay", "xa-pg-1", b"fail")
        assert await left(postgres) == (before, 0)
        dies.append(LookupError("the process dies here"))
        with pytest.raises(LookupError):
            await workflows.execute("pay", "xa-pg-2")
        assert await workflows.execute("pay", "xa-pg-2") == b"debited"
        assert await left(postgres) == (before - 30, 0)


async def test_the_same_from_a_thread(dtm: Coordinator, postgres: PostgresSettings) -> None:
    """psycopg, whose calls are not awaited; the action runs in the thread that executes."""

    @contextmanager
    def connect() -> Iterator[psycopg.Connection]:
        names = {"dbname" if key == "database" else key: value for key, value in postgres.items()}
        with psycopg.connect(**names, autocommit=True) as connection:
            yield connection

    before, _ = await left(postgres)

    def work() -> None:
        with sync.DtmClient(dtm.http_url) as client:
            workflows = sync.Workflows(client, "http://127.0.0.1:1/workflow")

            @workflows.register("pay")
            def pay(wf: sync.Workflow, data: bytes) -> bytes:
                def debit(connection: psycopg.Connection) -> bytes:
                    connection.execute("UPDATE account SET cents = cents - 30")
                    return b"debited"

                given = wf.new_branch().do_xa(connect, debit)
                if data:
                    raise NO
                return given

            with pytest.raises(Failure, match="no money"):
                workflows.execute("pay", "xa-pg-3", b"fail")
            assert workflows.execute("pay", "xa-pg-4") == b"debited"

    await asyncio.to_thread(work)
    assert await left(postgres) == (before - 30, 0)
