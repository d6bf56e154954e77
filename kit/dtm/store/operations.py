"""What the SQLite store does with its connection, in the thread of :mod:`kit.dtm.store.batch`.

Each operation is a few statements inside the transaction of its group. It refuses before it writes:
a :class:`kit.errors.Error` leaves nothing to undo.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from kit.clock import Clock
from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import (
    BranchExists,
    Change,
    Filter,
    GidExists,
    Held,
    KeyValue,
    KvChanged,
    LostLease,
    StoreCorrupt,
    statements,
)
from kit.dtm.store.connection import Connection
from kit.dtm.store.rows import Row, Value, branch_row, global_row, transaction
from kit.dtm.store.rules import refuse_misuse, refuse_twins
from kit.dtm.wire import Status

NEVER, ALWAYS = -1, (1 << 63) - 1
"""Ends of leases that count as over: no foreign one, and each."""

FEW = 2_000
"""Rows that are sorted for a page; they take about 5 ms."""

log = structlog.get_logger(__name__)


def create(db: Connection, clock: Clock, tx: Transaction, owner: str, lease_s: float) -> int:
    """See :meth:`kit.dtm.store.Store.create`."""
    now = clock.now_ms()
    lease_until = _after(now, lease_s) if owner else 0
    db.execute(statements.INSERT_GLOBAL, (*global_row(tx), owner, lease_until))
    if not db.changes():
        raise GidExists(tx.gid)
    refuse_twins(tx.gid, tx.branches)
    db.executemany(statements.INSERT_BRANCH, _branch_rows(tx.gid, tx.branches, now))
    return 1


def load(db: Connection, gid: str) -> Held | None:
    """See :meth:`kit.dtm.store.Store.load`."""
    found = db.execute(statements.SELECT_GLOBAL, (gid,)).fetchall()
    if not found:
        return None
    [(*columns, fence, owner, lease_until, id_)] = found
    branches = db.execute(statements.SELECT_BRANCHES, (gid,)).fetchall()
    return Held(transaction(columns, branches), fence, owner, lease_until, id_)


def save(db: Connection, clock: Clock, change: Change) -> int:
    """See :meth:`kit.dtm.store.Store.save`."""
    refuse_misuse(change)
    now = clock.now_ms()
    tx, owner = change.tx, change.owner
    lease = ("", 0) if change.release else (owner, _after(now, change.lease_s))
    over = ALWAYS if change.force else now if change.take else NEVER
    *columns, _ = global_row(tx)
    db.execute(
        statements.UPDATE_GLOBAL,
        (*columns, *lease, int(change.take), tx.gid, change.fence, owner, over),
    )
    if not db.changes():
        raise LostLease(tx.gid)
    if change.branches:
        db.executemany(statements.UPSERT_BRANCH, _branch_rows(tx.gid, change.branches, now))
    return change.fence + change.take


def append(db: Connection, clock: Clock, gid: str, branches: Sequence[Branch]) -> None:
    """See :meth:`kit.dtm.store.Store.append`."""
    found = db.execute(statements.SELECT_STATUS, (gid,)).fetchall()
    if found != [(Status.PREPARED,)]:
        raise LostLease(gid)
    keys = {branch.key for branch in branches}
    there = any(db.execute(statements.SELECT_BRANCH, (gid, *key)).fetchall() for key in keys)
    if there or len(keys) < len(branches):
        raise BranchExists(gid)
    db.executemany(statements.INSERT_BRANCH, _branch_rows(gid, branches, clock.now_ms()))


def claim(db: Connection, clock: Clock, owner: str, limit: int, lease_s: float) -> list[Held]:
    """See :meth:`kit.dtm.store.Store.claim`."""
    assert owner, "a claim names its owner"
    assert limit >= 0, "a negative limit would mean all"
    now = clock.now_ms()
    lease_until = _after(now, lease_s)
    due = db.execute(statements.SELECT_DUE, (now, limit)).fetchall()
    if not due:
        return []
    ids = json.dumps([row[-1] for row in due])
    db.execute(statements.TAKE, (owner, lease_until, ids))
    branches = _branches(db, ids)
    return [
        Held(tx, fence + 1, owner, lease_until, id_)
        for *columns, fence, id_ in due
        if (tx := _readable(columns, branches[columns[statements.GID]])) is not None
    ]


def renew(
    db: Connection, clock: Clock, owner: str, held: Iterable[tuple[str, int]], lease_s: float
) -> set[str]:
    """See :meth:`kit.dtm.store.Store.renew`."""
    lease_until = _after(clock.now_ms(), lease_s)
    lost = set()
    for gid, fence in held:  # a few µs each
        db.execute(statements.RENEW, (lease_until, gid, owner, fence))
        if not db.changes():
            lost.add(gid)
    return lost


def next_due(db: Connection) -> int | None:
    """See :meth:`kit.dtm.store.Store.next_due`."""
    found = db.execute(statements.SELECT_NEXT_DUE).fetchall()
    return int(found[0][0]) if found else None


def purge(db: Connection, finished_before: int, limit: int) -> int:
    """See :meth:`kit.dtm.store.Store.purge`."""
    assert limit >= 0, "a negative limit would mean all"
    ended = db.execute(statements.SELECT_ENDED, (finished_before, limit)).fetchall()
    return _delete(db, ended)


def expired(db: Connection, finished_before: int, limit: int) -> list[Transaction]:
    """See :meth:`kit.dtm.store.Store.expired`."""
    assert limit >= 0, "a negative limit would mean all"
    ended = db.execute(statements.SELECT_ENDED, (finished_before, limit)).fetchall()
    ids = json.dumps([row[0] for row in ended])
    branches = _branches(db, ids)
    rows = db.execute(statements.SELECT_GLOBALS, (ids,)).fetchall()
    txs = (_readable(row, branches[row[statements.GID]]) for row in rows)
    return [tx for tx in txs if tx is not None]


def delete(db: Connection, gids: Sequence[str]) -> int:
    """See :meth:`kit.dtm.store.Store.delete`."""
    gids_text = json.dumps(gids, ensure_ascii=False)
    return _delete(db, db.execute(statements.SELECT_TERMINAL, (gids_text,)).fetchall())


def scan(db: Connection, left_off: int | None, limit: int, which: Filter) -> tuple[list[Held], str]:
    """See :meth:`kit.dtm.store.Store.scan`."""
    conditions = {
        "id < ?": left_off,
        "status = ?": which.status or None,
        "trans_type = ?": which.trans_type or None,
        "create_time >= ?": which.created_from,
        "create_time <= ?": which.created_until,
    }
    rows, following = _page(db, _scanned(db, which.status), conditions, limit)
    page = [
        Held(tx, fence, owner, lease_until, id_)
        for *columns, fence, owner, lease_until, id_ in rows
        if (tx := _readable(columns, ())) is not None
    ]
    return page, following


def reset_next_cron_time(db: Connection, clock: Clock, gid: str) -> bool:
    """See :meth:`kit.dtm.store.Store.reset_next_cron_time`."""
    db.execute(statements.MAKE_DUE, (clock.now_ms(), gid))
    return bool(db.changes() or db.execute(statements.SELECT_STATUS, (gid,)).fetchall())


def reset_cron_time(db: Connection, clock: Clock, later_than: int, limit: int) -> tuple[int, bool]:
    """See :meth:`kit.dtm.store.Store.reset_cron_time`."""
    assert limit >= 1, "a limit of nothing never ends"
    later = db.execute(statements.SELECT_LATER, (later_than, later_than, limit + 1)).fetchall()
    ids = [row[0] for row in later[:limit]]
    db.execute(statements.MAKE_MANY_DUE, (clock.now_ms(), json.dumps(ids)))
    return len(ids), len(later) > limit


def find_kv(db: Connection, cat: str, key: str) -> list[KeyValue]:
    """See :meth:`kit.dtm.store.Store.find_kv`."""
    more, values = _and({"cat = ?": cat or None, "k = ?": key or None})
    found = db.execute(f"{statements.SELECT_KV} {more} ORDER BY k, cat", values).fetchall()
    return [KeyValue(*row) for row in found]


def scan_kv(
    db: Connection, cat: str, left_off: int | None, limit: int
) -> tuple[list[KeyValue], str]:
    """See :meth:`kit.dtm.store.Store.scan_kv`."""
    conditions = {"cat = ?": cat, "id < ?": left_off}
    rows, following = _page(db, statements.SELECT_KV, conditions, limit)
    return [KeyValue(*row) for row in rows], following


def create_kv(db: Connection, clock: Clock, cat: str, key: str, value: str) -> None:
    """See :meth:`kit.dtm.store.Store.create_kv`."""
    now = clock.now_ms()
    db.execute(statements.INSERT_KV, (cat, key, value, now, now))
    if not db.changes():
        raise KvChanged(cat, key)


def update_kv(db: Connection, clock: Clock, read: KeyValue, value: str) -> None:
    """See :meth:`kit.dtm.store.Store.update_kv`."""
    db.execute(statements.UPDATE_KV, (value, clock.now_ms(), read.cat, read.key, read.version))
    if not db.changes():
        raise KvChanged(read.cat, read.key)


def delete_kv(db: Connection, cat: str, key: str) -> bool:
    """See :meth:`kit.dtm.store.Store.delete_kv`."""
    db.execute(statements.DELETE_KV, (cat, key))
    return bool(db.changes())


def clear(db: Connection) -> None:
    """See :meth:`kit.dtm.store.Store.clear`."""
    for statement in statements.CLEAR:
        db.execute(statement)


def _branch_rows(gid: str, branches: Iterable[Branch], now: int) -> list[Row]:
    return [(gid, *branch_row(branch), now, now) for branch in branches]


def _branches(db: Connection, ids: str) -> Mapping[Value, list[Sequence[Value]]]:
    """The branch rows of transactions by gid; ``ids`` is a JSON array."""
    branches: defaultdict[Value, list[Sequence[Value]]] = defaultdict(list)
    for gid, *branch in db.execute(statements.SELECT_BRANCHES_OF, (ids,)).fetchall():
        branches[gid].append(branch)
    return branches


def _delete(db: Connection, rows: Sequence[Sequence[Value]]) -> int:
    ids = json.dumps([row[0] for row in rows])
    db.execute(statements.DELETE_BRANCHES, (ids,))
    db.execute(statements.DELETE_GLOBALS, (ids,))
    return len(rows)


def _scanned(db: Connection, status: str) -> str:
    """What finds the newest transactions with ``status`` soonest.

    The few that are unfinished are sorted; among many, going back from the newest row soon finds
    enough, as it does for the status and the type of most. The worst case is a rare type or a short
    span of time: 70 ms for a million rows.
    """
    if status == Status.FAILED:
        return statements.SCAN_FAILED
    if status and status != Status.SUCCEED:
        [(unfinished,)] = db.execute(statements.COUNT_UNFINISHED, (FEW,)).fetchall()
        if unfinished < FEW:
            return statements.SCAN_UNFINISHED
    return statements.SCAN


def _and(conditions: dict[str, str | int | None]) -> tuple[str, list[Value]]:
    """Those conditions that have a value, to follow others; and the values."""
    given = {text: value for text, value in conditions.items() if value is not None}
    return "".join(f" AND {text}" for text in given), list(given.values())


def _page(
    db: Connection, select: str, conditions: dict[str, str | int | None], limit: int
) -> tuple[list[tuple[Any, ...]], str]:
    """Up to ``limit`` rows, newest first, the id being the last column; and the next position."""
    assert limit >= 1, "a page of nothing never ends"
    more, values = _and(conditions)
    rows = db.execute(f"{select} {more} ORDER BY id DESC LIMIT ?", (*values, limit)).fetchall()
    return rows, str(rows[-1][-1]) if len(rows) == limit else ""


def _readable(row: Sequence[Value], branches: Sequence[Sequence[Value]]) -> Transaction | None:
    """The transaction; ``None`` where it cannot be read, so that its neighbours can."""
    try:
        return transaction(row, branches)
    except StoreCorrupt as exc:
        log.error(  # noqa: TRY400 - where it was read tells nothing
            "a stored transaction cannot be read",
            gid=row[statements.GID],
            error=str(exc.message),
        )
        return None


def _after(now_ms: int, seconds: float) -> int:
    return now_ms + round(seconds * 1000)
