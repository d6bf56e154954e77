"""The coordinator's tables in PostgreSQL, and how a database comes to have them.

Tables, columns, constraints and indexes are dtm's (dtm-labs/dtm sqls/dtmsvr.storage.postgres.sql),
so a database of dtm is opened as it is and its unfinished transactions go on. Added are

``lease_until``, ``fence``
    Who may change a transaction: :mod:`kit.dtm.store`. Rows that dtm wrote have fence 0 until
    :func:`adopt` has taken them over.
``create_ms``, ``update_ms``, ``finish_ms``, ``rollback_ms``, ``next_cron_ms``
    Instants in milliseconds. dtm's own columns have whole seconds; they are filled as well, so that
    queries written for dtm read right.
``trans_global_due``
    From when an unfinished transaction can be claimed: its time has come and no lease runs.
``trans_global_ended``
    From when a finished transaction grows old.

Columns that cut what a client may send are widened to ``text``, which rewrites no row.
"""

# ruff: noqa: S608 - only names that this package defines are put into statements; values are bound

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.dtm.store import StoreCorrupt

if TYPE_CHECKING:
    from kit.dtm.store.postgres.session import Connection

UNFINISHED = "status IN ('prepared', 'submitted', 'aborting')"
FINISHED = "status IN ('succeed', 'failed')"
"""Spelled in queries as in the indexes: a partial index serves who asks for its condition."""

DUE_AT = "greatest(next_cron_ms, lease_until)"
WAITS = f"{UNFINISHED} AND next_cron_ms IS NOT NULL"
ENDED_AT = "coalesce(finish_ms, rollback_ms, update_ms)"

ADOPTED_AT_ONCE = 5_000
"""Rows of dtm that one statement takes over."""

_ALIEN = ("42703", "42P01", "42P16", "42809", "42804", "42830", "42P07")
"""What the migration meets in tables that are not dtm's: columns or tables that are not there."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE SEQUENCE IF NOT EXISTS trans_global_seq",
        """
        CREATE TABLE IF NOT EXISTS trans_global (
            id bigint NOT NULL DEFAULT nextval('trans_global_seq') PRIMARY KEY,
            gid varchar(128) NOT NULL,
            trans_type varchar(45) NOT NULL,
            status varchar(45) NOT NULL,
            query_prepared text NOT NULL,
            protocol varchar(45) NOT NULL,
            create_time timestamp(0) with time zone,
            update_time timestamp(0) with time zone,
            finish_time timestamp(0) with time zone,
            rollback_time timestamp(0) with time zone,
            options text DEFAULT '',
            custom_data text DEFAULT '',
            next_cron_interval bigint,
            next_cron_time timestamp(0) with time zone,
            owner text NOT NULL DEFAULT '',
            ext_data text,
            result text DEFAULT '',
            rollback_reason text DEFAULT '',
            CONSTRAINT gid UNIQUE (gid)
        )
        """,
        "CREATE INDEX IF NOT EXISTS owner ON trans_global (owner)",
        """
        CREATE INDEX IF NOT EXISTS status_next_cron_time ON trans_global (status, next_cron_time)
        """,
        "CREATE SEQUENCE IF NOT EXISTS trans_branch_op_seq",
        """
        CREATE TABLE IF NOT EXISTS trans_branch_op (
            id bigint NOT NULL DEFAULT nextval('trans_branch_op_seq') PRIMARY KEY,
            gid varchar(128) NOT NULL,
            url text NOT NULL,
            data text,
            bin_data bytea,
            branch_id varchar(128) NOT NULL,
            op text NOT NULL,
            status varchar(45) NOT NULL,
            finish_time timestamp(0) with time zone,
            rollback_time timestamp(0) with time zone,
            create_time timestamp(0) with time zone,
            update_time timestamp(0) with time zone,
            CONSTRAINT gid_branch_uniq UNIQUE (gid, branch_id, op)
        )
        """,
        "CREATE SEQUENCE IF NOT EXISTS kv_seq",
        """
        CREATE TABLE IF NOT EXISTS kv (
            id bigint NOT NULL DEFAULT nextval('kv_seq') PRIMARY KEY,
            cat varchar(45) NOT NULL,
            k text NOT NULL,
            v text,
            version bigint DEFAULT 1,
            create_time timestamp(0) with time zone,
            update_time timestamp(0) with time zone,
            CONSTRAINT uniq_k UNIQUE (cat, k)
        )
        """,
        # From here on for tables that dtm made; what was made above has most of it.
        """
        ALTER TABLE trans_global
            ADD COLUMN IF NOT EXISTS ext_data text,
            ADD COLUMN IF NOT EXISTS result text DEFAULT '',
            ADD COLUMN IF NOT EXISTS rollback_reason text DEFAULT '',
            ALTER COLUMN query_prepared TYPE text,
            ALTER COLUMN options TYPE text,
            ALTER COLUMN custom_data TYPE text,
            ALTER COLUMN result TYPE text,
            ALTER COLUMN rollback_reason TYPE text,
            ALTER COLUMN owner TYPE text,
            ALTER COLUMN next_cron_interval TYPE bigint,
            ADD COLUMN lease_until bigint NOT NULL DEFAULT 0,
            ADD COLUMN fence bigint NOT NULL DEFAULT 0,
            ADD COLUMN create_ms bigint NOT NULL DEFAULT 0,
            ADD COLUMN update_ms bigint NOT NULL DEFAULT 0,
            ADD COLUMN finish_ms bigint,
            ADD COLUMN rollback_ms bigint,
            ADD COLUMN next_cron_ms bigint
        """,
        """
        ALTER TABLE trans_branch_op
            ALTER COLUMN url TYPE text,
            ALTER COLUMN op TYPE text,
            ADD COLUMN create_ms bigint,
            ADD COLUMN update_ms bigint,
            ADD COLUMN finish_ms bigint
        """,
        """
        ALTER TABLE kv
            ALTER COLUMN k TYPE text,
            ADD COLUMN create_ms bigint,
            ADD COLUMN update_ms bigint
        """,
        f"CREATE INDEX trans_global_due ON trans_global (({DUE_AT})) WHERE {WAITS}",
        f"CREATE INDEX trans_global_ended ON trans_global (({ENDED_AT})) WHERE {FINISHED}",
        "CREATE INDEX trans_global_alien ON trans_global (id) WHERE fence = 0",
    ),
)
"""Statements that lead from each version to the next; never changed once released, only added to.
"""

_ADOPT = f"""
    UPDATE trans_global SET
        fence = 1, owner = '', lease_until = 0,
        create_ms = coalesce({{create}}, 0),
        update_ms = coalesce({{update}}, {{create}}, 0),
        finish_ms = {{finish}},
        rollback_ms = {{rollback}},
        next_cron_ms = CASE WHEN {UNFINISHED} THEN coalesce({{next_cron}}, 0) END
    WHERE id IN (
        SELECT id FROM trans_global WHERE fence = 0 ORDER BY id LIMIT {ADOPTED_AT_ONCE}
        FOR UPDATE SKIP LOCKED
    )
