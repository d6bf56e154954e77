"""Barrier and business commit together or the barrier says so: in every driver, as it is used."""

import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import pymysql
import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.exc import InvalidRequestError, ResourceClosedError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from kit.dtm.barrier import BarrierError, BranchBarrier, CommitsApart, Outcome
from kit.dtm.errors import Failure
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings
from tests.conformance.barrier import banks


def barrier(name: str, op: str = "action") -> BranchBarrier:
    return BranchBarrier("saga", name, "01", op)


class Unlucky(Exception):
    """Raised by a business."""


# sqlite3


@pytest.fixture
def lite(sqlite: Path) -> Any:
    with closing(sqlite3.connect(sqlite)) as connection:
        yield connection


def amounts(connection: sqlite3.Connection, name: str) -> list[int]:
    return [row[0] for row in connection.execute(banks.SELECT.format("?"), (name,))]


def add(connection: Any, name: str, amount: int = 1) -> Callable[[], object]:
    return lambda: connection.execute(banks.INSERT.format("?", "?"), (name, amount))


def test_sqlite3_joins_and_leaves_the_commit_to_the_caller(lite: Any) -> None:
    for name, end in (("join-commit", lite.commit), ("join-rollback", lite.rollback)):
        add(lite, name, 7)()
        assert barrier(name).call(lite, add(lite, name)) is Outcome.DONE
        assert lite.in_transaction
        end()
    assert amounts(lite, "join-commit") == [7, 1]
    assert amounts(lite, "join-rollback") == []
    assert barrier("join-rollback").call(lite, add(lite, "join-rollback")) is Outcome.DONE


def test_sqlite3_undoes_a_failed_branch_inside_the_callers_transaction(lite: Any) -> None:
    """The caller's rows stay; the branch's are gone, so its repeat is the first."""

    def fail() -> None:
        add(lite, "inner")()
        raise Unlucky

    add(lite, "outer")()
    with pytest.raises(Unlucky):
        barrier("inner").call(lite, fail)
    lite.commit()
    assert (amounts(lite, "outer"), amounts(lite, "inner")) == ([1], [])
    assert barrier("inner").call(lite, add(lite, "inner")) is Outcome.DONE


def test_sqlite3_business_that_commits_is_found_out(lite: Any) -> None:
    def commit_and_go_on() -> None:
        lite.commit()
        add(lite, "apart")()

    with pytest.raises(CommitsApart, match="neither commit nor roll back"):
        barrier("apart").call(lite, commit_and_go_on)
    assert not lite.in_transaction


def test_the_rows_of_any_factory_are_read(lite: Any) -> None:
    lite.row_factory = lambda cursor, row: {"row": row}
    assert barrier("factory").call(lite, lambda: None) is Outcome.DONE
    assert barrier("factory").call(lite, lambda: None) is Outcome.REPEATED


def test_a_block_tells_what_the_barrier_decided(lite: Any) -> None:
    for expected in (Outcome.DONE, Outcome.REPEATED):
        with barrier("block").guard(lite) as branch:
            assert (branch.outcome, branch.joined) == (expected, False)
            if not branch.outcome.suppressed:
                add(lite, "block")()
    assert amounts(lite, "block") == [1]


async def test_called_and_awaited_drivers_are_not_confused(lite: Any, sqlite: Path) -> None:
    with pytest.raises(TypeError, match="not awaited"):
        await barrier("mixed").acall(lite, None)  # type: ignore[arg-type]
    async with aiosqlite.connect(sqlite) as connection:
        with pytest.raises(TypeError, match="is awaited"):
            barrier("mixed").call(connection, lambda: None)
        with pytest.raises(TypeError, match="is awaited"):
            barrier("mixed").query_prepared(connection)


def test_what_is_no_connection_is_refused(lite: Any) -> None:
    engine = create_engine("sqlite://")
    for wrong in (object(), lite.cursor(), engine):
        with pytest.raises(BarrierError, match=r"connection|Connection"):
            barrier("wrong").guard(wrong)


def test_a_query_needs_a_transaction_of_its_own(lite: Any) -> None:
    add(lite, "open")()
    with pytest.raises(CommitsApart, match="without an open transaction"):
        BranchBarrier("msg", "open", "00", "msg").query_prepared(lite)


# SQLAlchemy


