"""A database that dtm has written opens as it is: its unfinished transactions go on.

The tables are what the specification says of dtm's (spec dtm-protocol.md §10.2).
"""

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from kit.dtm.core.model import Branch, Options
from kit.dtm.store import Filter, StoreCorrupt, StoreUnavailable
from kit.dtm.store.postgres import PostgresStore, statements
from kit.dtm.store.postgres.session import PLANNER_SETTINGS
from kit.dtm.wire import BranchStatus, Op, Protocol, Status, TransType
from kit.testing.postgres import PostgresServer, postgres_server
from kit.testing.store import transaction

_TIMES = ", ".join(
    f"{name}_time timestamp(0) with time zone"
    for name in ("create", "update", "finish", "rollback")
)
DTM_TABLES = f"""
    CREATE SEQUENCE trans_global_seq;
    CREATE TABLE trans_global (
        id bigint NOT NULL DEFAULT nextval('trans_global_seq') PRIMARY KEY,
        gid varchar(128) NOT NULL, trans_type varchar(45) NOT NULL, status varchar(45) NOT NULL,
        query_prepared varchar(1024) NOT NULL, protocol varchar(45) NOT NULL, {_TIMES},
        options varchar(1024) DEFAULT '', custom_data varchar(1024) DEFAULT '',
        next_cron_interval int, next_cron_time timestamp(0) with time zone,
        owner varchar(128) NOT NULL DEFAULT '', ext_data text,
        result varchar(1024) DEFAULT '', rollback_reason varchar(1024) DEFAULT '',
        CONSTRAINT gid UNIQUE (gid)
    );
    CREATE INDEX owner ON trans_global (owner);
    CREATE INDEX status_next_cron_time ON trans_global (status, next_cron_time);
    CREATE SEQUENCE trans_branch_op_seq;
    CREATE TABLE trans_branch_op (
        id bigint NOT NULL DEFAULT nextval('trans_branch_op_seq') PRIMARY KEY,
        gid varchar(128) NOT NULL, url varchar(1024) NOT NULL, data text, bin_data bytea,
        branch_id varchar(128) NOT NULL, op varchar(45) NOT NULL, status varchar(45) NOT NULL,
        {_TIMES},
        CONSTRAINT gid_branch_uniq UNIQUE (gid, branch_id, op)
    );
    CREATE SEQUENCE kv_seq;
    CREATE TABLE kv (
        id bigint NOT NULL DEFAULT nextval('kv_seq') PRIMARY KEY,
        cat varchar(45) NOT NULL, k varchar(128) NOT NULL, v text, version bigint DEFAULT 1,
        create_time timestamp(0) with time zone, update_time timestamp(0) with time zone,
        CONSTRAINT uniq_k UNIQUE (cat, k)
    );
"""
DTM_ROWS = """
    INSERT INTO trans_global (gid, trans_type, status, query_prepared, protocol, create_time,
        update_time, options, custom_data, next_cron_interval, next_cron_time, owner)
    VALUES ('waits', 'saga', 'submitted', '', 'grpc', '2026-01-01T00:00:01Z',
        '2026-01-01T00:00:02Z', '{"concurrent":false}', '', 10, '2026-01-01T00:00:11Z', ''),
        ('bare', 'msg', 'prepared', 'http://q', 'http', '2026-01-01T00:00:01Z',
        '2026-01-01T00:00:02Z', NULL, NULL, NULL, '2026-01-01T00:00:12Z', 'somebody'),
        ('later', 'tcc', 'aborting', '', 'http', '2026-01-01T00:00:01Z',
        '2026-01-01T00:00:02Z', '{"concurrent":false}', '', 10, now() + interval '1 hour', '');
    INSERT INTO trans_global (gid, trans_type, status, query_prepared, protocol, create_time,
        update_time, finish_time, options, next_cron_interval, next_cron_time, owner)
    VALUES ('over', 'msg', 'succeed', '', 'grpc', '2026-01-01T00:00:01Z', '2026-01-01T00:00:02Z',
        '2026-01-01T00:00:03Z', '{"concurrent":false}', 10, '2026-01-01T00:00:11Z', '');
    INSERT INTO trans_branch_op (gid, url, bin_data, branch_id, op, status, finish_time,
        create_time, update_time)
    VALUES ('waits', 'busi/TransOut', '\\x081e', '01', 'action', 'succeed',
            '2026-01-01T00:00:05Z', '2026-01-01T00:00:01Z', '2026-01-01T00:00:05Z'),
        ('waits', 'busi/TransIn', NULL, '02', 'action', 'prepared', NULL,
            '2026-01-01T00:00:01Z', '2026-01-01T00:00:01Z');
    INSERT INTO kv (cat, k, v, version, create_time, update_time)
    VALUES ('topics', 'orders', '{}', 3, '2026-01-01T00:00:01Z', '2026-01-01T00:00:02Z');
"""
NEW_YEAR = 1_767_225_600_000
"""2026-01-01 in milliseconds."""

