"""What the SQLite store says to its database. Every row is found by an index."""
# ruff: noqa: S608 - only names that this package defines are put into statements; values are bound

from kit.dtm.store.rows import BRANCH_COLUMNS, GLOBAL_COLUMNS, STAMPED_BRANCH_COLUMNS
from kit.dtm.store.schema import FINISHED, UNFINISHED


def _marks(number: int) -> str:
    return ", ".join("?" * number)


_GLOBALS = ", ".join(GLOBAL_COLUMNS)
_BRANCHES = ", ".join(BRANCH_COLUMNS)
_STAMPED_BRANCHES = ", ".join(STAMPED_BRANCH_COLUMNS)
_LISTED = "(SELECT value FROM json_each(?))"

# Named, because the planner counts the few values of status as well, and would read every row of
# the unfinished ones.
_BY_DUE = "trans_global INDEXED BY trans_global_due"

GID = GLOBAL_COLUMNS.index("gid")
"""Where a row has it."""

INSERT_GLOBAL = f"""
    INSERT INTO trans_global ({_GLOBALS}, owner, lease_until, fence)
    VALUES ({_marks(len(GLOBAL_COLUMNS) + 2)}, 1) ON CONFLICT (gid) DO NOTHING
"""
INSERT_BRANCH = f"""
    INSERT INTO trans_branch_op (gid, {_BRANCHES}, create_time, update_time)
    VALUES ({_marks(len(BRANCH_COLUMNS) + 3)})
"""
UPSERT_BRANCH = f"""
    {INSERT_BRANCH} ON CONFLICT (gid, branch_id, op) DO UPDATE SET
        url = excluded.url, bin_data = excluded.bin_data, status = excluded.status,
        finish_time = excluded.finish_time, update_time = excluded.update_time
"""
UPDATE_GLOBAL = f"""
    UPDATE trans_global
    SET {", ".join(f"{column} = ?" for column in GLOBAL_COLUMNS[:-1])},
        owner = ?, lease_until = ?, fence = fence + ?
    WHERE gid = ? AND fence = ? AND {UNFINISHED} AND (owner = ? OR lease_until <= ?)
"""
_HELD = f"{_GLOBALS}, fence, owner, lease_until, id"

SCAN = f"SELECT {_HELD} FROM trans_global WHERE TRUE"
SCAN_FAILED = f"""
    SELECT {_HELD} FROM trans_global INDEXED BY trans_global_failed WHERE status = 'failed'
"""
SCAN_UNFINISHED = f"SELECT {_HELD} FROM {_BY_DUE} WHERE {UNFINISHED}"
"""Of pages; more conditions and the order follow."""

COUNT_UNFINISHED = f"SELECT count(*) FROM (SELECT 1 FROM {_BY_DUE} WHERE {UNFINISHED} LIMIT ?)"
SELECT_GLOBAL = f"SELECT {_HELD} FROM trans_global WHERE gid = ?"
SELECT_GLOBALS = f"SELECT {_GLOBALS} FROM trans_global WHERE id IN {_LISTED}"
SELECT_STATUS = "SELECT status FROM trans_global WHERE gid = ?"
SELECT_BRANCH = "SELECT 1 FROM trans_branch_op WHERE gid = ? AND branch_id = ? AND op = ?"
SELECT_BRANCHES = f"SELECT {_STAMPED_BRANCHES} FROM trans_branch_op WHERE gid = ? ORDER BY id"
SELECT_DUE = f"""
    SELECT {_GLOBALS}, fence, id FROM {_BY_DUE}
    WHERE {UNFINISHED} AND due_at <= ? ORDER BY due_at LIMIT ?
"""
TAKE = f"""
    UPDATE trans_global SET owner = ?, lease_until = ?, fence = fence + 1 WHERE id IN {_LISTED}
"""
SELECT_BRANCHES_OF = f"""
    SELECT gid, {_STAMPED_BRANCHES} FROM trans_branch_op
    WHERE gid IN (SELECT gid FROM trans_global WHERE id IN {_LISTED}) ORDER BY id
"""
RENEW = f"""
    UPDATE trans_global SET lease_until = ?
    WHERE gid = ? AND owner = ? AND fence = ? AND {UNFINISHED}
"""
SELECT_NEXT_DUE = f"""
    SELECT due_at FROM {_BY_DUE}
    WHERE {UNFINISHED} AND due_at IS NOT NULL ORDER BY due_at LIMIT 1
"""
SELECT_ENDED = f"""
    SELECT id FROM trans_global INDEXED BY trans_global_ended
    WHERE {FINISHED} AND ended_at < ? ORDER BY ended_at LIMIT ?
"""
SELECT_TERMINAL = f"SELECT id FROM trans_global WHERE gid IN {_LISTED} AND +{FINISHED}"
DELETE_BRANCHES = f"""
    DELETE FROM trans_branch_op WHERE gid IN (SELECT gid FROM trans_global WHERE id IN {_LISTED})
"""
DELETE_GLOBALS = f"DELETE FROM trans_global WHERE id IN {_LISTED}"
MAKE_DUE = f"UPDATE trans_global SET next_cron_time = ? WHERE gid = ? AND {UNFINISHED}"
# due_at is never before next_cron_time, so its index leads to all that are later.
SELECT_LATER = f"""
    SELECT id FROM {_BY_DUE}
    WHERE {UNFINISHED} AND due_at > ? AND next_cron_time > ? ORDER BY due_at LIMIT ?
"""
MAKE_MANY_DUE = f"UPDATE trans_global SET next_cron_time = ? WHERE id IN {_LISTED}"
FREE = f"""
    UPDATE trans_global SET owner = '', lease_until = 0, next_cron_time = ?
    WHERE id IN (SELECT id FROM {_BY_DUE} WHERE {UNFINISHED} AND owner <> '')
"""

SELECT_KV = "SELECT cat, k, v, version, create_time, update_time, id FROM kv WHERE TRUE"
"""More conditions and the order follow."""

INSERT_KV = """
    INSERT INTO kv (cat, k, v, version, create_time, update_time) VALUES (?, ?, ?, 1, ?, ?)
    ON CONFLICT (cat, k) DO NOTHING
"""
UPDATE_KV = """
    UPDATE kv SET v = ?, version = version + 1, update_time = ?
    WHERE cat = ? AND k = ? AND version = ?
"""
DELETE_KV = "DELETE FROM kv WHERE cat = ? AND k = ?"

CLEAR = ("DELETE FROM trans_branch_op", "DELETE FROM trans_global", "DELETE FROM kv")
