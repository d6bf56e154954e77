"""What the SQLite store promises beyond the contract of every store."""

import asyncio
import os
import sqlite3
import stat
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from kit.dtm.core.model import Branch, Options
from kit.dtm.store import (
    Filter,
    GidExists,
    Held,
    StoreCorrupt,
    StoreUnavailable,
    operations,
    schema,
    statements,
)
from kit.dtm.store import batch as batching
from kit.dtm.store import sqlite as sqlite_store
from kit.dtm.store.connection import connect, connect_apsw, connect_stdlib
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import Op, Status
from kit.testing import ManualClock
from kit.testing.store import change, stored, transaction, walked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database can be."""
    return tmp_path / "coordinator.db"


def raw(path: Path, query: str, *bindings: object) -> list[tuple[object, ...]]:
    """What another program finds in, or does to, a database that nobody has open."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(query, bindings).fetchall()
    finally:
        connection.close()


# opening and closing


@pytest.mark.parametrize("again", [connect_apsw, connect_stdlib])
@pytest.mark.parametrize("first", [connect_apsw, connect_stdlib])
async def test_what_was_stored_is_there_after_a_restart(
    path: Path, first: Callable, again: Callable
) -> None:
    """Whichever driver wrote it and whichever reads it."""
    tx = transaction("g", options=Options(wait_result=True), custom_data="é")
    async with SqliteStore(path, connect=first) as store:
        await store.create(tx)
        await store.save(change(Held(tx, 1), "a", take=True, release=True))
    async with SqliteStore(path, connect=again) as store:
        assert await store.load("g") == Held(tx, 2)


async def test_closing_leaves_one_file_and_no_thread(path: Path) -> None:
    """The log is brought into the database, so a copy of that file is a backup."""
    async with SqliteStore(path) as store:
        await store.create(transaction("g"))
        assert path.with_name("coordinator.db-wal").stat().st_size > 0
    assert sorted(os.listdir(path.parent)) == ["coordinator.db", "coordinator.db.lock"]
    assert not [t for t in threading.enumerate() if t.name.startswith("store")]


async def test_a_store_can_be_closed_twice_and_opened_again(path: Path) -> None:
    """What is closed says so."""
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.load("g")
    for gid in ("g1", "g2"):
        async with store:
            await store.create(transaction(gid))
        with pytest.raises(StoreUnavailable, match="is closed"):
            await store.load(gid)
        await store.__aexit__(None, None, None)
    async with store:
        assert await store.load("g1") is not None


async def test_the_files_are_readable_by_their_owner_alone(path: Path) -> None:
    """Transactions carry payloads."""
    async with SqliteStore(path) as store:
        await store.create(transaction("g"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}, modes


async def test_a_second_store_on_one_file_is_refused(path: Path) -> None:
    """The message says who has it; once that one is gone the file can be opened."""
    async with SqliteStore(path):
        with pytest.raises(StoreUnavailable) as caught:
            await SqliteStore(path).__aenter__()
        assert caught.value.message.startswith(
            f"{path} is in use by another process (pid {os.getpid()}); "
        )
    async with SqliteStore(path):
        pass


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is not made: a typing error should not become a new database."""
    with pytest.raises(StoreUnavailable, match=r"there is no folder .*/absent; create it"):
        await SqliteStore(tmp_path / "absent" / "c.db").__aenter__()


async def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder is no file."""
    with pytest.raises(StoreUnavailable, match=f"{tmp_path}: .*Is a directory.*write"):
        await SqliteStore(tmp_path).__aenter__()


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    """Whatever it is, it belongs to somebody."""
    precious = b"precious " * 1_000
    path.write_bytes(precious)  # noqa: ASYNC240
    with pytest.raises(StoreCorrupt, match="not a database"):
        await SqliteStore(path).__aenter__()
    assert path.read_bytes() == precious  # noqa: ASYNC240


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    """No table is added to it."""
    raw(path, "CREATE TABLE accounts (id)")
    with pytest.raises(StoreCorrupt, match="belongs to another program"):
        await SqliteStore(path).__aenter__()
    assert raw(path, "SELECT name FROM sqlite_schema") == [("accounts",)]


async def test_opening_that_is_cancelled_holds_nothing(path: Path) -> None:
    """The next one can open the file at once."""
    opening = asyncio.create_task(SqliteStore(path).__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with SqliteStore(path):
        pass


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("full", ()),
        ("normal", ("a power loss may lose the last commits with synchronous normal",)),
        ("off", ("a power loss may damage the whole file with synchronous off",)),
    ],
)
async def test_a_weak_setting_is_told(path: Path, level: str, told: tuple[str, ...]) -> None:
    """A server can warn of it or refuse it; whoever reads it knows what to set."""
    async with SqliteStore(path, synchronous=level) as store:
        assert store.weaknesses == tuple(f"{loss}; set synchronous to full" for loss in told)