def test_sqlalchemy_joins_a_block_and_rolls_it_back(sqlite: Path) -> None:
    engine = create_engine(f"sqlite:///{sqlite}", poolclass=NullPool)

    def work(session: Session, name: str) -> Callable[[], object]:
        return lambda: session.add(banks.Effect(name=name, amount=1))

    def fail() -> None:
        raise Failure("balance too low")

    with Session(engine) as session, session.begin():
        assert barrier("orm-block").call(session, work(session, "orm-block")) is Outcome.DONE
        assert session.in_transaction()

    def swallow(session: Session) -> None:
        with session.begin():
            work(session, "orm-fail")()
            with pytest.raises(Failure):
                barrier("orm-fail").call(session, fail)
            session.execute(text("SELECT 1"))

    with Session(engine) as session, pytest.raises((InvalidRequestError, ResourceClosedError)):
        swallow(session)  # the block refuses to go on
    with Session(engine) as session:
        rows = session.execute(text("SELECT name FROM effect WHERE name LIKE 'orm-%'")).all()
        assert [row[0] for row in rows] == ["orm-block"]


def test_sqlalchemy_business_that_commits_is_found_out(sqlite: Path) -> None:
    engine = create_engine(f"sqlite:///{sqlite}", poolclass=NullPool)
    with Session(engine) as session, pytest.raises(CommitsApart):
        barrier("orm-apart").call(session, session.commit)
    with engine.connect() as connection, pytest.raises(CommitsApart):
        barrier("core-apart").call(connection, connection.commit)


def test_sqlalchemy_autocommit_is_refused(sqlite: Path) -> None:
    plain = create_engine(f"sqlite:///{sqlite}", poolclass=NullPool)
    always = create_engine(f"sqlite:///{sqlite}", poolclass=NullPool, isolation_level="AUTOCOMMIT")
    for connection in (
        always.connect(),
        plain.connect().execution_options(isolation_level="AUTOCOMMIT"),
    ):
        with connection, pytest.raises(CommitsApart, match="AUTOCOMMIT"):
            barrier("autocommit").call(connection, lambda: None)


def test_sqlalchemy_session_without_a_bind_is_refused() -> None:
    with Session() as session, pytest.raises(CommitsApart, match="bind"):
        barrier("unbound").call(session, lambda: None)


# psycopg


@pytest.fixture
def pg(postgres: PostgresSettings) -> Any:
    with closing(psycopg.connect(banks.psycopg_dsn(postgres))) as connection:
        yield connection


def pg_add(connection: Any, name: str) -> Callable[[], object]:
    return lambda: connection.execute(banks.INSERT.format("%s", "%s"), (name, 1))


def pg_amounts(connection: Any, name: str) -> list[int]:
    return banks.percent(connection, banks.SELECT, name)


def test_psycopg_joins_a_block_and_an_implicit_transaction(pg: Any) -> None:
    with pg.transaction():
        assert barrier("pg-block").call(pg, pg_add(pg, "pg-block")) is Outcome.DONE
    pg.execute("SELECT 1")
    assert barrier("pg-implicit").call(pg, pg_add(pg, "pg-implicit")) is Outcome.DONE
    pg.rollback()
    assert pg_amounts(pg, "pg-block") == [1]
    assert pg_amounts(pg, "pg-implicit") == []


def test_psycopg_transaction_of_a_failed_branch_cannot_commit(pg: Any) -> None:
    def fail() -> None:
        pg_add(pg, "pg-fail")()
        raise Unlucky

    pg.execute("SELECT 1")
    with pytest.raises(Unlucky):
        barrier("pg-fail").call(pg, fail)
    pg.commit()
    assert pg_amounts(pg, "pg-fail") == []
    pg.rollback()
    assert barrier("pg-fail").call(pg, pg_add(pg, "pg-fail")) is Outcome.DONE


def test_psycopg_business_cannot_commit(pg: Any) -> None:
    for name, business in (
        ("call", lambda: pg.commit()),
        ("statement", lambda: pg.execute("COMMIT")),
    ):
        with pytest.raises(CommitsApart):
            barrier(f"pg-apart-{name}").call(pg, business)
    assert "commit" not in vars(pg)


def test_psycopg_business_that_swallows_an_error_is_not_done(pg: Any) -> None:
    """PostgreSQL would answer its COMMIT with a rollback, and no error."""

    def swallow() -> None:
        with pytest.raises(psycopg.Error):
            pg.execute("SELECT 1 / 0")

    with pytest.raises(CommitsApart, match="failed"):
        barrier("pg-swallow").call(pg, swallow)
    assert barrier("pg-swallow").call(pg, lambda: None) is Outcome.DONE
    with pytest.raises(psycopg.Error):
        pg.execute("SELECT 1 / 0")
    with pytest.raises(CommitsApart, match="roll it back first"):
        barrier("pg-broken").call(pg, lambda: None)


# asyncpg


@pytest_asyncio.fixture
async def apg(postgres: PostgresSettings) -> AsyncIterator[Any]:
    pool = asyncpg.create_pool(**postgres, min_size=1, max_size=1)
    async with pool, pool.acquire() as connection:
        yield connection


