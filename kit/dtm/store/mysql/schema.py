"""The MySQL schema of the coordinator, and how a database comes to have it.

Tables and columns are dtm's (dtm-labs/dtm sqls/dtmsvr.storage.mysql.sql), so that its database
opens as it is and what dtm left unfinished goes on. Added are

``create_ms``, ``update_ms``, ``finish_ms``, ``rollback_ms``, ``next_cron_ms``
    Instants in milliseconds UTC. dtm's own columns, seconds on the wall clock of the server's zone,
    stay filled beside them for the eyes of people and for tools made for dtm.
``lease_until``, ``fence``
    Who may change a transaction: :mod:`kit.dtm.store`.
``due_at``
    From when an unfinished transaction can be claimed: its time has come and no lease runs.
``ended_at``
    From when a finished transaction grows old.

Texts become as long as a coordinator takes them, and are compared code point by code point: for
dtm's collation ``A`` was ``a``, and a blank at the end did not count.
"""
# ruff: noqa: S608 - names that this file defines, and what `literal` made safe

from kit.dtm.store import StoreCorrupt, StoreUnavailable
from kit.dtm.store.mysql.link import (
    NO_SUCH_TABLE,
    UNKNOWN_DATABASE,
    DuplicateError,
    Link,
    Result,
    ServerError,
)
from kit.dtm.store.mysql.texts import FINISHED, UNFINISHED, literal

VERSION = 1
"""Of the schema that this program reads and writes."""

COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
"""Exact comparison as MariaDB 10.2 and MySQL 8.0.17 call it."""

OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0, 17)}
"""The first versions with ``SKIP LOCKED`` and an exact collation."""

MIGRATED_WITHIN = 3_600.0
"""Seconds for bringing a large database of dtm to this schema, or for waiting until it is done."""

LARGEST_WRITE = 4 << 20
"""Bytes of a payload that a coordinator takes; in a statement it needs twice as many."""

_VERSIONS = "coordinator_schema"

