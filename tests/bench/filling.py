"""Fills stores with unfinished transactions that are due in an hour, faster than a coordinator.

The store writes one of them, the database copies it; Redis, which cannot, is given each.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import apsw
import asyncmy
import asyncpg

from kit.dtm.core.model import Branch, Options, Transaction
from kit.dtm.server.config import StoreSettings
from kit.dtm.server.stores import make_store
from kit.dtm.store import Store
from kit.dtm.wire import Op, Status, TransType
from tests.bench.load import BRANCH_PAYLOAD

AN_HOUR = 3_600_000
PATTERN = "pattern"
"""The gid of the transaction that the others are copies of."""

AT_ONCE = 100
"""Transactions that Redis is given together."""

Settings = Mapping[str, object]


def opened(settings: Settings) -> Store:
    """The store that a coordinator with ``settings`` would use."""
    return make_store(StoreSettings.model_validate(settings))


async def fill(settings: Settings, number: int, sink: str) -> None:
    """Store unfinished transactions that are due in an hour and later, with random gids."""
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
        if settings["Driver"] == "redis":
            await _create(store, pattern, number - 1)
    match settings["Driver"]:
        case "sqlite":
            await asyncio.to_thread(_copy_in_sqlite, str(settings["Path"]), number - 1)
        case "postgres":
            await _copy_in_postgres(settings, number - 1)
        case "mysql":
            await _copy_in_mysql(settings, number - 1)


async def _create(store: Store, pattern: Transaction, number: int) -> None:
    assert pattern.next_cron_time is not None
    for first in range(0, number, AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for nr in range(first, min(first + AT_ONCE, number)):
                due = pattern.next_cron_time + 1 + nr
                tx = replace(pattern, gid=uuid.uuid4().hex, next_cron_time=due)
                group.create_task(store.create(tx))


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


async def _copy_in_postgres(settings: Settings, number: int) -> None:
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
    finally:
        await db.close()


async def _copy_in_mysql(settings: Settings, number: int) -> None:
    connection: Any = await asyncmy.connect(
        host=settings["Host"],
        port=settings["Port"],
        user=settings["User"],
        password=settings["Password"],
        db=settings["Db"],
        autocommit=True,
    )

    async def columns(table: str) -> list[str]:
        await cursor.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = database() "
            "AND table_name = %s AND column_name NOT IN ('id', 'gid') "
            "AND is_generated = 'NEVER' ORDER BY ordinal_position",
            (table,),
        )
        return [row[0] for row in await cursor.fetchall()]

    try:
        async with connection.cursor() as cursor:
            tables = await columns("trans_global"), await columns("trans_branch_op")
            numbers = f"(SELECT seq AS i FROM seq_1_to_{number}) AS n"
            for statement in _copies("next_cron_ms", "md5(concat(rand(), n.i))", numbers, *tables):
                await cursor.execute(statement)
    finally:
        await connection.ensure_closed()


async def settle(settings: Settings) -> None:
    """Let the database do what it owes to many changed rows: now, not while others measure."""
    if settings["Driver"] == "postgres":
        db = await asyncpg.connect(
            host=settings["Host"],
            port=settings["Port"],
            user=settings["User"],
            password=settings["Password"],
            database=settings["Db"],
            server_settings={"search_path": settings["Schema"]},
        )
        try:
            await db.execute("VACUUM ANALYZE")
        finally:
            await db.close()
