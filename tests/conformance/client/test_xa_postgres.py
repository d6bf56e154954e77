"""XA branches and XA steps of workflows on a real PostgreSQL, by asyncpg and by psycopg."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from kit.dtm.barrier import BranchBarrier, barrier_from_query
from kit.dtm.barrier.table import acreate_table
from kit.dtm.client import DtmClient, InvalidCall, Options, sync, xa, xa_local_transaction
from kit.dtm.client.workflow import Workflow, Workflows, XaDatabase
from kit.dtm.errors import Failure
from kit.testing import Coordinator
from kit.testing.postgres import PostgresSettings, postgres_server
from kit.transport.grpc.engines import EngineName
from tests.conformance.client.business import Business, Heard
from tests.conformance.client.conftest import address

NO = Failure("no money")
WAIT = Options(wait_result=True)


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


def opener(
    postgres: PostgresSettings,
) -> Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]:
    """Gives connections that are awaited."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(**postgres)
        try:
            yield connection
        finally:
            await connection.close()

    return connect


def plain_opener(
    postgres: PostgresSettings,
) -> Callable[[], AbstractContextManager[psycopg.Connection]]:
    """Gives connections that are not."""
    return lambda: psycopg.connect(
        host=postgres["host"],
        port=postgres["port"],
        user=postgres["user"],
        password=postgres["password"],
        dbname=postgres["database"],
        autocommit=True,
    )


async def left(postgres: PostgresSettings) -> tuple[int, int]:
    """What the account has, and how many transactions are prepared."""
    connection = await asyncpg.connect(**postgres)
    cents = await connection.fetchval("SELECT cents FROM account")
    prepared = await connection.fetchval("SELECT count(*) FROM pg_prepared_xacts")
    await connection.close()
    return int(cents), int(prepared)


@pytest.mark.parametrize("api", ["grpc", "http", "json-rpc"])
@pytest.mark.parametrize("awaited", [True, False])
async def test_an_xa_branch_is_prepared_registered_and_ended(
    dtm: Coordinator, postgres: PostgresSettings, business: Business, api: str, *, awaited: bool
) -> None:
    """§12: called to act it prepares, called again it commits or rolls back."""
    before, _ = await left(postgres)
    business.scheme = "grpc" if api == "grpc" else "http"
    threaded = sync.DtmClient(address(dtm, api))
    async with DtmClient(address(dtm, api)) as client:

        async def debit(connection: asyncpg.Connection) -> None:
            await connection.execute("UPDATE account SET cents = cents - 10")

        def pay(connection: psycopg.Connection) -> None:
            connection.execute("UPDATE account SET cents = cents - 10")

        async def branch(call: Heard) -> bytes:
            ids, url = barrier_from_query(call.ids), call.ids.get("phase2_url", "")
            if awaited:
                await xa_local_transaction(client, ids, opener(postgres), debit, phase2_url=url)
            else:
                plain = plain_opener(postgres)
                local = partial(sync.xa_local_transaction, threaded, ids, plain, pay)
                await asyncio.to_thread(local, phase2_url=url)
            return b""

        business.on("xa", branch)
        async with xa(client, options=WAIT) as x:
            await x.call_branch(b"{}", business.url("xa"))
            assert await left(postgres) == (before, 1)
        assert await left(postgres) == (before - 10, 0)
        with pytest.raises(LookupError):
            await changed_mind(client, business.url("xa"))
        assert await left(postgres) == (before - 10, 0)
        assert [call.ids["op"] for call in business.heard] == [
            "action",
            "commit",
            "action",
            "rollback",
        ]
        again = BranchBarrier("xa", "nobody", "01", "action")
        with pytest.raises(InvalidCall, match="phase2_url of gid nobody: it is empty"):
            await xa_local_transaction(client, again, opener(postgres), debit, phase2_url="")
    await asyncio.to_thread(threaded.close)


async def changed_mind(client: DtmClient, url: str) -> None:
    """An xa transaction that fails behind its branch."""
    async with xa(client, options=WAIT) as x:
        await x.call_branch(b"{}", url)
        raise LookupError("another thought")


async def test_an_xa_step_commits_or_rolls_back_with_its_workflow(
    dtm: Coordinator, postgres: PostgresSettings, engine: EngineName
) -> None:
    """§14.3: prepared while the code runs, ended in phase 2."""

    before, _ = await left(postgres)
    async with DtmClient(dtm.grpc_address) as client:
        workflows = Workflows(client, "127.0.0.1:1")
        dies = [LookupError("the process dies here")]

        @workflows.register("pay")
        async def pay(wf: Workflow, data: bytes) -> bytes:
            async def debit(connection: asyncpg.Connection) -> bytes:
                await connection.execute("UPDATE account SET cents = cents - 30")
                return b"debited"

            given = await wf.new_branch().do_xa(XaDatabase(opener(postgres)), debit)
            assert await left(postgres) == (before, 1)
            if dies:
                raise dies.pop()
            if data:
                raise NO
            return given

        with pytest.raises(LookupError):
            await workflows.execute("pay", f"xa-pg-1-{engine}", b"fail")
        with pytest.raises(Failure, match="no money"):
            await workflows.execute("pay", f"xa-pg-1-{engine}", b"fail")
        assert await left(postgres) == (before, 0)
        dies.append(LookupError("the process dies here"))
        with pytest.raises(LookupError):
            await workflows.execute("pay", f"xa-pg-2-{engine}")
        assert await workflows.execute("pay", f"xa-pg-2-{engine}") == b"debited"
        assert await left(postgres) == (before - 30, 0)


async def test_the_same_from_a_thread(
    dtm: Coordinator, postgres: PostgresSettings, engine: EngineName
) -> None:
    """psycopg, whose calls are not awaited; the action runs in the thread that executes."""

    before, _ = await left(postgres)

    def work() -> None:
        with sync.DtmClient(dtm.http_url) as client:
            workflows = sync.Workflows(client, "http://127.0.0.1:1/workflow")

            @workflows.register("pay")
            def pay(wf: sync.Workflow, data: bytes) -> bytes:
                def debit(connection: psycopg.Connection) -> bytes:
                    connection.execute("UPDATE account SET cents = cents - 30")
                    return b"debited"

                given = wf.new_branch().do_xa(plain_opener(postgres), debit)
                if data:
                    raise NO
                return given

            with pytest.raises(Failure, match="no money"):
                workflows.execute("pay", f"xa-pg-3-{engine}", b"fail")
            assert workflows.execute("pay", f"xa-pg-4-{engine}") == b"debited"

    await asyncio.to_thread(work)
    assert await left(postgres) == (before - 30, 0)