_DTM_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS trans_global (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        gid VARCHAR(128) NOT NULL,
        trans_type VARCHAR(45) NOT NULL,
        status VARCHAR(12) NOT NULL,
        query_prepared VARCHAR(1024) NOT NULL,
        protocol VARCHAR(45) NOT NULL,
        create_time DATETIME NULL,
        update_time DATETIME NULL,
        finish_time DATETIME NULL,
        rollback_time DATETIME NULL,
        options VARCHAR(1024) DEFAULT '',
        custom_data VARCHAR(1024) DEFAULT '',
        next_cron_interval INT NULL,
        next_cron_time DATETIME NULL,
        owner VARCHAR(128) NOT NULL DEFAULT '',
        ext_data TEXT,
        result VARCHAR(1024) DEFAULT '',
        rollback_reason VARCHAR(1024) DEFAULT '',
        UNIQUE KEY gid (gid)
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
    """,
    """
    CREATE TABLE IF NOT EXISTS trans_branch_op (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        gid VARCHAR(128) NOT NULL,
        url VARCHAR(1024) NOT NULL,
        data TEXT,
        bin_data BLOB,
        branch_id VARCHAR(128) NOT NULL,
        op VARCHAR(45) NOT NULL,
        status VARCHAR(45) NOT NULL,
        finish_time DATETIME NULL,
        rollback_time DATETIME NULL,
        create_time DATETIME NULL,
        update_time DATETIME NULL,
        UNIQUE KEY gid_uniq (gid, branch_id, op)
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
    """,
    """
    CREATE TABLE IF NOT EXISTS kv (
        id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        cat VARCHAR(45) NOT NULL,
        k VARCHAR(128) NOT NULL,
        v TEXT,
        version BIGINT DEFAULT 1,
        create_time DATETIME NULL,
        update_time DATETIME NULL,
        UNIQUE KEY uniq_k (cat, k)
    ) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
    """,
)
"""What dtm's script makes, without the indexes that only its own polls use."""

_ADDED = {
    "trans_global": f"""
        MODIFY query_prepared MEDIUMTEXT NOT NULL,
        MODIFY options MEDIUMTEXT,
        MODIFY custom_data MEDIUMTEXT,
        MODIFY result MEDIUMTEXT,
        MODIFY rollback_reason MEDIUMTEXT,
        MODIFY next_cron_interval BIGINT NULL,
        ADD create_ms BIGINT NOT NULL DEFAULT 0,
        ADD update_ms BIGINT NOT NULL DEFAULT 0,
        ADD finish_ms BIGINT NULL,
        ADD rollback_ms BIGINT NULL,
        ADD next_cron_ms BIGINT NULL,
        ADD lease_until BIGINT NOT NULL DEFAULT 0,
        ADD fence BIGINT NOT NULL DEFAULT 1,
        ADD due_at BIGINT
            AS (IF({UNFINISHED}, GREATEST(next_cron_ms, lease_until), NULL)) STORED,
        ADD ended_at BIGINT
            AS (IF({FINISHED}, COALESCE(finish_ms, rollback_ms, update_ms), NULL)) STORED,
        ADD INDEX due_at (due_at),
        ADD INDEX ended_at (ended_at)
    """,
    "trans_branch_op": """
        MODIFY url MEDIUMTEXT NOT NULL,
        MODIFY bin_data LONGBLOB,
        ADD finish_ms BIGINT NULL,
        ADD create_ms BIGINT NOT NULL DEFAULT 0,
        ADD update_ms BIGINT NOT NULL DEFAULT 0
    """,
    "kv": """
        MODIFY v MEDIUMTEXT,
        ADD create_ms BIGINT NOT NULL DEFAULT 0,
        ADD update_ms BIGINT NOT NULL DEFAULT 0
    """,
}

_INDEXES = {
    ("trans_global", "gid"): "UNIQUE INDEX gid (gid)",
    ("trans_global", "due_at"): "INDEX due_at (due_at)",
    ("trans_global", "ended_at"): "INDEX ended_at (ended_at)",
    ("trans_branch_op", "gid_uniq"): "UNIQUE INDEX gid_uniq (gid, branch_id, op)",
}
"""What statements name; in a database that somebody has made by hand it may be called otherwise."""

_FILLED = {
    "trans_global": ("create", "update", "finish", "rollback", "next_cron"),
    "trans_branch_op": ("create", "update", "finish"),
    "kv": ("create", "update"),
}
"""Instants of each table, filled from dtm's columns; the session's zone is the server's, in which
dtm writes them."""

_WEAK = (
    ("innodb_flush_log_at_trx_commit", ("1",),
     "a power loss takes the last second of writes along; set innodb_flush_log_at_trx_commit = 1"),
    ("innodb_doublewrite", ("ON", "1", "DETECT_AND_RECOVER"),
     "a power loss may leave torn pages that cannot be repaired; set innodb_doublewrite = ON"),
)  # fmt: skip


async def prepare(link: Link) -> tuple[str, ...]:
    """Bring the database to :data:`VERSION` and give the store's weaknesses.

    Raises:
        StoreUnavailable: the database cannot be used; the message says why.
        StoreCorrupt: the schema is newer.
    """
    try:
        version = await link.transact(lambda: _version(link))
    except ServerError as exc:
        if exc.number != UNKNOWN_DATABASE:
            raise
        await _create_database(link)
        version = 0
    wanting = version < VERSION
    if version == VERSION:
        wanting = bool(await link.transact(lambda: _unindexed(link)))
    if wanting:
        version = await link.transact(lambda: _migrate(link), within=MIGRATED_WITHIN)
    if version > VERSION:
        raise StoreCorrupt(
            f"{link.address}: database {link.address.database!r} has schema version {version}, "
            f"this program knows {VERSION}; start the version that wrote it, or set another Db"
        )
    return await link.transact(lambda: _weaknesses(link))


async def _version(link: Link) -> int:
    try:
        [found] = await link.ask(f"SELECT MAX(version) FROM {_VERSIONS}", begins=True)
    except ServerError as exc:
        if exc.number != NO_SUCH_TABLE:
            raise
        return 0
    return _number(found) or 0


async def _create_database(link: Link) -> None:
    name = link.address.database
    server = link.elsewhere("")

    async def create() -> None:
        quoted = name.replace("`", "``")
        await server.ask(f"CREATE DATABASE IF NOT EXISTS `{quoted}` CHARACTER SET utf8mb4")

    try:
        await server.transact(create)
    except ServerError as exc:
        raise StoreUnavailable(
            f"{link.address}: there is no database {name!r} and {link.address.user!r} may not "
            f"create it ({exc.message}); create it, or grant the right to"
        ) from exc
    finally:
        await server.aclose()


async def _migrate(link: Link) -> int:
    """Bring the schema to the newest version while every other coordinator waits; give it."""
    lock = f"CONCAT('dtm schema ', MD5({literal(link.address.database)}))"
    [locked] = await link.ask(f"SELECT GET_LOCK({lock}, {round(MIGRATED_WITHIN)})", begins=True)
    if _number(locked) != 1:
        raise link.unavailable("another coordinator is migrating the schema; wait for it")
    try:
        version = await _version(link)
        if version < VERSION:
            await _upgrade(link)
            version = VERSION
        if version == VERSION:
            await _index(link)
        return version
    finally:
        link.drop()  # and with the connection the lock, however this ended


async def _upgrade(link: Link) -> None:
    """From dtm's tables, or none, to version 1; begun and broken off it can be begun again."""
    exact = await _collation(link)
    await link.ask(*_DTM_TABLES)
    for table, added in _ADDED.items():
        [found] = await link.ask(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() "
            f"AND table_name = '{table}' AND column_name = 'create_ms'"
        )
        if not _number(found):
            await link.ask(
                f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {exact}, "
                f"ROW_FORMAT = DYNAMIC, {added}"
            )
        instants = ", ".join(_filled(name) for name in _FILLED[table])
        free = ", owner = '', lease_until = 0" if table == "trans_global" else ""
        await link.ask(
            f"UPDATE {table} SET {instants}{free} WHERE create_ms = 0 AND create_time IS NOT NULL"
        )
    await link.ask(
        f"CREATE TABLE IF NOT EXISTS {_VERSIONS} (version INT NOT NULL PRIMARY KEY) "
        "ENGINE = InnoDB",
        f"INSERT INTO {_VERSIONS} (version) VALUES ({VERSION})",
    )


async def _unindexed(link: Link) -> list[tuple[str, str]]:
    """Those of :data:`_INDEXES` that are not there by their names."""
    [found] = await link.ask(
        "SELECT table_name, index_name FROM information_schema.statistics "
        "WHERE table_schema = DATABASE()"
    )
    there = {(str(table), str(name)) for table, name in found.rows}
    return [key for key in _INDEXES if key not in there]


async def _index(link: Link) -> None:
    for table, name in await _unindexed(link):
        try:
            await link.ask(f"ALTER TABLE {table} ADD {_INDEXES[table, name]}")
        except DuplicateError as exc:
            raise StoreCorrupt(
                f"{link.address}: {table} of database {link.address.database!r} has rows that are "
                f"the same where {_INDEXES[table, name]} wants each once; remove all but one"
            ) from exc


def _filled(instant: str) -> str:
    seconds = f"UNIX_TIMESTAMP({instant}_time)"
    if instant in ("create", "update"):
        seconds = f"COALESCE({seconds}, 0)"
    return f"{instant}_ms = {seconds} * 1000"


async def _collation(link: Link) -> str:
    named = ", ".join(map(literal, COLLATIONS))
    version, found = await link.ask(
        "SELECT VERSION()",
        "SELECT collation_name FROM information_schema.collations "
        f"WHERE collation_name IN ({named})",
    )
    known = {row[0] for row in found.rows}
    for name in COLLATIONS:
        if name in known:
            return name
    raise link.unavailable(
        f"version {version.rows[0][0]!r} is too old; use MariaDB 10.6, MySQL 8.0.17 or later"
    )


async def _weaknesses(link: Link) -> tuple[str, ...]:
    settings, tables, version = await link.ask(
        "SHOW GLOBAL VARIABLES WHERE variable_name IN ('innodb_flush_log_at_trx_commit', "
        "'innodb_doublewrite', 'log_bin', 'sync_binlog', 'max_allowed_packet')",
        "SELECT table_name, engine FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND engine <> 'InnoDB' "
        "AND table_name IN ('trans_global', 'trans_branch_op', 'kv')",
        "SELECT VERSION()",
    )
    _refuse_old(link, str(version.rows[0][0]))
    value = {str(row[0]): str(row[1]) for row in settings.rows}
    found = [
        f"{name} is {value[name]}: {loss}"
        for name, safe, loss in _WEAK
        if name in value and value[name] not in safe
    ]
    if value.get("log_bin") == "ON" and value.get("sync_binlog") != "1":
        found.append(
            f"sync_binlog is {value.get('sync_binlog')}: after a power loss replicas may have "
            "other writes than this server; set sync_binlog = 1"
        )
    found += [
        f"table {name!s} is kept by {engine!s}, which a crash leaves with half a change; "
        f"ALTER TABLE {name!s} ENGINE = InnoDB"
        for name, engine in tables.rows
    ]
    if int(value["max_allowed_packet"]) < 2 * LARGEST_WRITE + (64 << 10):
        found.append(
            f"max_allowed_packet is {value['max_allowed_packet']}: payloads of more than half of "
            "it are refused; set max_allowed_packet = 64M"
        )
    return tuple(found)


def _refuse_old(link: Link, version: str) -> None:
    product = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    numbers = tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())
    if numbers < OLDEST[product]:
        oldest = ".".join(map(str, OLDEST[product]))
        raise link.unavailable(f"{product} {version} is too old; use {product} {oldest} or later")


def _number(result: Result) -> int | None:
    [[number]] = result.rows
    assert number is None or isinstance(number, int)
    return number