"""


def milliseconds(column: str) -> str:
    """SQL for a timestamp of dtm's in milliseconds."""
    return f"(extract(epoch FROM {column}) * 1000)::bigint"


ADOPT = _ADOPT.format(
    **{name: milliseconds(f"{name}_time") for name in
       ("create", "update", "finish", "rollback", "next_cron")}
)  # fmt: skip


async def migrate(connection: Connection, where: str, schema: str) -> None:
    """Bring the tables to the newest version, and take over what dtm wrote.

    Coordinators that start together come one after the other.

    Args:
        connection: whose search path is ``schema``; its statements have no time limit.
        where: the database, for messages.
        schema: made when it is not there.

    Raises:
        StoreCorrupt: the tables were written by a newer program, or by another one.
        asyncpg.PostgresError: the database refuses, for instance for want of a privilege.
    """
    if await _version(connection, where) < len(MIGRATIONS):
        async with connection.transaction():
            # Waits for others that migrate, in this database; gone with the transaction.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('kit.dtm.store'))")
            if await connection.fetchval("SELECT current_schema()") is None:
                await connection.execute(f"CREATE SCHEMA {quoted(schema)}")
            version = await _version(connection, where)
            try:
                for statement in (text for step in MIGRATIONS[version:] for text in step):
                    await connection.execute(statement)
            except Exception as exc:
                if getattr(exc, "sqlstate", None) in _ALIEN:
                    raise StoreCorrupt(
                        f"{where} has tables that are not dtm's: {exc}; name another schema"
                    ) from exc
                raise
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS kit_schema_version (version int NOT NULL)"
            )
            await connection.execute("DELETE FROM kit_schema_version")
            await connection.execute("INSERT INTO kit_schema_version VALUES ($1)", len(MIGRATIONS))
    while await connection.execute(ADOPT) != "UPDATE 0":
        pass


def quoted(identifier: str) -> str:
    """``identifier`` as a name in SQL, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


async def _version(connection: Connection, where: str) -> int:
    if await connection.fetchval("SELECT to_regclass('kit_schema_version')") is None:
        return 0
    version = int(await connection.fetchval("SELECT max(version) FROM kit_schema_version") or 0)
    if version > len(MIGRATIONS):
        raise StoreCorrupt(
            f"{where} has schema version {version}, this program knows {len(MIGRATIONS)}; "
            f"start the version that wrote it, or name another schema"
        )
    return version
