"""What the MySQL store says to its database: literals, statements and rows.

Values are put into the texts as literals, because only so one round trip carries a whole batch:
strings pass through the driver's escaping, which the session's ``sql_mode`` makes right, and bytes
are written in hexadecimal.
"""
# ruff: noqa: S608 - see above: every value passes through `literal`

from collections.abc import Iterable, Iterator, Sequence

from asyncmy.converters import escape_string

from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import Change, Filter
from kit.dtm.store.rows import BRANCH_COLUMNS, GLOBAL_COLUMNS, Value, branch_row, global_row

UNFINISHED = "status IN ('prepared', 'submitted', 'aborting')"
FINISHED = "status IN ('succeed', 'failed')"

DATABASE_NOW = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000"
"""The database's clock in milliseconds; without a zone, so summer time does not bend it."""

BEGIN = "START TRANSACTION"
SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
COMMIT = "COMMIT"

STATEMENT_CHARS = 1 << 20
"""Statements of many rows are cut near this length: whatever the server's limits, it fits."""

WALKED = 20_000
"""Rows that a filtered page looks at: bounds its time where few rows match."""

_NULLABLE = {
    "options": "''",
    "custom_data": "''",
    "result": "''",
    "rollback_reason": "''",
    "next_cron_interval": "0",
    "bin_data": "''",
}
"""Columns that dtm's schema lets be NULL, and what that means."""


def _ours(column: str) -> str:
    """The column that holds what dtm's has, to the millisecond for instants."""
    return f"{column.removesuffix('_time')}_ms" if column.endswith("_time") else column


def _read(column: str) -> str:
    ours = _ours(column)
    return f"COALESCE({ours}, {_NULLABLE[ours]})" if ours in _NULLABLE else ours


def literal(value: Value) -> str:
    r"""``value`` as it stands in a text.

    >>> print(literal("it's"), literal(b"it"), literal(None), literal(7))
    'it\'s' X'6974' NULL 7
    """
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"'{escape_string(value)}'"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    return str(value)


def literals(values: Iterable[Value]) -> str:
    """``values`` in parentheses."""
    return f"({', '.join(map(literal, values))})"


def _wall(instant: Value) -> str:
    """An instant as dtm writes it: seconds of the server's wall clock."""
    assert instant is None or isinstance(instant, int)
    return "NULL" if instant is None else f"FROM_UNIXTIME({instant // 1000})"


# --- rows ---

_GLOBAL_TIMES = [n for n, name in enumerate(GLOBAL_COLUMNS) if name.endswith("_time")]
_WRITTEN = (
    *map(_ours, GLOBAL_COLUMNS),
    *(GLOBAL_COLUMNS[n] for n in _GLOBAL_TIMES),
    "owner", "lease_until", "fence",
)  # fmt: skip
_INSERT_GLOBALS = f"INSERT INTO trans_global ({', '.join(_WRITTEN)}) VALUES "
_CHANGED = ", ".join(f"{column} = VALUES({column})" for column in _WRITTEN if column != "gid")

_BRANCH_WRITTEN = (
    "gid", *map(_ours, BRANCH_COLUMNS), "finish_time",
    "create_ms", "update_ms", "create_time", "update_time",
)  # fmt: skip
_INSERT_BRANCHES = f"INSERT INTO trans_branch_op ({', '.join(_BRANCH_WRITTEN)}) VALUES "
_BRANCH_CHANGED = ", ".join(
    f"{column} = VALUES({column})"
    for column in (
        "url", "bin_data", "status", "finish_ms", "finish_time", "update_ms", "update_time",
    )
)  # fmt: skip
_STAMPS = "@now, @now, FROM_UNIXTIME(@now DIV 1000), FROM_UNIXTIME(@now DIV 1000)"


def global_values(tx: Transaction, owner: str, lease_until: str, fence: int) -> str:
    """A row for :func:`insert_globals` and :func:`replace_globals`.

    Args:
        tx: the transaction.
        owner: whose lease it is.
        lease_until: an expression.
        fence: of the row.
    """
    row = global_row(tx)
    values = [literal(value) for value in row]
    values += [_wall(row[n]) for n in _GLOBAL_TIMES]
    values += (literal(owner), lease_until, str(fence))
    return f"({', '.join(values)})"


def branch_values(gid: str, branch: Branch) -> str:
    """A row for :func:`upsert_branches`."""
    row = branch_row(branch)
    values = ", ".join([literal(value) for value in row])
    return f"({literal(gid)}, {values}, {_wall(row[-1])}, {_STAMPS})"


def insert_globals(rows: Iterable[str]) -> Iterator[str]:
    """Statements that insert new transactions."""
    return _of_rows(_INSERT_GLOBALS, rows, "")


def replace_globals(rows: Iterable[str]) -> Iterator[str]:
    """Statements that overwrite stored transactions, which somebody has locked, by their gids."""
    return _of_rows(_INSERT_GLOBALS, rows, f" ON DUPLICATE KEY UPDATE {_CHANGED}")


