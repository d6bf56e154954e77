"""What the SQLite store says to its database. Every row is found by an index."""
# ruff: noqa: S608 - only names that this package defines are put into statements; values are bound

from kit.dtm.store.rows import BRANCH_COLUMNS, GLOBAL_COLUMNS
from kit.dtm.store.schema import FINISHED, UNFINISHED


def _marks(number: int) -> str:
    return ", ".join("?" * number)


_GLOBALS = ", ".join(GLOBAL_COLUMNS)
_BRANCHES = ", ".join(BRANCH_COLUMNS)
_IDS = "(SELECT value FROM json_each(?))"

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
SELECT_GLOBAL = f"SELECT {_GLOBALS}, fence, owner, lease_until FROM trans_global WHERE gid = ?"
SELECT_BRANCHES = f"SELECT {_BRANCHES} FROM trans_branch_op WHERE gid = ? ORDER BY id"
SELECT_DUE = f"""
    SELECT {_GLOBALS}, fence, id FROM trans_global
    WHERE {UNFINISHED} AND due_at <= ? ORDER BY due_at LIMIT ?
"""
TAKE = f"""
    UPDATE trans_global SET owner = ?, lease_until = ?, fence = fence + 1 WHERE id IN {_IDS}
"""
SELECT_BRANCHES_OF = f"""
    SELECT gid, {_BRANCHES} FROM trans_branch_op
    WHERE gid IN (SELECT gid FROM trans_global WHERE id IN {_IDS}) ORDER BY id
"""
RENEW = f"""
    UPDATE trans_global SET lease_until = ?
    WHERE gid = ? AND owner = ? AND fence = ? AND {UNFINISHED}
"""
SELECT_NEXT_DUE = f"""
    SELECT due_at FROM trans_global
    WHERE {UNFINISHED} AND due_at IS NOT NULL ORDER BY due_at LIMIT 1
"""
SELECT_ENDED = f"""
    SELECT id FROM trans_global WHERE {FINISHED} AND ended_at < ? ORDER BY ended_at LIMIT ?
"""
DELETE_BRANCHES = f"""
    DELETE FROM trans_branch_op WHERE gid IN (SELECT gid FROM trans_global WHERE id IN {_IDS})
"""
DELETE_GLOBALS = f"DELETE FROM trans_global WHERE id IN {_IDS}"
FREE = f"""
    UPDATE trans_global SET owner = '', lease_until = 0, next_cron_time = ?
    WHERE id IN (SELECT id FROM trans_global WHERE {UNFINISHED} AND owner <> '')
"""