async def test_a_commit_survives_power_loss_unless_asked_otherwise(path: Path) -> None:
    """WAL and synchronous=FULL is the default."""
    async with SqliteStore(path) as store:
        assert store.weaknesses == ()
    assert raw(path, "PRAGMA journal_mode") == [("wal",)]


class Unjournaled(apsw.Connection):
    """A connection that keeps its journal in memory, whatever it is asked for."""

    def execute(self, statement: str, *args: object) -> apsw.Cursor:
        """Ask for another journal."""
        return super().execute(
            statement.replace("journal_mode = WAL", "journal_mode = MEMORY"), *args
        )


async def test_a_journal_in_memory_is_told(path: Path) -> None:
    """Not what was asked for counts, but what SQLite does."""
    async with SqliteStore(path, connect=Unjournaled) as store:
        [weakness] = store.weaknesses
        assert "damage the whole file, SQLite keeps its journal in memory; move" in weakness


async def test_leases_of_a_dead_process_are_freed_and_due_at_once(path: Path) -> None:
    """Whoever opens the file is its only user, so no owner can be alive."""
    clock = ManualClock()
    now = clock.now_ms()
    later = now + 60_000
    async with SqliteStore(path, clock) as store:
        await store.create(transaction("held", next_cron_time=later), owner="dead", lease_s=600)
        await store.create(transaction("never", next_cron_time=None), owner="dead", lease_s=600)
        await store.create(transaction("free", next_cron_time=later))
        await store.create(transaction("ended", status=Status.SUCCEED), owner="dead")
        ended = await store.load("ended")
    clock.advance(1)
    async with SqliteStore(path, clock) as store:
        due = now + 1_000
        assert await store.load("held") == Held(transaction("held", next_cron_time=due), 1)
        assert await store.load("never") == Held(transaction("never", next_cron_time=due), 1)
        assert await store.load("free") == Held(transaction("free", next_cron_time=later), 1)
        assert await store.load("ended") == ended
        assert {held.tx.gid for held in await store.claim("a", 10)} == {"held", "never"}


def test_without_apsw_the_standard_library_serves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apsw is an extra."""
    preferred = connect(str(path))
    preferred.close()
    assert isinstance(preferred, apsw.Connection)
    monkeypatch.setitem(sys.modules, "apsw", None)
    fallback = connect(str(path))
    fallback.close()
    assert isinstance(fallback, sqlite3.Connection)


# the schema


async def test_a_newer_schema_is_refused_naming_both_versions(path: Path) -> None:
    """An old program must not write into what a new one made."""
    async with SqliteStore(path):
        pass
    raw(path, "PRAGMA user_version = 7")
    with pytest.raises(StoreCorrupt, match="has schema version 7, this program knows 2"):
        await SqliteStore(path).__aenter__()
    assert raw(path, "PRAGMA user_version") == [(7,)]


async def test_an_older_schema_is_brought_forward_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored under it stays."""
    async with SqliteStore(path) as store:
        await store.create(transaction("g"))
    more = ("CREATE TABLE more (k)", "INSERT INTO more VALUES ('once')")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, more))
    for _ in range(2):
        async with SqliteStore(path) as store:
            assert await store.load("g") == Held(transaction("g"), 1)
    assert raw(path, "SELECT * FROM more") == [("once",)]
    assert raw(path, "PRAGMA user_version") == [(3,)]