def upsert_branches(rows: Iterable[str]) -> Iterator[str]:
    """Statements that insert branches, or overwrite those with the same key."""
    return _of_rows(_INSERT_BRANCHES, rows, f" ON DUPLICATE KEY UPDATE {_BRANCH_CHANGED}")


def _of_rows(head: str, rows: Iterable[str], tail: str) -> Iterator[str]:
    held: list[str] = []
    length = 0
    for row in rows:
        if held and length + len(row) > STATEMENT_CHARS:
            yield f"{head}{', '.join(held)}{tail}"
            held, length = [], 0
        held.append(row)
        length += len(row)
    if held:
        yield f"{head}{', '.join(held)}{tail}"


def packets(statements: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """``statements`` for one round trip each, near the length of the longest."""
    held: list[str] = []
    length = 0
    for statement in statements:
        if held and length + len(statement) > STATEMENT_CHARS:
            yield tuple(held)
            held, length = [], 0
        held.append(statement)
        length += len(statement)
    if held:
        yield tuple(held)


# --- transactions ---

_GLOBALS = ", ".join(map(_read, GLOBAL_COLUMNS))
_BRANCHES = ", ".join(map(_read, (*BRANCH_COLUMNS, "create_time", "update_time")))
_HELD = f"id, fence, owner, lease_until, {_GLOBALS}"
"""What :func:`kit.dtm.store.mysql.store.held` reads."""

# Named, because of a table that was empty a moment ago the planner reads, and locks, every row.
_BY_GID = "trans_global FORCE INDEX (gid)"
_BRANCHES_BY_GID = "trans_branch_op FORCE INDEX (gid_uniq)"
_BY_DUE = "trans_global FORCE INDEX (due_at)"


def set_now(now: int | None) -> str:
    """Fix the instant of what follows; the database's clock without one."""
    return f"SET @now = {DATABASE_NOW if now is None else now}"


def lock_globals(gids: Iterable[str]) -> str:
    """Who may change those of ``gids`` that nobody is changing; nobody does until the commit."""
    return (
        f"SELECT gid, status, fence, owner, lease_until FROM {_BY_GID} "
        f"WHERE gid IN {literals(gids)} ORDER BY gid FOR UPDATE SKIP LOCKED"
    )


def lock_or_fail(changes: Sequence[Change]) -> str:
    """Lock the rows that are as their changes need them, or fail at once if that is not all.

    Nothing behind this is run then. The failure is a subquery of two rows, which is looked at only
    when the number is wrong.
    """
    alike: dict[str, list[str]] = {}  # nearly always all of them
    for change in changes:
        alike.setdefault(_writable(change), []).append(change.tx.gid)
    conditions = " OR ".join(
        f"(gid IN {literals(gids)} AND {condition})" for condition, gids in alike.items()
    )
    return (
        f"SELECT IF(COUNT(*) = {len(changes)}, 1, (SELECT 1 UNION SELECT 2)) FROM {_BY_GID} "
        f"WHERE ({conditions}) AND {UNFINISHED} FOR UPDATE SKIP LOCKED"
    )


def _writable(change: Change) -> str:
    """Of the row, by the rules of leases and fences."""
    owned = f"owner = {literal(change.owner)}"
    if change.take:
        owned = "TRUE" if change.force else f"({owned} OR lease_until <= @now)"
    return f"fence = {change.fence} AND {owned}"


def existing(gids: Iterable[str]) -> str:
    """Those of ``gids`` that are stored, locked or not."""
    return f"SELECT gid FROM {_BY_GID} WHERE gid IN {literals(gids)}"


def branch_keys(gids: Iterable[str]) -> str:
    """Which branches these transactions have."""
    return f"SELECT gid, branch_id, op FROM {_BRANCHES_BY_GID} WHERE gid IN {literals(gids)}"


def select_globals(gids: Iterable[str]) -> str:
    """These transactions without their branches."""
    return f"SELECT {_HELD} FROM {_BY_GID} WHERE gid IN {literals(gids)}"


def select_branches(gids: Iterable[str]) -> str:
    """Their branches, in any order, the id first."""
    return f"SELECT id, gid, {_BRANCHES} FROM {_BRANCHES_BY_GID} WHERE gid IN {literals(gids)}"


def lock_due(limit: int) -> str:
    """What can be claimed now and nobody is changing."""
    return (
        f"SELECT {_HELD} FROM {_BY_DUE} WHERE due_at <= @now "
        f"ORDER BY due_at, id LIMIT {limit} FOR UPDATE SKIP LOCKED"
    )


def take(ids: Iterable[int], owner: str, lease_until: int) -> str:
    """Give these leases to ``owner``."""
    return (
        f"UPDATE trans_global SET owner = {literal(owner)}, lease_until = {lease_until}, "
        f"fence = fence + 1 WHERE id IN {literals(ids)}"
    )


def lock_held(owner: str, gids: Iterable[str]) -> str:
    """Those of ``gids`` that ``owner`` holds, and their fences."""
    return (
        f"SELECT gid, id, fence FROM {_BY_GID} WHERE gid IN {literals(gids)} "
        f"AND owner = {literal(owner)} AND {UNFINISHED} ORDER BY gid FOR UPDATE"
    )


def extend(ids: Iterable[int], lease_ms: int) -> str:
    """Make these leases last from now."""
    return f"UPDATE trans_global SET lease_until = @now + {lease_ms} WHERE id IN {literals(ids)}"


NEXT_DUE = f"SELECT due_at FROM {_BY_DUE} WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1"


def select_ended(before: int, limit: int) -> str:
    """The gids of what ended before an instant, the oldest first."""
    return (
        "SELECT gid FROM trans_global FORCE INDEX (ended_at) "
        f"WHERE ended_at < {before} ORDER BY ended_at LIMIT {limit}"
    )


def lock_finished(gids: Iterable[str]) -> str:
    """Those of ``gids`` that are terminal."""
    return (
        f"SELECT gid FROM {_BY_GID} WHERE gid IN {literals(gids)} AND {FINISHED} "
        "ORDER BY gid FOR UPDATE"
    )


def delete(gids: Sequence[str]) -> tuple[str, ...]:
    """Delete these transactions with their branches."""
    named = literals(gids)
    return (
        f"DELETE FROM trans_branch_op WHERE gid IN {named}",
        f"DELETE FROM trans_global WHERE gid IN {named}",
    )


def make_due(gid: str) -> tuple[str, str]:
    """Make a transaction due, then look whether it is there at all."""
    named = literal(gid)
    return (
        f"UPDATE trans_global SET {_DUE} WHERE gid = {named} AND {UNFINISHED}",
        f"SELECT COUNT(*) FROM trans_global WHERE gid = {named}",
    )


_DUE = "next_cron_ms = @now, next_cron_time = FROM_UNIXTIME(@now DIV 1000)"


def lock_later(later_than: int, limit: int) -> str:
    """Unfinished ones whose time is after an instant; no lease ends before the time it delays."""
    return (
        f"SELECT id FROM {_BY_DUE} WHERE due_at > {later_than} "
        f"AND next_cron_ms > {later_than} ORDER BY due_at LIMIT {limit} FOR UPDATE"
    )


def make_all_due(ids: Iterable[int]) -> str:
    """Make these transactions due."""
    return f"UPDATE trans_global SET {_DUE} WHERE id IN {literals(ids)}"


def page(older_than: int | None, limit: int, which: Filter) -> tuple[str, str]:
    """A page, newest first, and where a filtered one stops walking at the latest."""
    older = "" if older_than is None else f"id < {older_than}"
    conditions = [older] if older else []
    filters = [
        *([f"status = {literal(which.status)}"] if which.status else []),
        *([f"trans_type = {literal(which.trans_type)}"] if which.trans_type else []),
        *([f"create_ms >= {which.created_from}"] if which.created_from is not None else []),
        *([f"create_ms <= {which.created_until}"] if which.created_until is not None else []),
    ]
    last = (
        f"SELECT id FROM trans_global {'WHERE ' + older if older else ''} "
        f"ORDER BY id DESC LIMIT 1 OFFSET {WALKED}"
    )
    if filters:
        conditions.append(f"id >= COALESCE(({last}), 0)")
    where = " AND ".join([*conditions, *filters])
    rows = (
        f"SELECT {_HELD} FROM trans_global {'WHERE ' + where if where else ''} "
        f"ORDER BY id DESC LIMIT {limit}"
    )
    return rows, last if filters else "SELECT id FROM trans_global WHERE FALSE"


# --- key-values ---

_KV = "id, cat, k, COALESCE(v, ''), version, create_ms, update_ms"


def select_kv(cat: str, key: str) -> str:
    """Entries by category and key, where they are given."""
    named = [f"{column} = {literal(text)}" for column, text in (("cat", cat), ("k", key)) if text]
    where = f"WHERE {' AND '.join(named)}" if named else ""
    return f"SELECT {_KV} FROM kv {where} ORDER BY k, cat"


def page_kv(cat: str, older_than: int | None, limit: int) -> str:
    """A page of a category, newest first."""
    older = "" if older_than is None else f"AND id < {older_than}"
    return f"SELECT {_KV} FROM kv WHERE cat = {literal(cat)} {older} ORDER BY id DESC LIMIT {limit}"


def insert_kv(cat: str, key: str, value: str) -> str:
    """A new entry."""
    return (
        "INSERT INTO kv (cat, k, v, version, create_ms, update_ms, create_time, update_time) "
        f"VALUES ({literal(cat)}, {literal(key)}, {literal(value)}, 1, {_STAMPS})"
    )


def update_kv(cat: str, key: str, version: int, value: str) -> str:
    """The entry in the version that was read, with another value."""
    return (
        f"UPDATE kv SET v = {literal(value)}, version = version + 1, update_ms = @now, "
        "update_time = FROM_UNIXTIME(@now DIV 1000) "
        f"WHERE cat = {literal(cat)} AND k = {literal(key)} AND version = {version}"
    )


def delete_kv(cat: str, key: str) -> str:
    """Delete an entry."""
    return f"DELETE FROM kv WHERE cat = {literal(cat)} AND k = {literal(key)}"


CLEAR = ("DELETE FROM trans_branch_op", "DELETE FROM trans_global", "DELETE FROM kv")