_numbers = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[PostgresServer]:
    async with postgres_server() as running:
        yield running


@pytest.fixture
def schema() -> str:
    return f"s{next(_numbers)}"


async def test_unfinished_transactions_of_dtm_are_claimed_with_their_branches(
    server: PostgresServer, schema: str
) -> None:
    """What a Go dtm left behind is continued; instants keep their second."""
    await server.sql(f"CREATE SCHEMA {schema}; SET search_path = {schema}; {DTM_TABLES} {DTM_ROWS}")
    async with PostgresStore(**server.settings, schema=schema) as store:
        waits, bare = await store.claim("a", 10)
        assert waits.tx == transaction(
            "waits",
            trans_type=TransType.SAGA,
            branches=(
                Branch(
                    "01", Op.ACTION, "busi/TransOut", b"\x08\x1e", BranchStatus.SUCCEED,
                    NEW_YEAR + 5_000,
                ),
                Branch("02", Op.ACTION, "busi/TransIn"),
            ),
            create_time=NEW_YEAR + 1_000,
            update_time=NEW_YEAR + 2_000,
            next_cron_interval=10,
            next_cron_time=NEW_YEAR + 11_000,
        )  # fmt: skip
        assert [branch.create_time for branch in waits.tx.branches] == [NEW_YEAR + 1_000] * 2
        assert (waits.owner, waits.fence) == ("a", 2)
        assert (bare.tx.gid, bare.tx.status, bare.tx.protocol) == (
            "bare", Status.PREPARED, Protocol.HTTP,
        )  # fmt: skip
        assert (bare.tx.options, bare.tx.custom_data, bare.owner) == (Options(), "", "a")
        later = await store.load("later")
        assert later is not None
        assert (later.owner, later.lease_until, later.fence) == ("", 0, 1)
        assert await store.next_due() == waits.lease_until  # before that of `later`
        [topic] = await store.find_kv("topics", "orders")
        assert (topic.value, topic.version, topic.update_time) == ("{}", 3, NEW_YEAR + 2_000)
        assert await store.purge(NEW_YEAR + 3_000, 10) == 0
        assert await store.purge(NEW_YEAR + 3_001, 10) == 1
        assert await store.load("over") is None


async def test_columns_of_dtm_are_widened(server: PostgresServer, schema: str) -> None:
    """dtm cuts or refuses these at 1,024 characters; its int column holds no long interval."""
    await server.sql(f"CREATE SCHEMA {schema}; SET search_path = {schema}; {DTM_TABLES}")
    long = "x" * 100_000
    tx = transaction(
        "g",
        branches=(Branch("01", Op.ACTION, long, b"x" * 1_000_000),),
        custom_data=long,
        query_prepared=long,
        result=long,
        rollback_reason=long,
        options=Options(branch_headers={"h": long}),
        next_cron_interval=2**40,
        next_cron_time=2**50,
    )
    async with PostgresStore(**server.settings, schema=schema) as store:
        await store.create(tx)
        held = await store.load("g")
        assert held is not None
        assert held.tx == tx


async def test_queries_written_for_dtm_read_right(server: PostgresServer, schema: str) -> None:
    """dtm's own time columns are filled from ours."""
    at = NEW_YEAR + 1_000
    async with PostgresStore(**server.settings, schema=schema) as store:
        await store.create(transaction("g", create_time=at, next_cron_time=at + 5_000))
    shown = await server.sql(
        f"SET timezone = 'UTC'; "
        f"SELECT create_time, next_cron_time, finish_time FROM {schema}.trans_global"
    )
    assert shown.strip() == "2026-01-01 00:00:01+00|2026-01-01 00:00:06+00|"


async def test_rows_that_dtm_adds_later_are_taken_over_at_the_next_start(
    server: PostgresServer, schema: str
) -> None:
    """Whoever goes back to dtm for a while loses nothing."""
    async with PostgresStore(**server.settings, schema=schema) as store:
        await store.create(transaction("ours"))
    await server.sql(f"SET search_path = {schema}; {DTM_ROWS}")
    async with PostgresStore(**server.settings, schema=schema) as store:
        assert [held.tx.gid for held in await store.claim("a", 10)] == ["waits", "bare"]
        page, _ = await store.scan("", 10, Filter())
        assert len(page) == 5