async def test_asyncpg_joins_a_block_and_leaves_the_rest_usable(apg: Any) -> None:
    async def work(name: str) -> None:
        async with apg.transaction():  # a savepoint
            await apg.execute(banks.INSERT.format("$1", "$2"), name, 1)

    async def fail() -> None:
        await work("apg-fail")
        raise Unlucky

    async def swallow() -> None:
        async with apg.transaction():
            with pytest.raises(Unlucky):
                await barrier("apg-fail").acall(apg, fail)
            await apg.execute("SELECT 1")

    async with apg.transaction():
        assert await barrier("apg-block").acall(apg, lambda: work("apg-block")) is Outcome.DONE
    assert await barrier("apg-own").acall(apg, lambda: work("apg-own")) is Outcome.DONE
    with pytest.raises(Unlucky):
        await barrier("apg-fail").acall(apg, fail)
    with pytest.raises(asyncpg.PostgresError):
        await swallow()  # the block refuses to go on
    rows = await apg.fetch("SELECT name FROM effect WHERE name LIKE 'apg-%' ORDER BY id")
    assert [row[0] for row in rows] == ["apg-block", "apg-own"]


async def test_asyncpg_business_that_commits_or_swallows_is_found_out(apg: Any) -> None:
    async def commit() -> None:
        await apg.execute("COMMIT")

    async def swallow() -> None:
        with pytest.raises(asyncpg.PostgresError):
            await apg.execute("SELECT 1 / 0")

    for business in (commit, swallow):
        with pytest.raises(CommitsApart):
            await barrier(f"apg-{business.__name__}").acall(apg, business)
    assert not apg.is_in_transaction()


async def test_sqlalchemy_business_that_swallows_an_error_is_not_done(
    postgres: PostgresSettings,
) -> None:
    engine = create_async_engine(banks.postgres_url(postgres, "asyncpg"), poolclass=NullPool)
    async with engine.connect() as connection:

        async def swallow() -> None:
            with pytest.raises(Exception, match="division"):
                await connection.execute(text("SELECT 1 / 0"))

        with pytest.raises(CommitsApart):
            await barrier("sa-swallow").acall(connection, swallow)


# PyMySQL


@pytest.fixture(params=[True, False], ids=["autocommit", "transactions"])
def my(request: pytest.FixtureRequest, mariadb: MariadbServer) -> Any:
    options = banks.mysql_options(mariadb, database="business", autocommit=request.param)
    with pymysql.connect(**options) as connection:
        yield connection


def my_add(connection: Any, name: str) -> Callable[[], object]:
    return lambda: banks.percent(connection, banks.INSERT, name, 1)


def my_amounts(connection: Any, name: str) -> list[int]:
    return banks.percent(connection, banks.SELECT, name)


def test_pymysql_joins_an_open_transaction(my: Any) -> None:
    names = [f"my-{end}-{my.get_autocommit()}" for end in ("commit", "rollback")]
    for name, end in zip(names, (my.commit, my.rollback), strict=True):
        my.begin()
        assert barrier(name).call(my, my_add(my, name)) is Outcome.DONE
        end()
    assert [my_amounts(my, name) for name in names] == [[1], []]


def test_pymysql_failed_branch_takes_the_callers_rows_along(my: Any) -> None:
    name = f"my-fail-{my.get_autocommit()}"

    def fail() -> None:
        my_add(my, name)()
        raise Unlucky

    my.begin()
    my_add(my, name)()
    with pytest.raises(Unlucky):
        barrier(name).call(my, fail)
    my.commit()
    assert my_amounts(my, name) == []


def test_pymysql_business_cannot_commit(my: Any) -> None:
    for name, business in (
        ("call", lambda: my.commit()),
        ("statement", lambda: banks.percent(my, "COMMIT")),
        ("ddl", lambda: banks.percent(my, "CREATE TABLE IF NOT EXISTS ddl (a INT)")),
    ):
        with pytest.raises(CommitsApart):
            barrier(f"my-apart-{name}-{my.get_autocommit()}").call(my, business)
    assert "commit" not in vars(my)


def test_pymysql_business_that_ends_the_transaction_and_goes_on_is_found_out(my: Any) -> None:
    """Without autocommit the next statement begins another one, which has no barrier's row."""
    for word in ("COMMIT", "ROLLBACK"):

        def end_and_go_on(word: str = word) -> None:
            banks.percent(my, word)
            my_add(my, "my-on")()

        with pytest.raises(CommitsApart):
            barrier(f"my-on-{word}-{my.get_autocommit()}").call(my, end_and_go_on)


