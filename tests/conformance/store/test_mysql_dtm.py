"""A database that dtm filled opens as it is, and what dtm left unfinished goes on."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import asyncmy
import pytest
import pytest_asyncio

from kit.dtm.core.model import Branch, Options
from kit.dtm.store import Filter, GidExists, KeyValue, StoreCorrupt
from kit.dtm.store.mysql import MysqlStore
from kit.dtm.wire import BranchStatus, Op, Protocol, Status, TransType
from kit.testing.mariadb import MariadbServer, mariadb_server
from kit.testing.store import change, refused, stored, transaction

ZONE = ZoneInfo("Asia/Shanghai")

DTM = """
CREATE TABLE trans_global (
  id bigint(22) NOT NULL AUTO_INCREMENT, gid varchar(128) NOT NULL,
  trans_type varchar(45) NOT NULL, status varchar(12) NOT NULL,
  query_prepared varchar(1024) NOT NULL, protocol varchar(45) NOT NULL,
  create_time datetime DEFAULT NULL, update_time datetime DEFAULT NULL,
  finish_time datetime DEFAULT NULL, rollback_time datetime DEFAULT NULL,
  options varchar(1024) DEFAULT '', custom_data varchar(1024) DEFAULT '',
  next_cron_interval int(11) DEFAULT NULL, next_cron_time datetime DEFAULT NULL,
  owner varchar(128) NOT NULL DEFAULT '', ext_data text,
  result varchar(1024) DEFAULT '', rollback_reason varchar(1024) DEFAULT '',
  PRIMARY KEY (id), UNIQUE KEY gid (gid), KEY owner (owner),
  KEY status_next_cron_time (status, next_cron_time)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE trans_branch_op (
  id bigint(22) NOT NULL AUTO_INCREMENT, gid varchar(128) NOT NULL, url varchar(1024) NOT NULL,
  data text, bin_data blob, branch_id varchar(128) NOT NULL, op varchar(45) NOT NULL,
  status varchar(45) NOT NULL, finish_time datetime DEFAULT NULL,
  rollback_time datetime DEFAULT NULL, create_time datetime DEFAULT NULL,
  update_time datetime DEFAULT NULL, PRIMARY KEY (id), UNIQUE KEY gid_uniq (gid, branch_id, op)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE kv (
  id bigint(22) NOT NULL AUTO_INCREMENT, cat varchar(45) NOT NULL, k varchar(128) NOT NULL, v text,
  version bigint(22) DEFAULT 1, create_time datetime DEFAULT NULL,
  update_time datetime DEFAULT NULL, PRIMARY KEY (id), UNIQUE KEY uniq_k (cat, k)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT INTO trans_global (gid, trans_type, status, query_prepared, protocol, create_time,
    update_time, options, custom_data, next_cron_interval, next_cron_time, owner) VALUES
  ('saga-1', 'saga', 'submitted', '', 'http', '2026-07-01 08:00:00', '2026-07-01 08:00:05',
   '{"concurrent":false}', '{"orders":{},"concurrent":false}', 20, '2026-07-01 08:00:25', 'Xk3'),
  ('msg-1', 'msg', 'prepared', 'http://host:80/query', 'grpc', '2026-01-01 00:00:00',
   '2026-01-01 00:00:00', '{"wait_result":true,"concurrent":false,"retry_count":2}', '', 10,
   '2026-01-01 00:00:35', '');
INSERT INTO trans_global (gid, trans_type, status, query_prepared, protocol, create_time,
    update_time, finish_time, next_cron_interval, next_cron_time, options, custom_data) VALUES
  ('tcc-1', 'tcc', 'succeed', '', 'http', '2026-07-01 08:00:00', '2026-07-01 08:00:01',
   '2026-07-01 08:00:01', NULL, '2026-07-01 08:00:10', NULL, NULL);
INSERT INTO trans_branch_op (gid, url, bin_data, branch_id, op, status, finish_time, create_time,
    update_time) VALUES
  ('saga-1', 'http://host/out-c', '{"a":1}', '01', 'compensate', 'prepared', NULL,
   '2026-07-01 08:00:00', '2026-07-01 08:00:00'),
  ('saga-1', 'http://host/out', '{"a":1}', '01', 'action', 'succeed', '2026-07-01 08:00:02',
   '2026-07-01 08:00:00', '2026-07-01 08:00:02'),
  ('msg-1', 'trans/TransIn', NULL, '01', 'action', 'prepared', NULL, '2026-01-01 00:00:00',
   '2026-01-01 00:00:00');
INSERT INTO kv (cat, k, v, version, create_time, update_time) VALUES
  ('topics', 'orders', '[]', 3, '2026-07-01 08:00:00', '2026-07-01 08:00:01')
"""
"""dtm's tables after it was stopped in the midst of two transactions, in the zone of its server."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[MariadbServer]:
    async with mariadb_server("--default-time-zone=+08:00") as running:
        yield running


async def sql(server: MariadbServer, text: str) -> Any:
    """Run statements in the database ``dtm`` beside the store; give the rows of the last."""
    connection = await asyncmy.connect(
        host=server.host, port=server.port, user=server.user, password=server.password
    )
    try:
        cursor = connection.cursor()
        await cursor.execute("CREATE DATABASE IF NOT EXISTS dtm; USE dtm")
        while await cursor.nextset():
            pass
        await cursor.execute(text)
        while await cursor.nextset():
            pass
        await connection.commit()
        return await cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


def store_of(server: MariadbServer) -> MysqlStore:
    return MysqlStore(server.host, server.port, server.user, server.password)


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()) * 1000


async def fresh(server: MariadbServer) -> None:
    await sql(server, f"DROP DATABASE dtm; CREATE DATABASE dtm CHARSET utf8mb4; USE dtm; {DTM}")


async def test_what_dtm_left_unfinished_is_claimed_with_its_branches(server: MariadbServer) -> None:
    await fresh(server)
    async with store_of(server) as store:
        claimed = await store.claim("a", 10)
        assert [held.tx.gid for held in claimed] == ["msg-1", "saga-1"]
        msg, saga = (held.tx for held in claimed)
        assert [(held.fence, held.owner) for held in claimed] == [(2, "a")] * 2
        assert saga.trans_type is TransType.SAGA
        assert (saga.status, saga.protocol) == (Status.SUBMITTED, Protocol.HTTP)
        assert saga.custom_data == '{"orders":{},"concurrent":false}'
        assert saga.next_cron_interval == 20
        assert saga.create_time == instant("2026-07-01 08:00:00")
        assert saga.update_time == instant("2026-07-01 08:00:05")
        assert saga.next_cron_time == instant("2026-07-01 08:00:25")
        assert saga.branches == (
            Branch("01", Op.COMPENSATE, "http://host/out-c", b'{"a":1}'),
            Branch(
                "01",
                Op.ACTION,
                "http://host/out",
                b'{"a":1}',
                BranchStatus.SUCCEED,
                instant("2026-07-01 08:00:02"),
            ),
        )
        assert saga.branches[1].create_time == instant("2026-07-01 08:00:00")
        assert msg.query_prepared == "http://host:80/query"
        assert msg.options == Options(wait_result=True)
        assert msg.retry_count == 2
        assert msg.branches == (Branch("01", Op.ACTION, "trans/TransIn", b""),)


async def test_indexes_of_other_names_are_as_good(server: MariadbServer) -> None:
    """Statements name theirs: those are added, also to a database that was migrated before."""
    renamed = DTM.replace("KEY gid (", "KEY uk_gid (").replace("KEY gid_uniq (", "KEY uk_branch (")
    await sql(server, f"DROP DATABASE dtm; CREATE DATABASE dtm CHARSET utf8mb4; USE dtm; {renamed}")
    for _ in range(2):
        async with store_of(server) as store:
            held = await stored(store, "saga-1")
            assert len(held.tx.branches) == 2
            await refused(store.create(held.tx), GidExists)
        await sql(server, "ALTER TABLE trans_global DROP INDEX gid, DROP INDEX due_at")


async def test_a_gid_that_stands_twice_is_told_before_anything_is_done(
    server: MariadbServer,
) -> None:
    await fresh(server)
    await sql(
        server,
        "ALTER TABLE trans_global DROP INDEX gid; INSERT INTO trans_global (gid, trans_type, "
        "status, query_prepared, protocol) SELECT gid, trans_type, status, '', protocol "
        "FROM trans_global WHERE gid = 'msg-1'",
    )
    with pytest.raises(StoreCorrupt, match="trans_global of database 'dtm' has rows that are"):
        async with store_of(server):
            pass


async def test_everything_else_of_dtm_is_there_as_well(server: MariadbServer) -> None:
    await fresh(server)
    async with store_of(server) as store:
        rows, _ = await store.scan("", 10, Filter())
        assert [held.tx.gid for held in rows] == ["tcc-1", "msg-1", "saga-1"]
        ended = rows[0].tx
        assert (ended.options, ended.custom_data, ended.next_cron_interval) == (Options(), "", 0)
        assert ended.finish_time == instant("2026-07-01 08:00:01")
        assert (await stored(store, "saga-1")).owner == ""
        [topic] = await store.find_kv("topics", "orders")
        assert topic == KeyValue("topics", "orders", "[]", 3)
        assert topic.create_time == instant("2026-07-01 08:00:00")
        assert await store.purge(instant("2026-07-01 08:00:01") + 1, 10) == 1
        await refused(store.create(transaction("saga-1")), GidExists)
        for other in ("Saga-1", "saga-1 ", "ｓaga-1"):
            await store.create(transaction(other))
            assert (await stored(store, other)).tx == transaction(other)


async def test_a_migration_that_was_broken_off_is_carried_to_its_end(server: MariadbServer) -> None:
    await fresh(server)
    async with store_of(server):
        pass
    await sql(
        server,
        "UPDATE trans_global SET create_ms = 0, next_cron_ms = NULL, owner = 'Xk3';"
        "DROP TABLE coordinator_schema; DROP TABLE kv",
    )
    async with store_of(server) as store:
        assert len(await store.claim("a", 10)) == 2
        await store.create_kv("c", "k", "v")


async def test_the_second_opening_leaves_rows_as_they_are(server: MariadbServer) -> None:
    await fresh(server)
    async with store_of(server) as store:
        [first, _] = await store.claim("a", 10, lease_s=100)
        before = await stored(store, first.tx.gid)
    async with store_of(server) as store:
        assert await stored(store, first.tx.gid) == before
        assert await store.claim("b", 10) == []


async def test_columns_of_dtm_stay_filled_on_the_wall_clock_of_the_server(
    server: MariadbServer,
) -> None:
    await fresh(server)
    async with store_of(server) as store:
        at = instant("2026-03-04 05:06:07")
        tx = transaction("g", create_time=at + 999, update_time=at, next_cron_time=at + 5_000)
        await store.create(tx, owner="a")
        held = await stored(store, "g")
        ended = change(held, "a", *tx.branches, tx=transaction("g", create_time=at, finish_time=at))
        read = "SELECT create_time, update_time, finish_time, next_cron_time FROM trans_global "
        [row] = await sql(server, read + "WHERE gid = 'g'")
        moment = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001 - the server's wall clock
        assert row == (moment, moment, None, moment.replace(second=12))
        await store.save(ended)
        [row] = await sql(server, read + "WHERE gid = 'g'")
        assert (row[0], row[2], row[3]) == (moment, moment, None)
        [(created, owner)] = await sql(
            server,
            "SELECT TIMESTAMPDIFF(SECOND, b.create_time, NOW()), g.owner FROM trans_branch_op b "
            "JOIN trans_global g USING (gid) WHERE gid = 'g' LIMIT 1",
        )
        assert 0 <= created < 60
        assert owner == "a"
