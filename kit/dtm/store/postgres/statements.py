"""What the PostgreSQL store says to its database. Every row is found by an index.

Instants come as milliseconds; dtm's timestamp columns are filled from them. ``$1`` of a statement
that needs the time is what the clock says, or null for the clock of the database.
"""
# ruff: noqa: S608 - only names that this package defines are put into statements; values are bound

from collections.abc import Iterable

from kit.dtm.store.postgres.schema import DUE_AT, ENDED_AT, FINISHED, UNFINISHED, WAITS
from kit.dtm.store.postgres.schema import milliseconds as _milliseconds
from kit.dtm.store.rows import BRANCH_COLUMNS, GLOBAL_COLUMNS

_LAST_INSTANT = 253_402_300_799_000
"""9999-12-31: where dtm's columns stop; ours go on."""

_INSTANTS = ("create_time", "update_time", "finish_time", "rollback_time", "next_cron_time")
_NUMBERS = (*_INSTANTS, "next_cron_interval")

_NOW = "coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
_CLOCK = f"clock AS MATERIALIZED (SELECT {_NOW} AS ms)"
_MS = "(SELECT ms FROM clock)"


def _only_if(condition: str) -> str:
    """``condition`` on rows that another one finds: no index is looked at for it.

    The planner believes that few rows are unfinished, or of one owner; where it errs, each write
    would read all of them.
    """
    return f"({condition}) IS TRUE"


def _timestamp(ms: str) -> str:
    # Not least(): that of null and a number is the number.
    return (
        f"to_timestamp(CASE WHEN {ms} > {_LAST_INSTANT} THEN {_LAST_INSTANT} ELSE {ms} END / 1e3)"
    )


def _ours(column: str) -> str:
    """Our column for one that :mod:`kit.dtm.store.rows` names."""
    return column.removesuffix("_time") + "_ms" if column in _INSTANTS else column


def _global_values(table: str) -> dict[str, str]:
    """What is written for rows of ``table``, which has :data:`GLOBAL_COLUMNS`: by column."""
    values = {_ours(column): f"{table}.{column}" for column in GLOBAL_COLUMNS}
    values |= {column: _timestamp(f"{table}.{column}") for column in _INSTANTS}
    return values


def _types(columns: Iterable[str]) -> list[str]:
    kinds = {"bin_data": "bytea", "take": "bool", "release": "bool", "force": "bool"}
    kinds |= dict.fromkeys((*_NUMBERS, "lease_ms", "fence"), "bigint")
    return [kinds.get(column, "text") for column in columns]


CREATE_COLUMNS = (*GLOBAL_COLUMNS, "owner", "lease_ms")
CHANGE_COLUMNS = (*GLOBAL_COLUMNS, "fence", "owner", "take", "release", "force", "lease_ms")
ROW_COLUMNS = ("gid", *BRANCH_COLUMNS)
WRITE_COLUMNS = (CREATE_COLUMNS, CHANGE_COLUMNS, ROW_COLUMNS, ROW_COLUMNS, ("gid",))
"""Arrays that :data:`WRITE` takes behind the time: new transactions, changed ones, branches of
both, branches that are appended, and to what."""


def _unnest(name: str, number: int) -> str:
    """The arrays of that part of :data:`WRITE_COLUMNS` as a table."""
    first = 2 + sum(map(len, WRITE_COLUMNS[:number]))
    columns = WRITE_COLUMNS[number]
    arrays = ", ".join(f"${first + n}::{kind}[]" for n, kind in enumerate(_types(columns)))
    return f"unnest({arrays}) WITH ORDINALITY AS {name} ({', '.join(columns)}, nr)"


def _insert_branches(number: int, parents: str) -> str:
    values = {column: f"b.{column}" for column in ROW_COLUMNS if column != "finish_time"}
    values |= {"finish_ms": "b.finish_time", "finish_time": _timestamp("b.finish_time")}
    values |= {"create_ms": _MS, "create_time": _timestamp(_MS)}
    values |= {"update_ms": _MS, "update_time": _timestamp(_MS)}
    # A join would compare each branch with each parent, since hash joins are switched off; what
    # cannot become a join is looked up in a hash table.
    return f"""
        INSERT INTO trans_branch_op ({", ".join(values)})
        SELECT {", ".join(values.values())} FROM {_unnest("b", number)}
        WHERE (b.gid IN (SELECT gid FROM {parents})) IS TRUE
        ORDER BY b.nr
    """


