"""The barrier's table: made once, shared with dtm, cleaned by age."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pymysql
import pytest

from kit.dtm.barrier import BarrierError, BranchBarrier, CommitsApart, Outcome
from kit.dtm.barrier.table import aclean_table, acreate_table, clean_table, create_table
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings
from tests.conformance.barrier import banks

WEEK_S = 7 * 86_400.0

DTM_MYSQL = """\
CREATE TABLE dtm_own.barrier (
    id BIGINT(22) PRIMARY KEY AUTO_INCREMENT,
    trans_type VARCHAR(45) DEFAULT '',
    gid VARCHAR(128) DEFAULT '',
    branch_id VARCHAR(128) DEFAULT '',
    op VARCHAR(45) DEFAULT '',
    barrier_id VARCHAR(45) DEFAULT '',
    reason VARCHAR(45) DEFAULT '',
    create_time DATETIME DEFAULT now(),
    update_time DATETIME DEFAULT now(),
    KEY (create_time),
    KEY (update_time),
    UNIQUE KEY (gid, branch_id, op, barrier_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4"""

DTM_POSTGRES = (
    "CREATE SCHEMA dtm_own",
    "CREATE SEQUENCE dtm_own.barrier_seq",
    """\
CREATE TABLE dtm_own.barrier (
    id BIGINT NOT NULL DEFAULT NEXTVAL ('dtm_own.barrier_seq'),
    trans_type VARCHAR(45) DEFAULT '',
    gid VARCHAR(128) DEFAULT '',
    branch_id VARCHAR(128) DEFAULT '',
    op VARCHAR(45) DEFAULT '',
    barrier_id VARCHAR(45) DEFAULT '',
    reason VARCHAR(45) DEFAULT '',
    create_time TIMESTAMP(0) WITH TIME ZONE DEFAULT NULL,
    update_time TIMESTAMP(0) WITH TIME ZONE DEFAULT NULL,
    PRIMARY KEY (id),
    CONSTRAINT uniq_barrier UNIQUE (gid, branch_id, op, barrier_id)
)""",
)
"""The shapes that dtm's own scripts give."""


def open_sqlite(path: Path) -> Any:
    return sqlite3.connect(path, isolation_level=None)


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def connection(request: pytest.FixtureRequest) -> Any:
    """One whose statements commit alone."""
    where = request.getfixturevalue(request.param)
    if request.param == "sqlite":
        opened: Any = open_sqlite(where)
    elif request.param == "postgres":
        opened = psycopg.connect(banks.psycopg_dsn(where), autocommit=True)
    else:
        opened = pymysql.connect(**banks.mysql_options(where, database="business", autocommit=True))
    with closing(opened):
        yield opened


def table_of(connection: Any) -> str:
    return "dtm_barrier" if isinstance(connection, sqlite3.Connection) else "dtm_barrier.barrier"


def execute(connection: Any, statement: str) -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(statement)
    rows = list(cursor.fetchall()) if cursor.description else []
    cursor.close()
    return rows


def gids(connection: Any) -> list[str]:
    rows = execute(connection, f"SELECT DISTINCT gid FROM {table_of(connection)}")
    return sorted(row[0] for row in rows)


def fill(connection: Any) -> None:
    """Old, young and mixed transactions."""
    table = table_of(connection)
    execute(connection, f"DELETE FROM {table}")
    for gid in ("old-1", "old-2", "mixed", "young"):
        for op in ("action", "compensate"):
            BranchBarrier("saga", gid, "01", op).call(connection, lambda: None)
    old = "'2020-01-01 00:00:00'"
    execute(
        connection,
        f"UPDATE {table} SET create_time = {old} WHERE gid LIKE 'old%' "
        "OR (gid = 'mixed' AND op = 'action')",
    )


def test_old_transactions_go_as_a_whole(connection: Any) -> None:
    fill(connection)
    assert clean_table(connection, older_than=WEEK_S) == 4
    assert gids(connection) == ["mixed", "young"]
    undo = BranchBarrier("saga", "mixed", "01", "compensate")
    assert undo.call(connection, lambda: None) is Outcome.REPEATED


def test_live_transactions_are_kept(connection: Any) -> None:
    fill(connection)
    asked: list[Sequence[str]] = []

    def keep(found: Sequence[str]) -> list[str]:
        asked.append(found)
        return ["old-1"]

    assert clean_table(connection, older_than=WEEK_S, keep=keep) == 2
    assert asked == [("old-1", "old-2")]
    assert gids(connection) == ["mixed", "old-1", "young"]


def test_many_transactions_are_cleaned_page_by_page(connection: Any) -> None:
    fill(connection)
    table = table_of(connection)
    for first in range(0, 1_200, 400):
        rows = ", ".join(
            f"('saga', 'many-{n:04}', '01', 'action', '01', 'action', '2020-01-01')"
            for n in range(first, first + 400)
        )
        columns = "trans_type, gid, branch_id, op, barrier_id, reason, create_time"
        execute(connection, f"INSERT INTO {table} ({columns}) VALUES {rows}")
    sizes: list[int] = []

    def keep(found: Sequence[str]) -> list[str]:
        sizes.append(len(found))
        return []

    assert clean_table(connection, older_than=WEEK_S, keep=keep) == 1_204
    assert sizes == [500, 500, 202]


def test_what_is_too_young_or_too_busy_is_refused(connection: Any) -> None:
    with pytest.raises(BarrierError, match="too short"):
        clean_table(connection, older_than=60)
    execute(connection, "BEGIN")
    with pytest.raises(CommitsApart, match="end it first"):
        clean_table(connection)
    execute(connection, "ROLLBACK")


async def test_awaited_drivers_clean_as_well(postgres: PostgresSettings) -> None:
    async def keep(found: Sequence[str]) -> list[str]:
        return ["old-1"] if "old-1" in found else []

    with closing(psycopg.connect(banks.psycopg_dsn(postgres), autocommit=True)) as other:
        fill(other)
        connection = await asyncpg.connect(**postgres)
        assert await aclean_table(connection, older_than=WEEK_S, keep=keep) == 2
        assert gids(other) == ["mixed", "old-1", "young"]
        with pytest.raises(TypeError, match="aclean_table"):
            clean_table(connection)
        await connection.close()


async def test_many_make_the_table_at_once(postgres: PostgresSettings) -> None:
    async def make() -> None:
        connection = await asyncpg.connect(**postgres)
        await acreate_table(connection, "crowd.barrier")
        await connection.close()

    await asyncio.gather(*(make() for _ in range(8)))


def test_tables_of_dtm_are_used_as_they_are(
    postgres: PostgresSettings, mariadb: MariadbServer
) -> None:
    """dtm-labs/dtm sqls/dtmcli.barrier.postgres.sql, dtmcli.barrier.mysql.sql."""
    pg = psycopg.connect(banks.psycopg_dsn(postgres), autocommit=True)
    my = pymysql.connect(**banks.mysql_options(mariadb, autocommit=True))
    with closing(pg), closing(my):
        for statement in DTM_POSTGRES:
            execute(pg, statement)
        execute(my, "CREATE DATABASE dtm_own")
        execute(my, DTM_MYSQL)
        for connection in (pg, my):
            create_table(connection, "dtm_own.barrier")
            for op, expected in (
                ("compensate", Outcome.NULL_COMPENSATION),
                ("compensate", Outcome.REPEATED),
                ("action", Outcome.HANGING),
            ):
                branch = BranchBarrier("saga", "g", "01", op, table="dtm_own.barrier")
                assert branch.call(connection, lambda: None) is expected
            rows = execute(connection, "SELECT op, reason FROM dtm_own.barrier ORDER BY id")
            assert [tuple(row) for row in rows] == [
                ("action", "compensate"),
                ("compensate", "compensate"),
            ]


def test_a_name_that_is_none_is_refused(sqlite: Path) -> None:
    with closing(open_sqlite(sqlite)) as connection:
        for name in ("a b", "a.b.c", "1a", "a;", "a'", 'a"', ".a", "a.", "ä", "a\n"):
            with pytest.raises(BarrierError, match="no name"):
                create_table(connection, name)
        create_table(connection, "main.other")
        branch = BranchBarrier("saga", "g", "01", "action", table="main.other")
        assert branch.call(connection, lambda: None) is Outcome.DONE
