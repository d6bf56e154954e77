"""XA branches on PostgreSQL and MariaDB: nothing stays prepared, whoever dies and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any, Protocol

import asyncmy
import asyncpg
import psycopg
import pymysql
import pytest
import pytest_asyncio

from kit.dtm.barrier import BarrierError, BranchBarrier, CommitsApart, Outcome
from kit.dtm.barrier.xa import (
    Decision,
    Prepared,
    Recovery,
    afinish,
    aprepare,
    finish,
    prepare,
)
from kit.dtm.errors import Failure, Ongoing
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings
from tests.conformance.barrier import banks


class Unlucky(Exception):
    """Raised by a business."""


class Rm(Protocol):
    """A database that takes part in XA."""

    def connect(self) -> Any: ...
    async def add(self, connection: Any, name: str) -> None: ...
    async def amounts(self, name: str) -> list[int]: ...
    async def prepared(self) -> list[str]: ...
    def cut(self, connection: Any) -> None: ...


class Postgres:
    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(**self._settings)
        try:
            yield connection
        finally:
            await connection.close()

    async def add(self, connection: Any, name: str) -> None:
        await connection.execute(banks.INSERT.format("$1", "$2"), name, 1)

    async def amounts(self, name: str) -> list[int]:
        async with self.connect() as connection:
            return [row[0] for row in await connection.fetch(banks.SELECT.format("$1"), name)]

    async def prepared(self) -> list[str]:
        async with self.connect() as connection:
            return [row[0] for row in await connection.fetch("SELECT gid FROM pg_prepared_xacts")]

    def cut(self, connection: Any) -> None:
        connection.terminate()


class Mariadb:
    def __init__(self, server: MariadbServer) -> None:
        self._server = server

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        options = banks.mysql_options(self._server, db="business", autocommit=False)
        async with asyncmy.connect(**options) as connection:
            yield connection

    async def add(self, connection: Any, name: str) -> None:
        await banks.apercent(connection, banks.INSERT, name, 1)

    async def amounts(self, name: str) -> list[int]:
        async with self.connect() as connection:
            return await banks.apercent(connection, banks.SELECT, name)

    async def prepared(self) -> list[str]:
        async with self.connect() as connection, connection.cursor() as cursor:
            await cursor.execute("XA RECOVER")
            return [row[3].decode() for row in await cursor.fetchall()]

    def cut(self, connection: Any) -> None:
        connection.close()


@pytest.fixture(params=["postgres", "mariadb"])
def rm(request: pytest.FixtureRequest) -> Rm:
    found = request.getfixturevalue(request.param)
    return Postgres(found) if request.param == "postgres" else Mariadb(found)


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(rm: Rm) -> AsyncIterator[None]:
    yield
    assert await rm.prepared() == []


def branch(gid: str, op: str = "action") -> BranchBarrier:
    return BranchBarrier("xa", gid, "01", op)


async def registered() -> None:
    """A coordinator that says yes."""


async def first_phase(
    rm: Rm, gid: str, *, register: Callable[[], Awaitable[object]] = registered
) -> Outcome:
    async with rm.connect() as connection:
        return await aprepare(
            branch(gid), connection, lambda: rm.add(connection, gid), register=register
        )


async def second_phase(rm: Rm, gid: str, op: str) -> None:
    """As a coordinator does: again while the answer is ONGOING or unknown."""
    for _ in range(100):
        try:
            async with rm.connect() as connection:
                return await afinish(branch(gid, op), connection)
        except Ongoing:
            await asyncio.sleep(0.02)
    raise AssertionError("phase 2 does not end")


async def test_a_branch_is_prepared_and_committed(rm: Rm) -> None:
    assert await first_phase(rm, "xa-commit") is Outcome.DONE
    assert await rm.prepared() == ["xa-commit-01"]
    assert await rm.amounts("xa-commit") == []
    for _ in range(2):  # a repeat is a success
        await second_phase(rm, "xa-commit", "commit")
    assert await rm.amounts("xa-commit") == [1]
    assert await first_phase(rm, "xa-commit") is Outcome.REPEATED
    assert await rm.amounts("xa-commit") == [1]


async def test_a_branch_is_prepared_and_rolled_back(rm: Rm) -> None:
    await first_phase(rm, "xa-rollback")
    for _ in range(2):
        await second_phase(rm, "xa-rollback", "rollback")
    assert await rm.amounts("xa-rollback") == []


async def test_a_branch_that_comes_after_its_rollback_is_refused(rm: Rm) -> None:
    await second_phase(rm, "xa-late", "rollback")
    with pytest.raises(Failure, match="before it came"):
        await first_phase(rm, "xa-late")
    assert await rm.amounts("xa-late") == []


async def test_a_business_or_a_coordinator_that_refuses_leaves_nothing(rm: Rm) -> None:
    async def refuse() -> None:
        raise Unlucky

    with pytest.raises(Unlucky):
        await first_phase(rm, "xa-refused", register=refuse)
    async with rm.connect() as connection:
        with pytest.raises(Unlucky):
            await aprepare(branch("xa-refused"), connection, refuse, register=registered)
        # The connection goes on.
        await aprepare(
            branch("xa-refused"),
            connection,
            lambda: rm.add(connection, "xa-refused"),
            register=registered,
        )
    await second_phase(rm, "xa-refused", "commit")
    assert await rm.amounts("xa-refused") == [1]


async def test_a_rollback_waits_for_a_branch_on_its_way(rm: Rm) -> None:
    """It says ONGOING until the branch has prepared or died; then nothing of it is left."""
    going, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        going.set()
        await go_on.wait()

    phase = asyncio.create_task(first_phase(rm, "xa-slow", register=hang))
    await going.wait()
    async with rm.connect() as connection:
        with pytest.raises(Ongoing):
            await afinish(branch("xa-slow", "rollback"), connection)
    go_on.set()
    assert await phase is Outcome.DONE
    await second_phase(rm, "xa-slow", "rollback")
    assert await rm.amounts("xa-slow") == []


@pytest.mark.parametrize("moment", ["business", "register"])
async def test_a_process_that_dies_before_prepare_leaves_nothing(rm: Rm, moment: str) -> None:
    gid = f"xa-dies-{moment}"
    async with rm.connect() as connection:

        async def business() -> None:
            await rm.add(connection, gid)
            if moment == "business":
                rm.cut(connection)

        async def register() -> None:
            rm.cut(connection)

        with pytest.raises(Exception):  # noqa: B017 - each driver has its own
            await aprepare(branch(gid), connection, business, register=register)
    await second_phase(rm, gid, "rollback")
    assert await rm.amounts(gid) == []


async def test_recovery_asks_about_old_ones_and_ends_them(rm: Rm) -> None:
    await first_phase(rm, "xa-old-yes")
    await first_phase(rm, "xa-old-no")
    now = 0.0
    recovery = Recovery(older_than=1_000.0, now=lambda: now)
    asked: list[str] = []

    async def decide(one: Prepared) -> Decision:
        asked.append(one.gid)
        return Decision.COMMIT if one.gid == "xa-old-yes" else Decision.ROLLBACK

    async def wait(one: Prepared) -> Decision:
        assert one.age >= 1_000.0
        return Decision.WAIT

    async with rm.connect() as connection:
        assert await recovery.aresolve(connection, decide) == []
        now = 1_001.0
        assert await recovery.aresolve(connection, wait) == []
        ended = await recovery.aresolve(connection, decide)
    assert sorted(one.gid for one in ended) == sorted(asked) == ["xa-old-no", "xa-old-yes"]
    assert await rm.amounts("xa-old-yes") == [1]
    assert await rm.amounts("xa-old-no") == []


async def test_ids_that_cannot_be_a_name_are_refused(rm: Rm) -> None:
    async with rm.connect() as connection:
        for gid, why in (
            ("a'; DROP", "letters, digits"),
            ("a\\", "letters"),
            ("x" * 250, "shorter"),
        ):
            for op in ("commit", "rollback"):
                with pytest.raises(BarrierError, match=why):
                    await afinish(branch(gid, op), connection)
        with pytest.raises(BarrierError, match="phase 2"):
            await afinish(branch("g"), connection)
        with pytest.raises(BarrierError, match="phase 1"):
            await aprepare(branch("g", "commit"), connection, registered, register=registered)
        with pytest.raises(TypeError, match="awaited"):
            finish(branch("g", "commit"), connection)


@pytest.mark.parametrize("autocommit", [True, False])
def test_called_drivers_prepare_as_well(
    postgres: PostgresSettings, mariadb: MariadbServer, autocommit: bool, rm: Rm
) -> None:
    options = banks.mysql_options(mariadb, database="business", autocommit=autocommit)
    for connect in (
        lambda: psycopg.connect(banks.psycopg_dsn(postgres), autocommit=autocommit),
        lambda: pymysql.connect(**options),
    ):
        gid = f"xa-called-{autocommit}"
        with closing(connect()) as connection:
            work = lambda c=connection, g=gid: banks.percent(c, banks.INSERT, g, 1)  # noqa: E731
            prepare(branch(gid), connection, work, register=lambda: None)
        with closing(connect()) as connection:
            for _ in range(50):
                try:
                    finish(branch(gid, "commit"), connection)
                    break
                except Ongoing:
                    continue
            finish(branch(gid, "rollback"), connection)  # too late, and changes nothing
            assert banks.percent(connection, banks.SELECT, gid) == [1]


def test_an_open_transaction_is_refused(postgres: PostgresSettings, rm: Rm) -> None:
    with closing(psycopg.connect(banks.psycopg_dsn(postgres))) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(CommitsApart, match="its own"):
            prepare(branch("xa-open"), connection, lambda: None, register=lambda: None)