_REPLACED = (
    "url", "bin_data", "status", "finish_ms", "finish_time", "update_ms", "update_time",
)  # fmt: skip
_CREATED = _global_values("c") | {
    "owner": "c.owner",
    "lease_until": f"CASE WHEN c.owner = '' THEN 0 ELSE {_MS} + c.lease_ms END",
    "fence": "1",
}
_CHANGED = {column: value for column, value in _global_values("c").items() if column != "gid"} | {
    "owner": "CASE WHEN c.release THEN '' ELSE c.owner END",
    "lease_until": f"CASE WHEN c.release THEN 0 ELSE {_MS} + c.lease_ms END",
    "fence": "g.fence + c.take::int",
}

WRITE = f"""
    WITH {_CLOCK},
    created AS (
        INSERT INTO trans_global ({", ".join(_CREATED)})
        SELECT {", ".join(_CREATED.values())} FROM {_unnest("c", 0)} ORDER BY c.nr
        ON CONFLICT (gid) DO NOTHING
        RETURNING gid
    ),
    changed AS (
        UPDATE trans_global g SET {", ".join(f"{name} = {_CHANGED[name]}" for name in _CHANGED)}
        FROM {_unnest("c", 1)}
        WHERE g.gid = c.gid AND g.fence = c.fence AND {_only_if(f"g.{UNFINISHED}")}
        AND (g.owner = c.owner OR (c.take AND (c.force OR g.lease_until <= {_MS})))
        RETURNING g.gid
    ),
    written AS (SELECT gid FROM created UNION ALL SELECT gid FROM changed),
    branches AS (
        {_insert_branches(2, "written")}
        ON CONFLICT (gid, branch_id, op) DO UPDATE SET
            {", ".join(f"{column} = excluded.{column}" for column in _REPLACED)}
    ),
    prepared AS (
        SELECT g.gid FROM {_unnest("a", 4)} JOIN trans_global g ON g.gid = a.gid
        WHERE {_only_if("g.status = 'prepared'")} FOR NO KEY UPDATE OF g
    ),
    appended AS ({_insert_branches(3, "prepared")})
    SELECT gid FROM written UNION ALL SELECT gid FROM prepared
"""
"""Everything a group asks for, each gid once; gives the gids of those that were not refused.

One statement is one transaction and one journey. Its parts see the same moment and never the same
row, because no gid is there twice.
"""

_HEAD = ", ".join(
    f"coalesce(g.{_ours(column)}, {0 if column in _NUMBERS else repr('')})"
    if column in ("options", "custom_data", "result", "rollback_reason", "next_cron_interval")
    else f"g.{_ours(column)}"
    for column in GLOBAL_COLUMNS
)
_HELD = f"{_HEAD}, g.fence, g.owner, g.lease_until, g.id"
"""Columns that dtm lets be null are read as what its own reader makes of them."""

_BRANCH = ", ".join((
    "b.branch_id", "b.op", "b.url", "coalesce(b.bin_data, '')", "b.status",
    *(f"coalesce(b.{name}_ms, {_milliseconds(f'b.{name}_time')}{zero})"
      for name, zero in (("finish", ""), ("create", ", 0"), ("update", ", 0"))),
))  # fmt: skip
_BRANCHES = f"""
    (SELECT array_agg(ROW({_BRANCH}) ORDER BY b.id) FROM trans_branch_op b WHERE b.gid = g.gid)
"""

LOAD = f"SELECT {_HELD}, {_BRANCHES} FROM trans_global g WHERE g.gid = $1"

TAKE = f"""
    WITH {_CLOCK},
    due AS (
        SELECT id, {DUE_AT} AS due_at FROM trans_global
        WHERE {WAITS} AND {DUE_AT} <= {_MS} ORDER BY {DUE_AT} LIMIT $2
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    taken AS (
        UPDATE trans_global g
        SET owner = $3, lease_until = {_MS} + $4, fence = g.fence + 1
        FROM due WHERE g.id = due.id
        RETURNING {_HELD}, due.due_at
    )
    SELECT * FROM taken ORDER BY due_at
"""
BRANCHES_OF = f"""
    SELECT b.gid, {_BRANCH} FROM trans_branch_op b WHERE b.gid = ANY($1::text[]) ORDER BY b.id
"""
"""A statement of its own: what waited for a lock in the claim would see branches of before the
wait. One look for all costs half of what one for each transaction does.
"""

