"""What the MySQL store does when its server, the way to it or a neighbour fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncmy
import pytest
import pytest_asyncio

from kit.dtm.core.model import Branch
from kit.dtm.store import Filter, GidExists, KeyValue, LostLease, StoreCorrupt, StoreUnavailable
from kit.dtm.store.mysql import MysqlStore, link
from kit.dtm.store.mysql.link import Address, Link
from kit.dtm.wire import Op, Status
from kit.testing.mariadb import MariadbServer, mariadb_server
from kit.testing.store import change, stored, transaction
from tests.conformance.store.refusals import refused_in_time

CALLS: dict[str, Callable[[MysqlStore], Awaitable[object]]] = {
    "create": lambda store: store.create(transaction("new")),
    "load": lambda store: store.load("g"),
    "append": lambda store: store.append("g", [Branch("09", Op.ACTION, "u")]),
    "claim": lambda store: store.claim("a", 1),
    "renew": lambda store: store.renew("a", [("g", 1)]),
    "next_due": lambda store: store.next_due(),
    "purge": lambda store: store.purge(1, 1),
    "expired": lambda store: store.expired(1, 1),
    "delete": lambda store: store.delete(["g"]),
    "scan": lambda store: store.scan("", 1, Filter()),
    "reset_next_cron_time": lambda store: store.reset_next_cron_time("g"),
    "reset_cron_time": lambda store: store.reset_cron_time(1, 1),
    "find_kv": lambda store: store.find_kv("c", "k"),
    "scan_kv": lambda store: store.scan_kv("c", "", 1),
    "create_kv": lambda store: store.create_kv("c", "k", "v"),
    "update_kv": lambda store: store.update_kv(KeyValue("c", "k", "v"), "w"),
    "delete_kv": lambda store: store.delete_kv("c", "k"),
    "now_ms": lambda store: store.now_ms(),
}
THREADS = "SELECT id FROM information_schema.processlist WHERE db = 'kit_faults'"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[MariadbServer]:
    async with mariadb_server(own=True) as running:
        yield running


def store_of(server: MariadbServer, db: str = "kit_faults", **changes: Any) -> MysqlStore:
    arguments = {"user": server.user, "password": server.password, "db": db, **changes}
    return MysqlStore(server.host, server.port, **arguments)


@asynccontextmanager
async def opened(server: MariadbServer) -> AsyncIterator[MysqlStore]:
    async with store_of(server) as store:
        await store.clear()
        yield store


async def sql(server: MariadbServer, *statements: str, db: str | None = None) -> Any:
    """Run statements beside the store; give the rows of the last."""
    connection = await asyncmy.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=db,
        autocommit=True,
    )
    try:
        cursor = connection.cursor()
        for statement in statements:
            await cursor.execute(statement)
        return await cursor.fetchall()
    finally:
        connection.close()


async def test_every_call_says_in_time_that_the_server_is_down(server: MariadbServer) -> None:
    async with opened(server) as store:
        await store.create(transaction("g"))
        held = await stored(store, "g")
        await server.stop()
        try:
            calls = [call(store) for call in CALLS.values()]
            calls.append(store.save(change(held, "a", take=True)))
            errors = await asyncio.gather(*map(refused_in_time, calls))
        finally:
            await server.start()
        for error in errors:
            assert f"{server.host}:{server.port}" in error.message
            assert "start the server" in error.message
            assert "unknown" not in error.message
        assert await stored(store, "g") == held


async def test_every_call_says_in_time_that_the_server_is_frozen(server: MariadbServer) -> None:
    async with opened(server) as store:
        await store.create(transaction("g"))
        held = await stored(store, "g")
        server.freeze()
        try:
            calls = [call(store) for call in CALLS.values()]
            calls.append(store.save(change(held, "a", take=True)))
            await asyncio.gather(*map(refused_in_time, calls))
            await refused_in_time(store.create(transaction("later")))
            await refused_in_time(store.load("g"))
        finally:
            server.thaw()
        assert (await stored(store, "g")).tx.gid == "g"
        assert await store.create(transaction("after")) == 1


async def test_a_write_that_waits_behind_a_frozen_one_is_not_written_later(
    server: MariadbServer,
) -> None:
    async with opened(server) as store:
        await store.create(transaction("before"))
        server.freeze()
        try:
            first = asyncio.create_task(refused_in_time(store.create(transaction("first"))))
            await asyncio.sleep(1)
            second = asyncio.create_task(refused_in_time(store.create(transaction("second"))))
            assert "unknown" in (await first).message
            assert "unknown" not in (await second).message
        finally:
            server.thaw()
        await store.create(transaction("third"))
        assert await store.load("second") is None


async def test_the_store_comes_back_after_a_kill_with_all_it_acknowledged(
    server: MariadbServer,
) -> None:
    acknowledged = []

    async def creating(store: MysqlStore, caller: int) -> None:
        for n in range(10_000):
            try:
                await store.create(transaction(f"{caller}-{n}"))
            except StoreUnavailable:
                return
            acknowledged.append(f"{caller}-{n}")

    async with opened(server) as store:
        callers = [asyncio.create_task(creating(store, n)) for n in range(16)]
        while len(acknowledged) < 500 and not all(caller.done() for caller in callers):
            await asyncio.sleep(0.01)
        server.kill()
        await asyncio.gather(*callers)
        await server.start()
        assert len(acknowledged) > 16
        found = [await store.load(gid) for gid in acknowledged]
        assert [held.tx.gid for held in found if held is not None] == acknowledged


async def test_connections_that_were_cut_are_opened_anew_unnoticed(server: MariadbServer) -> None:
    async with opened(server) as store:
        await store.create(transaction("g", next_cron_time=1))
        for n in range(3):
            threads = await sql(server, THREADS)
            assert threads
            await sql(server, *(f"KILL {thread}" for (thread,) in threads))
            async with asyncio.timeout(20):
                while set(await sql(server, THREADS)) & set(threads):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # what the server has closed is heard of
            await store.create(transaction(f"g{n}"))
            held = await stored(store, "g")
            await store.save(change(held, "a", take=True, release=True))
            assert await store.next_due() == 1
            assert len((await store.scan("", 10, Filter()))[0]) == n + 2


async def test_a_restart_between_two_calls_is_not_noticed(server: MariadbServer) -> None:
    async with opened(server) as store:
        await store.create(transaction("g"))
        await server.stop()
        await server.start()
        await asyncio.sleep(0.05)
        await asyncio.gather(store.create(transaction("g2")), store.load("g"), store.next_due())


async def test_opening_names_the_place_and_the_way_out(server: MariadbServer) -> None:
    await server.stop()
    try:
        error = await refused_in_time(store_of(server).__aenter__())
    finally:
        await server.start()
    assert f"{server.host}:{server.port}" in error.message
    assert "correct Host and Port" in error.message
    server.freeze()
    try:
        await refused_in_time(store_of(server).__aenter__())
    finally:
        server.thaw()
    error = await refused_in_time(store_of(server, password="wrong").__aenter__())
    assert "check User and Password" in error.message
    assert "wrong" not in error.message


async def test_a_user_who_may_not_create_the_database_is_told(server: MariadbServer) -> None:
    await sql(server, "CREATE OR REPLACE USER small@'%' IDENTIFIED BY 'p'")
    error = await refused_in_time(
        store_of(server, "absent", user="small", password="p").__aenter__()
    )
    assert "'absent'" in error.message
    assert "create the database and grant" in error.message
    await sql(server, "GRANT SELECT ON *.* TO small@'%'")
    error = await refused_in_time(
        store_of(server, "absent", user="small", password="p").__aenter__()
    )
    assert "'small' may not create it" in error.message


async def test_a_newer_schema_is_not_touched(server: MariadbServer) -> None:
    async with store_of(server, "kit_newer"):
        pass
    await sql(server, "UPDATE coordinator_schema SET version = 99", db="kit_newer")
    with pytest.raises(StoreCorrupt, match="schema version 99"):
        await store_of(server, "kit_newer").__aenter__()


async def test_ten_coordinators_that_start_together_make_one_schema(server: MariadbServer) -> None:
    stores = [store_of(server, "kit_together") for _ in range(10)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    try:
        outcomes = await asyncio.gather(
            *(store.create(transaction("g")) for store in stores), return_exceptions=True
        )
        assert sum(outcome == 1 for outcome in outcomes) == 1
        assert sum(isinstance(outcome, GidExists) for outcome in outcomes) == 9
    finally:
        await asyncio.gather(*(store.__aexit__(None, None, None) for store in stores))


async def test_coordinators_on_one_database_neither_deadlock_nor_lose(
    server: MariadbServer,
) -> None:
    gids = [f"g{n}" for n in range(60)]

    async def working(store: MysqlStore, owner: str) -> int:
        done = 0
        for gid in gids:
            held = await stored(store, gid)
            branch = Branch(f"{owner}-{held.fence}", Op.ACTION, "u")
            try:
                await store.save(change(held, owner, branch, take=True, release=True))
            except LostLease:
                continue
            done += 1
            await store.claim(owner, 5, lease_s=0)
        return done

    async with opened(server) as first, store_of(server) as second, store_of(server) as third:
        stores = [first, second, third]
        await asyncio.gather(*(first.create(transaction(g, next_cron_time=1)) for g in gids))
        done = await asyncio.gather(
            *(working(stores[n % 3], f"owner-{n}") for n in range(24)),
            *(stores[n].renew(f"owner-{n}", [(gid, 1) for gid in gids]) for n in range(3)),
        )
        written = sum(count for count in done if isinstance(count, int))
        rows = 0
        for gid in gids:
            rows += len((await stored(first, gid)).tx.branches) - 2
        assert rows == written > 60


async def test_rows_that_another_session_has_locked_hold_nobody_else_up(
    server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "ABANDONED_AFTER", 8)
    monkeypatch.setattr(link, "TRUSTED_FOR", 2)  # the store's own session is closed after 8 s, too
    async with opened(server) as store:
        for gid in ("locked", "free"):
            await store.create(transaction(gid, next_cron_time=1))
        locked, free = [await stored(store, gid) for gid in ("locked", "free")]
        frozen = Link(Address(server.host, server.port, server.user, server.password, "kit_faults"))

        async def freeze() -> None:
            lock = "SELECT * FROM trans_global WHERE gid = 'locked' FOR UPDATE"
            await frozen.ask("START TRANSACTION", lock, begins=True)

        await frozen.transact(freeze)
        outcomes = await asyncio.gather(
            store.save(change(locked, "a", take=True)),
            store.save(change(free, "a", take=True, release=True)),
            store.create(transaction("locked")),
            store.append("unknown", []),
            return_exceptions=True,
        )
        kinds = [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes]
        assert kinds == [StoreUnavailable, 2, GidExists, LostLease]
        assert [held.tx.gid for held in await store.claim("b", 10)] == ["free"]
        assert "unknown" not in str(outcomes[0])
        assert (await stored(store, "locked")) == locked
        await asyncio.sleep(8)
        assert await store.save(change(locked, "a", take=True)) == 2
        frozen.drop()


async def test_a_batch_of_changes_is_one_round_trip(
    server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that may not be made is refused alone; to find out which takes more round trips."""
    async with opened(server) as store:
        for n in range(5):
            await store.create(transaction(f"g{n}"), owner="a")
        held = [await stored(store, f"g{n}") for n in range(5)]
        asked: list[tuple[str, ...]] = []
        ask = Link.ask

        def counted(link: Link, *statements: str, **kwargs: Any) -> Any:
            asked.append(statements)
            return ask(link, *statements, **kwargs)

        monkeypatch.setattr(Link, "ask", counted)
        assert await asyncio.gather(*(store.save(change(h, "a")) for h in held)) == [1] * 5
        assert len(asked) == 1
        changes = [change(replace(h, fence=7) if h is held[2] else h, "a") for h in held]
        outcomes = await asyncio.gather(*map(store.save, changes), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [int, int, LostLease, int, int]
        assert len(asked) > 2


async def test_a_cancelled_claim_leaves_the_store_usable_and_rows_free(
    server: MariadbServer,
) -> None:
    async with opened(server) as store:
        await asyncio.gather(
            *(store.create(transaction(f"g{n}", next_cron_time=1)) for n in range(50))
        )
        for _ in range(10):
            claiming = asyncio.create_task(store.claim("a", 50, lease_s=0))
            await asyncio.sleep(0.001)
            claiming.cancel()
            await asyncio.wait([claiming])
        claimed: set[str] = set()
        async with asyncio.timeout(5):
            while len(claimed) < 50:
                claimed |= {held.tx.gid for held in await store.claim("b", 50)}


async def test_a_row_that_cannot_be_read_is_left_out(server: MariadbServer) -> None:
    async with opened(server) as store:
        await store.create(transaction("good", next_cron_time=1))
        await store.create(transaction("bad", next_cron_time=1))
        await sql(
            server, "UPDATE trans_global SET options = '[]' WHERE gid = 'bad'", db="kit_faults"
        )
        with pytest.raises(StoreCorrupt, match="'bad'"):
            await store.load("bad")
        both = await asyncio.gather(store.load("good"), store.load("bad"), return_exceptions=True)
        assert [type(outcome).__name__ for outcome in both] == ["Held", "StoreCorrupt"]
        assert [held.tx.gid for held in await store.claim("a", 10)] == ["good"]
        assert [held.tx.gid for held in (await store.scan("", 10, Filter()))[0]] == ["good"]


async def test_payloads_and_texts_of_four_mebibytes_read_back(server: MariadbServer) -> None:
    big = bytes(range(256)) * (4 << 12)
    branches = tuple(Branch(f"{n}", Op.ACTION, "u", big) for n in range(3))
    tx = transaction("big", branches=branches, custom_data="'" * (4 << 20))
    async with opened(server) as store:
        others = [store.create(transaction(f"g{n}")) for n in range(20)]
        await asyncio.gather(store.create(tx), *others)
        assert (await stored(store, "big")).tx == tx


async def test_what_is_too_long_for_a_column_is_refused_and_not_cut(server: MariadbServer) -> None:
    async with opened(server) as store:
        outcomes = await asyncio.gather(
            store.create(transaction("g1")),
            store.create(transaction("x" * 129)),
            store.create(transaction("g2")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [int, ValueError, int]


async def test_settings_of_the_server_do_not_change_what_is_written() -> None:
    """Neither its sql_mode nor its character set, zone or isolation."""
    settings = (
        "--sql-mode=NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT,TRADITIONAL",
        "--character-set-server=latin1",
        "--collation-server=latin1_swedish_ci",
        "--default-time-zone=+05:30",
        "--transaction-isolation=SERIALIZABLE",
        "--autocommit=0",
    )
    texts = (
        "\\",
        "\\'",
        "'",
        "''",
        "\\\\",
        '"',
        "\n\r\x1a\x08\t",
        "\\0",
        "%s %d",
        "🎫 é e\u0301",
        ";--",
    )
    async with mariadb_server(*settings) as odd, opened(odd) as store:
        for n, text in enumerate(texts):
            branch = Branch("01", Op.ACTION, text, text.encode() + b"\\'\0\xff")
            tx = transaction(
                f"{n}{text}", custom_data=text, rollback_reason=text, branches=(branch,)
            )
            await store.create(tx, owner="a")
            held = await stored(store, tx.gid)
            assert held.tx == tx
            changed = replace(tx, custom_data=text * 2, status=Status.SUCCEED)
            await store.save(change(held, "a", tx=changed))
            assert (await stored(store, tx.gid)).tx == changed
            await store.create_kv("c", text, text)
            assert await store.find_kv("c", text) == [KeyValue("c", text, text)]
        now = time.time() * 1000
        assert abs(await store.now_ms() - now) < 2_000


async def test_weak_settings_are_told_with_their_ways_out() -> None:
    settings = (
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-doublewrite=0",
        "--log-bin=binlog",
        "--server-id=1",
        "--sync-binlog=0",
        "--max-allowed-packet=1M",
    )
    async with mariadb_server(*settings) as weak:
        await sql(weak, "CREATE DATABASE kit_faults")
        async with store_of(weak) as store:
            told = store.weaknesses
            assert [sentence.split(" is ")[0] for sentence in told] == [
                "innodb_flush_log_at_trx_commit",
                "innodb_doublewrite",
                "sync_binlog",
                "max_allowed_packet",
            ]
            big = transaction("big", branches=(Branch("01", Op.ACTION, "u", b"x" * (1 << 20)),))
            outcomes = await asyncio.gather(
                store.create(transaction("g1")),
                store.create(big),
                store.create(transaction("g2")),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [int, ValueError, int]
            assert "max_allowed_packet" in str(outcomes[1])
            assert await store.load("big") is None
        await sql(weak, "ALTER TABLE kv ENGINE = MyISAM", db="kit_faults")
        async with store_of(weak) as store:
            assert "table kv is kept by MyISAM" in store.weaknesses[3]


async def test_a_server_with_safe_settings_has_no_weakness(server: MariadbServer) -> None:
    async with opened(server) as store:
        assert store.weaknesses == ()


async def test_without_a_clock_the_database_tells_the_time(server: MariadbServer) -> None:
    async with opened(server) as store:
        began = await store.now_ms()
        await store.create(transaction("g", next_cron_time=began), owner="a", lease_s=10)
        lease_until = (await stored(store, "g")).lease_until
        assert began + 10_000 <= lease_until <= await store.now_ms() + 10_000
        assert await store.claim("b", 1) == []
        await store.create(transaction("due", next_cron_time=began))
        [held] = await store.claim("b", 10, lease_s=5)
        assert began + 5_000 <= held.lease_until <= await store.now_ms() + 5_000
        assert await store.renew("b", [("due", held.fence)], lease_s=60) == set()
        assert (await stored(store, "due")).lease_until >= began + 60_000