@pytest.mark.parametrize("make", [banks.asyncmy_bank, banks.aiomysql_bank])
async def test_awaited_business_that_ends_the_transaction_and_goes_on_is_found_out(
    mariadb: MariadbServer, make: Any
) -> None:
    async with make(mariadb, autocommit=False)._connect() as connection:

        async def end_and_go_on() -> None:
            await banks.apercent(connection, "ROLLBACK")
            await banks.apercent(connection, banks.INSERT, "amy-on", 1)

        with pytest.raises(CommitsApart):
            await barrier(f"amy-on-{make.__name__}").acall(connection, end_and_go_on)


def deadlock(mine: Any, other: Any, base: int) -> None:
    """Have the server choose ``mine`` as the victim, for it has changed less."""
    locked = threading.Event()

    def cross() -> None:
        for number in range(50):
            my_add(other, f"weight-{number}")()
        banks.percent(other, "UPDATE effect SET amount = 2 WHERE id = {}", base + 1)
        locked.set()
        banks.percent(other, "UPDATE effect SET amount = 2 WHERE id = {}", base)
        other.commit()

    banks.percent(mine, "UPDATE effect SET amount = 3 WHERE id = {}", base)
    crossing = threading.Thread(target=cross)
    crossing.start()
    locked.wait(10)
    with pytest.raises(pymysql.OperationalError, match="Deadlock"):
        banks.percent(mine, "UPDATE effect SET amount = 3 WHERE id = {}", base + 1)
    crossing.join(10)


def test_pymysql_business_that_swallows_a_deadlock_is_not_done(mariadb: MariadbServer) -> None:
    """The server rolled everything back, the barrier's row as well."""
    options = banks.mysql_options(mariadb, database="business")
    with pymysql.connect(**options) as mine, pymysql.connect(**options) as other:
        for number in (900_001, 900_002):
            banks.percent(
                other, f"INSERT INTO effect (id, name, amount) VALUES ({number}, 'deadlock', 1)"
            )
        other.commit()

        def swallow_and_go_on() -> None:
            deadlock(mine, other, 900_001)
            my_add(mine, "my-deadlock")()

        with pytest.raises(CommitsApart):
            barrier("my-deadlock").call(mine, swallow_and_go_on)
        assert my_amounts(mine, "my-deadlock") == []
        mine.rollback()
        assert barrier("my-deadlock").call(mine, my_add(mine, "my-deadlock")) is Outcome.DONE


def test_django_business_that_swallows_an_error_is_not_done(postgres: PostgresSettings) -> None:
    banks.django_bank(
        "swallow",
        ENGINE="django.db.backends.postgresql",
        NAME=postgres["database"],
        HOST=postgres["host"],
        PORT=postgres["port"],
        USER=postgres["user"],
        PASSWORD=postgres["password"],
    )
    from django.db import DataError, connections

    connection = connections["swallow"]

    def swallow() -> None:
        with pytest.raises(DataError):
            banks.percent(connection, "SELECT 1 / 0")

    with pytest.raises(CommitsApart):
        barrier("dj-swallow").call(connection, swallow)
    assert barrier("dj-swallow").call(connection, lambda: None) is Outcome.DONE
    connection.close()


def test_pymysql_sees_who_rolled_it_back_after_it_read_a_snapshot(mariadb: MariadbServer) -> None:
    """The reason is read as it is now, not as it was when the transaction began to read."""
    options = banks.mysql_options(mariadb, database="business")
    with pymysql.connect(**options) as mine, pymysql.connect(**options) as other:
        mine.begin()
        my_amounts(mine, "snapshot")
        undo = barrier("my-snapshot", "compensate")
        assert undo.call(other, lambda: None) is Outcome.NULL_COMPENSATION
        assert barrier("my-snapshot").call(mine, lambda: None) is Outcome.HANGING


# Django


def test_django_joins_atomic_and_rolls_it_back(sqlite: Path) -> None:
    banks.django_bank("join", ENGINE="django.db.backends.sqlite3", NAME=str(sqlite))
    from django.db import connections, transaction

    connection = connections["join"]

    def work(name: str) -> Callable[[], object]:
        return lambda: banks.percent(connection, banks.INSERT, name, 1)

    def fail() -> None:
        work("dj-fail")()
        raise Unlucky

    with transaction.atomic(using="join"):
        assert barrier("dj-block").call(connection, work("dj-block")) is Outcome.DONE
    with transaction.atomic(using="join"), pytest.raises(Unlucky):
        barrier("dj-fail").call(connection, fail)
    with pytest.raises(Unlucky):
        barrier("dj-fail").call(connection, fail)
    with pytest.raises(CommitsApart):
        barrier("dj-set").call(connection, lambda: connection.set_rollback(True))
    assert banks.percent(connection, banks.SELECT, "dj-block") == [1]
    assert banks.percent(connection, banks.SELECT, "dj-fail") == []
    connection.close()