RENEW = f"""
    WITH {_CLOCK}
    UPDATE trans_global g SET lease_until = {_MS} + $3
    FROM unnest($4::text[], $5::bigint[]) AS t (gid, fence)
    WHERE g.gid = t.gid AND g.fence = t.fence AND {_only_if(f"g.owner = $2 AND g.{UNFINISHED}")}
    RETURNING g.gid
"""
NEXT_DUE = f"SELECT {DUE_AT} FROM trans_global WHERE {WAITS} ORDER BY {DUE_AT} LIMIT 1"

_ENDED = f"{FINISHED} AND {ENDED_AT} < $1 ORDER BY {ENDED_AT} LIMIT $2"
_WITH_BRANCHES = """
    branches AS (DELETE FROM trans_branch_op b USING gone WHERE b.gid = gone.gid)
    SELECT count(*) FROM gone
"""
PURGE = f"""
    WITH ended AS (SELECT id FROM trans_global WHERE {_ENDED} FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM trans_global g USING ended WHERE g.id = ended.id RETURNING g.gid),
    {_WITH_BRANCHES}
"""
EXPIRED = f"SELECT {_HELD}, {_BRANCHES} FROM trans_global g WHERE {_ENDED}"
DELETE = f"""
    WITH gone AS (
        DELETE FROM trans_global g USING unnest($1::text[]) AS t (gid)
        WHERE g.gid = t.gid AND {_only_if(f"g.{FINISHED}")} RETURNING g.gid
    ),
    {_WITH_BRANCHES}
"""

SCAN = f"""
    SELECT {_HELD} FROM trans_global g
    WHERE g.id < $1 AND g.id >= $2 AND ($3 = '' OR g.status = $3)
    AND ($4 = '' OR g.trans_type = $4)
    AND ($5::bigint IS NULL OR g.create_ms >= $5) AND ($6::bigint IS NULL OR g.create_ms <= $6)
    ORDER BY g.id DESC LIMIT $7
"""
SCAN_REACHES = "SELECT id FROM trans_global WHERE id < $1 ORDER BY id DESC OFFSET $2 LIMIT 1"

_MAKE_DUE = f"next_cron_ms = {_MS}, next_cron_time = {_timestamp(_MS)}"
RESET_ONE = f"""
    WITH {_CLOCK},
    reset AS (UPDATE trans_global SET {_MAKE_DUE} WHERE gid = $2 AND {_only_if(UNFINISHED)})
    SELECT 1 FROM trans_global WHERE gid = $2
"""
RESET = f"""
    WITH {_CLOCK},
    later AS (
        SELECT id FROM trans_global
        WHERE {WAITS} AND {DUE_AT} > $2 AND next_cron_ms > $2 LIMIT $3 + 1
        FOR NO KEY UPDATE SKIP LOCKED
    ),
    reset AS (
        UPDATE trans_global g SET {_MAKE_DUE}
        FROM (SELECT id FROM later LIMIT $3) AS due WHERE g.id = due.id
    )
    SELECT count(*) FROM later
"""

_KV = f"""
    cat, k, coalesce(v, ''), coalesce(version, 1),
    coalesce(create_ms, {_milliseconds("create_time")}, 0),
    coalesce(update_ms, {_milliseconds("update_time")}, 0), id
"""
FIND_KV = f"""
    SELECT {_KV} FROM kv WHERE ($1 = '' OR cat = $1) AND ($2 = '' OR k = $2)
    ORDER BY k COLLATE "C", cat COLLATE "C"
"""
SCAN_KV = f"SELECT {_KV} FROM kv WHERE cat = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
CREATE_KV = f"""
    WITH {_CLOCK}
    INSERT INTO kv (cat, k, v, version, create_ms, create_time, update_ms, update_time)
    SELECT $2, $3, $4, 1, {_MS}, {_timestamp(_MS)}, {_MS}, {_timestamp(_MS)}
    ON CONFLICT (cat, k) DO NOTHING RETURNING 1
"""
UPDATE_KV = f"""
    WITH {_CLOCK}
    UPDATE kv
    SET v = $5, version = $4 + 1, update_ms = {_MS}, update_time = {_timestamp(_MS)}
    WHERE cat = $2 AND k = $3 AND coalesce(version, 1) = $4
    RETURNING 1
"""
DELETE_KV = "DELETE FROM kv WHERE cat = $1 AND k = $2 RETURNING 1"
CLEAR = "TRUNCATE trans_global, trans_branch_op, kv"
NOW = f"SELECT {_NOW}"