async def test_coordinators_that_start_together_make_the_tables_once(
    server: PostgresServer, schema: str
) -> None:
    async def start(n: int) -> None:
        async with PostgresStore(**server.settings, schema=schema) as store:
            await store.create(transaction(f"g{n}"))

    await server.sql(f"CREATE SCHEMA {schema}")
    await asyncio.gather(*map(start, range(8)))


async def test_tables_of_a_newer_version_are_refused(server: PostgresServer, schema: str) -> None:
    async with PostgresStore(**server.settings, schema=schema):
        pass
    await server.sql(f"UPDATE {schema}.kit_schema_version SET version = 99")
    with pytest.raises(StoreCorrupt, match="version 99"):
        await PostgresStore(**server.settings, schema=schema).__aenter__()


async def test_tables_of_another_program_are_refused(server: PostgresServer, schema: str) -> None:
    await server.sql(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.trans_global (a int)")
    with pytest.raises(StoreCorrupt, match="name another schema"):
        await PostgresStore(**server.settings, schema=schema).__aenter__()
    left = f"SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
    assert (await server.sql(left)).strip() == "1"


async def test_a_start_that_cannot_says_where_and_the_way_out(
    server: PostgresServer, schema: str
) -> None:
    """Wrong password, no such database, a schema that may not be made."""
    await server.sql(f"CREATE ROLE r{schema} LOGIN PASSWORD 'p'")
    where = f"127.0.0.1:{server.settings['port']}"
    for wrong, way_out in (
        ({"password": "wrong"}, "Store.Password"),
        ({"database": "absent"}, "create the database"),
        ({"user": f"r{schema}", "password": "p", "schema": "mine"}, "grant the privilege"),
    ):
        settings = {**server.settings, "schema": schema, **wrong}
        with pytest.raises(StoreUnavailable) as caught:
            await PostgresStore(**settings).__aenter__()  # type: ignore[arg-type]
        assert where in caught.value.message
        assert way_out in caught.value.message
        assert "wrong" not in caught.value.message


INDEXES = {
    "WRITE": {"gid"},
    "LOAD": {"gid", "gid_branch_uniq"},
    "TAKE": {"trans_global_due", "trans_global_pkey"},
    "BRANCHES_OF": {"gid_branch_uniq"},
    "RENEW": {"gid"},
    "NEXT_DUE": {"trans_global_due"},
    "PURGE": {"trans_global_ended", "trans_global_pkey", "gid_branch_uniq"},
    "EXPIRED": {"trans_global_ended", "gid_branch_uniq"},
    "DELETE": {"gid", "gid_branch_uniq"},
    "SCAN": {"trans_global_pkey"},
    "RESET_ONE": {"gid"},
    "RESET": {"trans_global_due", "trans_global_pkey"},
}


async def test_rows_are_found_by_the_index_that_was_meant_for_them(
    server: PostgresServer, schema: str
) -> None:
    """Neither a backlog of unfinished rows nor a mass of finished ones is read or sorted."""
    async with PostgresStore(**server.settings, schema=schema):
        pass
    await server.sql(f"""
        SET search_path = {schema};
        INSERT INTO trans_global (gid, trans_type, status, query_prepared, protocol, fence,
            next_cron_ms, finish_ms)
        SELECT 'g' || n, 'msg', CASE WHEN n % 100 = 0 THEN 'submitted' ELSE 'succeed' END, '',
            'grpc', 1, n, n FROM generate_series(1, 50000) n;
        INSERT INTO trans_branch_op (gid, url, branch_id, op, status)
        SELECT 'g' || n, '', '01', 'action', 'succeed' FROM generate_series(1, 50000) n;
        ANALYZE trans_global; ANALYZE trans_branch_op
    """)
    sets = "; ".join(f"SET {name} = {value}" for name, value in PLANNER_SETTINGS.items())
    for name, indexes in INDEXES.items():
        query = getattr(statements, name)
        plan = await server.sql(
            f"SET search_path = {schema}; {sets}; EXPLAIN (GENERIC_PLAN) {query}"
        )
        assert set(re.findall(r"Index(?: Only)? Scan.* using (\w+)", plan)) == indexes, name
        assert "Seq Scan" not in plan, name
        assert "Bitmap" not in plan, name