async def test_a_file_of_the_first_version_learns_key_values_and_lists(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had neither, and transactions that nobody could list."""
    newest = schema.MIGRATIONS
    monkeypatch.setattr(schema, "MIGRATIONS", newest[:1])
    async with SqliteStore(path) as store:
        await store.create(transaction("g", status=Status.FAILED))
    assert raw(path, "PRAGMA user_version") == [(1,)]
    monkeypatch.setattr(schema, "MIGRATIONS", newest)
    async with SqliteStore(path) as store:
        await store.create_kv("topics", "t", "v")
        [held] = await walked(store, 10, Filter(status=Status.FAILED))
        assert held == Held(transaction("g", status=Status.FAILED, branches=()), 1)


async def test_a_migration_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old program can still open the file."""
    async with SqliteStore(path):
        pass
    released = schema.MIGRATIONS
    broken = ("CREATE TABLE more (k)", "CREATE TABLE more (k)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*released, broken))
    with pytest.raises(StoreUnavailable, match="already exists"):
        await SqliteStore(path).__aenter__()
    assert raw(path, "SELECT name FROM sqlite_schema WHERE name = 'more'") == []
    monkeypatch.setattr(schema, "MIGRATIONS", released)
    async with SqliteStore(path):
        pass


async def test_the_tables_read_like_those_of_dtm(path: Path) -> None:
    """Names, words and the options text are what dtm's own tools look for."""
    async with SqliteStore(path) as store:
        options = Options(True, 1, 2, 3, {"b": "é", "a": "<"}, True, 4)
        await store.create(transaction("g", options=options, retry_count=5))
        await store.create(transaction("plain"))
        await store.create_kv("topics", "t", "[]")
    assert raw(path, "SELECT gid, trans_type, status, protocol FROM trans_global")[0] == (
        "g", "msg", "submitted", "grpc",
    )  # fmt: skip
    text = (
        '{"wait_result":true,"timeout_to_fail":1,"request_timeout":2,"retry_interval":3,'
        '"branch_headers":{"b":"é","a":"<"},"concurrent":true,"retry_limit":4,"retry_count":5}'
    )
    assert raw(path, "SELECT options FROM trans_global ORDER BY id") == [
        (text,),
        ('{"concurrent":false}',),
    ]
    branches = "SELECT branch_id, op, url, bin_data, status FROM trans_branch_op WHERE gid = 'g'"
    assert raw(path, branches)[1] == ("02", "action", "trans/TransIn", b"\x08\x1f", "prepared")
    assert raw(path, "SELECT id, cat, k, v, version FROM kv") == [(1, "topics", "t", "[]", 1)]


@pytest.mark.parametrize("driver", [connect_apsw, connect_stdlib])
async def test_every_statement_finds_its_rows_by_an_index(path: Path, driver: Callable) -> None:
    """A poll costs the same beside a million finished transactions."""
    async with SqliteStore(path):
        pass
    connection = driver(str(path))
    plans = {}
    for name, text in vars(statements).items():
        verb = text.split(maxsplit=1)[0] if isinstance(text, str) and text else ""
        if name.isupper() and verb in {"SELECT", "INSERT", "UPDATE", "DELETE"}:
            explained = connection.execute(f"EXPLAIN QUERY PLAN {text}", (None,) * text.count("?"))
            plans[name] = [str(row[-1]) for row in explained.fetchall()]
    connection.close()
    scans = {
        (name, step)
        for name, steps in plans.items()
        for step in steps
        if step.startswith("SCAN") and not step.startswith("SCAN json_each")  # a parameter's ids
    }
    # At the start, over the index of unfinished rows alone: the owner stands in it. Key-values are
    # few; pages are explained below.
    assert scans == {
        ("FREE", "SCAN trans_global USING INDEX trans_global_due"),
        ("SCAN", "SCAN trans_global"),
        ("SCAN_UNFINISHED", "SCAN trans_global USING INDEX trans_global_due"),
        ("COUNT_UNFINISHED", "SCAN trans_global USING INDEX trans_global_due"),
        ("COUNT_UNFINISHED", "SCAN (subquery-1)"),
        ("SELECT_KV", "SCAN kv"),
    }, plans
    for name, index in {
        "SELECT_DUE": "trans_global_due (due_at<?)",
        "SELECT_NEXT_DUE": "trans_global_due",
        "SELECT_ENDED": "trans_global_ended (ended_at<?)",
        "SELECT_GLOBAL": "(gid=?)",
        "UPDATE_GLOBAL": "(gid=?)",
        "RENEW": "(gid=?)",
        "SELECT_BRANCHES": "(gid=?)",
        "SELECT_STATUS": "(gid=?)",
        "SELECT_BRANCH": "(gid=? AND branch_id=? AND op=?)",
        "SELECT_TERMINAL": "(gid=?)",
        "SELECT_LATER": "trans_global_due (due_at>?)",
        "MAKE_DUE": "(gid=?)",
        "UPDATE_KV": "(cat=? AND k=?)",
        "DELETE_KV": "(cat=? AND k=?)",
        "SELECT_BRANCHES_OF": "(gid=?)",
        "DELETE_BRANCHES": "(gid=?)",
    }.items():
        assert any(index in step for step in plans[name]), (name, plans[name])
    for name in ("SELECT_DUE", "SELECT_LATER"):
        assert not any("TEMP B-TREE" in step for step in plans[name]), plans[name]


# groups


class Counting(apsw.Connection):
    """A connection that counts what it is asked to execute."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.executed: Counter[str] = Counter()

    def execute(self, statement: str, *args: object) -> apsw.Cursor:
        """Count and pass on."""
        self.executed[statement] += 1
        return super().execute(statement, *args)


@pytest.fixture
async def counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SqliteStore, Counter[str]]]:
    """An open store and what it has executed since."""
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_MS", 500)
    connections: list[Counting] = []

    def counting(name: str) -> Counting:
        connections.append(Counting(name))
        return connections[0]

    async with SqliteStore(path, connect=counting) as store:
        connections[0].executed.clear()
        yield store, connections[0].executed


async def test_what_arrives_together_shares_a_commit(
    counted: tuple[SqliteStore, Counter[str]],
) -> None:
    """The first may go alone; the others have gathered by then."""
    store, executed = counted
    await asyncio.gather(*(store.create(transaction(f"g{n}")) for n in range(400)))
    assert 1 <= executed["COMMIT"] <= 20


async def test_a_group_has_a_limit(
    counted: tuple[SqliteStore, Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for an endless commit."""
    monkeypatch.setattr(batching, "MAX_BATCH", 10)
    store, executed = counted
    await asyncio.gather(*(store.create(transaction(f"g{n}")) for n in range(100)))
    assert executed["COMMIT"] >= 10


async def test_a_refusal_undoes_nothing(counted: tuple[SqliteStore, Counter[str]]) -> None:
    """Clients repeat themselves; the group they meet in goes on."""
    store, executed = counted
    await store.create(transaction("g"))
    gids = [f"g{n}" if n % 2 else "g" for n in range(200)]
    outcomes = await asyncio.gather(
        *(store.create(transaction(gid)) for gid in gids), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [GidExists, int] * 100
    assert executed["ROLLBACK"] == 0


async def test_one_that_fails_half_way_is_found_by_halving(
    counted: tuple[SqliteStore, Counter[str]],
) -> None:
    """Its neighbours are stored, in far fewer commits than one for each."""
    store, executed = counted
    twin = Branch("01", Op.ACTION, "u")
    bad = transaction("bad", branches=(twin, twin))
    txs = [transaction(f"g{n}") for n in range(256)]
    txs.insert(77, bad)
    outcomes = await asyncio.gather(*(store.create(tx) for tx in txs), return_exceptions=True)
    assert [tx.gid for tx, outcome in zip(txs, outcomes, strict=True) if outcome != 1] == ["bad"]
    assert executed["BEGIN IMMEDIATE"] <= 2 * 9 + 3
    loaded = await asyncio.gather(*(store.load(tx.gid) for tx in txs))
    assert loaded == [None if tx is bad else Held(tx, 1) for tx in txs]


async def test_a_read_sees_the_writes_asked_for_before_it(path: Path) -> None:
    """Without waiting for their answers."""
    async with SqliteStore(path) as store:
        creating = asyncio.gather(*(store.create(transaction(f"g{n}")) for n in range(50)))
        loading = asyncio.gather(*(store.load(f"g{n}") for n in range(50)))
        assert await loading == [Held(transaction(f"g{n}"), 1) for n in range(50)]
        await creating


async def test_more_than_the_queue_holds_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once and by name; what was accepted is written, and there is room again after."""
    monkeypatch.setattr(batching, "MAX_WAITING", 10)
    async with SqliteStore(path) as store:
        outcomes = await asyncio.gather(
            *(store.create(transaction(f"g{n}")) for n in range(15)), return_exceptions=True
        )
        assert outcomes[:10] == [1] * 10
        assert [type(outcome) for outcome in outcomes[10:]] == [StoreUnavailable] * 5
        assert "10 requests wait" in outcomes[10].message
        assert await store.load("g10") is None
        assert await store.create(transaction("g10")) == 1


async def test_an_unexpected_error_reaches_its_caller_alone(path: Path) -> None:
    """A lone surrogate is no text that a database can keep."""
    async with SqliteStore(path) as store:
        outcomes = await asyncio.gather(
            store.create(transaction("g1")),
            store.create(transaction("\ud800")),
            store.create(transaction("g1")),
            store.create(transaction("g2")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [int, UnicodeEncodeError, GidExists, int]


async def test_a_database_held_by_another_program_is_unavailable(
    path: Path, counted: tuple[SqliteStore, Counter[str]]
) -> None:
    """A group waits once and not each of it alone; everything works when that one lets go."""
    store, executed = counted
    # Of the same library: POSIX locks do not tell two copies of SQLite in one process apart.
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    executed.clear()
    requests = [store.create(transaction(f"g{n}")) for n in range(50)]
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    other.execute("ROLLBACK")
    other.close()
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 50
    assert "another program holds a lock" in outcomes[0].message
    assert executed["BEGIN IMMEDIATE"] <= 2
    assert await store.load("g0") is None
    assert await store.create(transaction("g0")) == 1


# what cannot be read


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE trans_global SET trans_type = 'xyz' WHERE gid = 'bad'", "xyz"),
        ("UPDATE trans_global SET protocol = X'00' WHERE gid = 'bad'", "text should"),
        ("UPDATE trans_global SET create_time = 'now' WHERE gid = 'bad'", "'now'"),
        ("UPDATE trans_global SET options = '{' WHERE gid = 'bad'", "Expecting"),
        ("UPDATE trans_global SET options = '[]' WHERE gid = 'bad'", "not a JSON object"),
        ("UPDATE trans_global SET options = '{\"retry_limit\":\"3\"}' WHERE gid = 'bad'", "'3'"),
        ("UPDATE trans_global SET options = '{\"retry_count\":true}' WHERE gid = 'bad'", "True"),
        ("UPDATE trans_branch_op SET status = 'xyz' WHERE gid = 'bad'", "xyz"),
        ("UPDATE trans_branch_op SET create_time = 'now' WHERE gid = 'bad'", "'now'"),
        ("UPDATE trans_branch_op SET bin_data = 'text' WHERE gid = 'bad'", "blob should"),
    ],
)
async def test_a_row_that_no_coordinator_wrote_is_named(
    path: Path, damage: str, named: str
) -> None:
    """Loading it fails; claims go on with the others and meet it again when its lease is over."""
    clock = ManualClock()
    async with SqliteStore(path, clock) as store:
        for order, gid in enumerate(("good1", "bad", "good2")):
            await store.create(transaction(gid, next_cron_time=order))
    raw(path, damage)
    async with SqliteStore(path, clock) as store:
        with pytest.raises(StoreCorrupt, match=f"gid 'bad': .*{named}"):
            await store.load("bad")
        with capture_logs() as logs:
            claimed = await store.claim("a", 10, lease_s=10)
        assert [held.tx.gid for held in claimed] == ["good1", "good2"]
        assert [(entry["log_level"], entry["gid"]) for entry in logs] == [("error", "bad")]
        assert await store.next_due() == clock.now_ms() + 10_000
        assert (await stored(store, "good2")).owner == "a"


async def test_options_of_a_later_version_are_ignored(path: Path) -> None:
    """An old program can go on with what it knows."""
    async with SqliteStore(path) as store:
        await store.create(transaction("g", options=Options(retry_limit=3)))
    raw(path, """UPDATE trans_global SET options = '{"later":9,"retry_count":2,"retry_limit":3}'""")
    async with SqliteStore(path) as store:
        tx = (await stored(store, "g")).tx
        assert (tx.options, tx.retry_count) == (Options(retry_limit=3), 2)


async def test_a_row_that_cannot_be_read_hides_no_others(path: Path) -> None:
    """Pages and what is expired go on without it; it is logged, and never deleted unseen."""
    gids = ["good1", "bad", "good2"]
    async with SqliteStore(path) as store:
        for gid in gids:
            await store.create(transaction(gid, status=Status.SUCCEED))
    raw(path, "UPDATE trans_global SET protocol = 'xyz' WHERE gid = 'bad'")
    async with SqliteStore(path) as store:
        with capture_logs() as logs:
            listed = [held.tx.gid for held in await walked(store, 1)]
            shown = [tx.gid for tx in await store.expired(1, 10)]
        assert listed == ["good2", "good1"]
        assert sorted(shown) == ["good1", "good2"]
        assert [(entry["log_level"], entry["gid"]) for entry in logs] == [("error", "bad")] * 2


# pages


async def test_pages_are_full_newest_first_and_the_last_gives_no_position(path: Path) -> None:
    """A position is the smallest id of its page; what is deleted in between is no gap."""
    async with SqliteStore(path) as store:
        for n in range(1, 26):
            await store.create(transaction(f"g{n}"))
            await store.create_kv("topics", f"k{n}", "v")
        for scan in (
            lambda position: store.scan(position, 10, Filter()),
            lambda position: store.scan_kv("topics", position, 10),
        ):
            pages, position = [], ""
            while not pages or position:
                page, position = await scan(position)
                pages.append(([row.id for row in page], position))
            assert pages == [
                ([*range(25, 15, -1)], "16"),
                ([*range(15, 5, -1)], "6"),
                ([*range(5, 0, -1)], ""),
            ]


async def test_a_page_that_is_full_to_the_last_row_is_followed_by_an_empty_one(path: Path) -> None:
    """As with dtm: only a page that was not full is known to be the last."""
    async with SqliteStore(path) as store:
        for n in range(2):
            await store.create(transaction(f"g{n}"))
        page, position = await store.scan("", 2, Filter())
        assert (len(page), position) == (2, "1")
        assert await store.scan(position, 2, Filter()) == ([], "")


@pytest.mark.parametrize(
    ("which", "step"),
    [
        (Filter(), "SEARCH trans_global USING INTEGER PRIMARY KEY (rowid<?)"),
        (Filter(trans_type="tcc"), "SEARCH trans_global USING INTEGER PRIMARY KEY (rowid<?)"),
        (Filter(status="succeed"), "SEARCH trans_global USING INTEGER PRIMARY KEY (rowid<?)"),
        (Filter(status="failed"), "trans_global_failed (status=? AND rowid<?)"),
        (Filter(status="failed", trans_type="tcc"), "trans_global_failed (status=? AND rowid<?)"),
    ],
)
async def test_a_page_is_read_in_the_order_of_an_index(
    path: Path, which: Filter, step: str
) -> None:
    """Sorting a million rows for one page would hold up everybody's commits."""
    connections: list[Explaining] = []

    def explaining(name: str) -> Explaining:
        connections.append(Explaining(name))
        return connections[0]

    async with SqliteStore(path, connect=explaining) as store:
        await store.scan("9", 10, which)
    assert [len(plan) for plan in connections[0].plans] == [1]
    assert step in connections[0].plans[0][0]


async def test_unfinished_ones_are_sorted_while_they_are_few(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three stuck ones are not looked for among a million; of many, the newest soon turn up."""
    monkeypatch.setattr(operations, "FEW", 3)
    connections: list[Explaining] = []

    def explaining(name: str) -> Explaining:
        connections.append(Explaining(name))
        return connections[0]

    stuck = Filter(status="submitted")
    async with SqliteStore(path, connect=explaining) as store:
        for gid in ("g1", "g2"):
            await store.create(transaction(gid))
        few, _ = await store.scan("", 10, stuck)
        await store.create(transaction("g3"))
        many, _ = await store.scan("", 10, stuck)
    assert [held.tx.gid for held in few] == ["g2", "g1"]
    assert [held.tx.gid for held in many] == ["g3", "g2", "g1"]
    first, second = connections[0].plans
    assert first == [
        "SCAN trans_global USING INDEX trans_global_due",
        "USE TEMP B-TREE FOR ORDER BY",
    ]
    assert second == ["SCAN trans_global"]


class Explaining(apsw.Connection):
    """A connection that keeps the plan of each page it is asked for."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.plans: list[list[str]] = []

    def execute(self, statement: str, *args: object) -> apsw.Cursor:
        """Explain pages, and pass on."""
        if "ORDER BY id DESC" in statement:
            explained = super().execute(f"EXPLAIN QUERY PLAN {statement}", *args).fetchall()
            self.plans.append([str(row[-1]) for row in explained])
        return super().execute(statement, *args)
