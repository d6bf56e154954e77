"""The SQLite schema of the coordinator, and how a file comes to have it.

Tables and columns are dtm's (dtm-labs/dtm sqls/dtmsvr.storage.postgres.sql) without the ones nobody
writes, plus

``lease_until``, ``fence``
    Who may change a transaction: :mod:`kit.dtm.store`.
``due_at``
    From when an unfinished transaction can be claimed: its time has come and no lease runs. Indexed
    for unfinished rows only, so a poll costs the same beside a million finished ones.
``ended_at``
    From when a finished transaction grows old.
"""

from kit.dtm.store import StoreCorrupt
from kit.dtm.store.connection import Connection

UNFINISHED = "status IN ('prepared', 'submitted', 'aborting')"
FINISHED = "status IN ('succeed', 'failed')"
"""Spelled in queries exactly as in the indexes: SQLite uses a partial index only when it finds its
condition again.
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE trans_global (
            id INTEGER PRIMARY KEY,
            gid TEXT NOT NULL UNIQUE,
            trans_type TEXT NOT NULL,
            status TEXT NOT NULL,
            query_prepared TEXT NOT NULL,
            protocol TEXT NOT NULL,
            create_time INTEGER NOT NULL,
            update_time INTEGER NOT NULL,
            finish_time INTEGER,
            rollback_time INTEGER,
            options TEXT NOT NULL,
            custom_data TEXT NOT NULL,
            next_cron_interval INTEGER NOT NULL,
            next_cron_time INTEGER,
            result TEXT NOT NULL,
            rollback_reason TEXT NOT NULL,
            owner TEXT NOT NULL,
            lease_until INTEGER NOT NULL,
            fence INTEGER NOT NULL,
            due_at INTEGER AS (max(next_cron_time, lease_until)),
            ended_at INTEGER AS (coalesce(finish_time, rollback_time, update_time))
        )
        """,
        # The owner is there so that the start finds held rows without reading the others: 29 ms
        # instead of 1,060 ms for 500,000 unfinished ones.
        f"CREATE INDEX trans_global_due ON trans_global (due_at, owner) WHERE {UNFINISHED}",
        f"CREATE INDEX trans_global_ended ON trans_global (ended_at) WHERE {FINISHED}",
        """
        CREATE TABLE trans_branch_op (
            id INTEGER PRIMARY KEY,
            gid TEXT NOT NULL,
            branch_id TEXT NOT NULL,
            op TEXT NOT NULL,
            url TEXT NOT NULL,
            bin_data BLOB NOT NULL,
            status TEXT NOT NULL,
            finish_time INTEGER,
            create_time INTEGER NOT NULL,
            update_time INTEGER NOT NULL,
            UNIQUE (gid, branch_id, op)
        )
        """,
    ),
    (
        """
        CREATE TABLE kv (
            id INTEGER PRIMARY KEY,
            cat TEXT NOT NULL,
            k TEXT NOT NULL,
            v TEXT NOT NULL,
            version INTEGER NOT NULL,
            create_time INTEGER NOT NULL,
            update_time INTEGER NOT NULL,
            UNIQUE (cat, k)
        )
        """,
        # A page of the ten failed ones among a million rows: 0.03 ms instead of 70 ms, while
        # everybody's commits wait. What succeeds never meets this index. One over every status or
        # type was measured at 3 to 6 percent of all writes: too much for a page now and then.
        "CREATE INDEX trans_global_failed ON trans_global (status) WHERE status = 'failed'",
    ),
)
"""Statements that lead from each version to the next; never changed once released, only added to.
"""


def migrate(connection: Connection, path: str) -> None:
    """Bring the schema to the newest version, each step in a transaction of its own.

    Raises:
        StoreCorrupt: the file was written by a newer program, or by another one.
    """
    version = _number(connection, "PRAGMA user_version")
    newest = len(MIGRATIONS)
    if version > newest:
        raise StoreCorrupt(
            f"{path} has schema version {version}, this program knows {newest}; "
            f"start the version that wrote it, or name another file"
        )
    if version == 0 and _number(connection, "SELECT count(*) FROM sqlite_schema"):
        raise StoreCorrupt(f"{path} belongs to another program; name another file")
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in (*statements, f"PRAGMA user_version = {number}"):
                connection.execute(statement)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _number(connection: Connection, query: str) -> int:
    [(number,)] = connection.execute(query).fetchall()
    assert isinstance(number, int)
    return number
