"""Accounts in SQLite, PostgreSQL or MySQL: a row a user, changed behind a barrier."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from apps.trans.biz import Change, Register
from kit.dtm.barrier import BranchBarrier, Outcome
from kit.dtm.barrier.table import acreate_table
from kit.dtm.barrier.xa import afinish, aprepare
from kit.dtm.errors import Failure
from kit.dtm.wire import Op

_CREATE = """
    CREATE TABLE IF NOT EXISTS user_account (
        user_id BIGINT NOT NULL PRIMARY KEY,
        balance BIGINT NOT NULL,
        trading_balance BIGINT NOT NULL DEFAULT 0
    )
"""
_ADJUST = """
    UPDATE user_account SET balance = balance + {}, trading_balance = trading_balance + {}
    WHERE user_id = {} AND balance - trading_balance >= {}
"""
_OPEN = "INSERT {ignore} INTO user_account (user_id, balance) VALUES ({}, {}) {conflict}"

_ANYTHING = -(2**63)
"""No account has less."""

CONNECTIONS = 10
"""To a server; further calls wait for one."""


class Database(Protocol):
    """What the accounts need of a driver.

    Attributes:
        marks: the places of up to four values in a statement, in their order.
        ignore: after INSERT, where a row that is there already is no error.
        conflict: the same, at the end of the statement.
        begin: the statement that begins a transaction.
        has_xa: whether it can prepare a transaction.
    """

    marks: tuple[str, ...]
    ignore: str
    conflict: str
    begin: str
    has_xa: bool

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    def connection(self) -> AbstractAsyncContextManager[Any]:
        """A connection without an open transaction, for one call."""
        ...

    def own_connection(self) -> AbstractAsyncContextManager[Any]:
        """A connection that nobody had before, closed afterwards."""
        ...

    async def execute(self, connection: Any, text: str, values: Sequence[object] = ()) -> int:
        """Run a statement; give the number of rows that it found."""
        ...


class DatabaseLedger:
    """An :class:`apps.trans.biz.Ledger` in a database.

    Args:
        database: open.
        opening_balance: cents that an account has when it is first heard of.
    """

    def __init__(self, database: Database, opening_balance: int) -> None:
        self._database = database
        self._opening_balance = opening_balance
        marks = database.marks
        self._adjust_text = _ADJUST.format(*marks)
        self._open_text = _OPEN.format(
            *marks[:2], ignore=database.ignore, conflict=database.conflict
        )

    async def create_tables(self) -> None:
        """Make the tables, unless they are there."""
        async with self._database.connection() as connection:
            await self._database.execute(connection, _CREATE)
            await acreate_table(connection)

    async def apply(self, change: Change, branch: BranchBarrier | None) -> bool:
        """See :meth:`apps.trans.biz.Ledger.apply`."""
        async with self._database.connection() as connection:
            if branch is None:
                await self._plainly(connection, change)
                return True
            async with branch.guard(connection) as guard:
                if guard.outcome.suppressed:
                    return False
                await self.adjust(connection, change)
            return True

    async def apply_xa(self, change: Change, branch: BranchBarrier, register: Register) -> bool:
        """See :meth:`apps.trans.biz.Ledger.apply_xa`."""
        if not self._database.has_xa:
            raise Failure(
                "this database has no XA; start trans with configs/config.postgres.yaml or "
                "configs/config.mysql.yaml"
            )
        if branch.op != Op.ACTION:
            async with self._database.connection() as connection:
                await afinish(branch, connection)
            return False
        # a connection of its own: MySQL keeps what is prepared to the one that prepared it
        async with self._database.own_connection() as connection:
            business = partial(self.adjust, connection, change)
            outcome = await aprepare(branch, connection, business, register=register)
        return outcome is Outcome.DONE

    async def adjust(self, connection: Any, change: Change) -> None:
        """Make ``change`` in the open transaction of ``connection``.

        Raises:
            Failure: there is less than what is needed.
        """
        least = change.need or _ANYTHING  # who owes after an undo is paid and undone all the same
        values = (change.balance, change.frozen, change.user_id, least)
        if await self._database.execute(connection, self._adjust_text, values):
            return
        opening = (change.user_id, self._opening_balance)
        if await self._database.execute(
            connection, self._open_text, opening
        ) and await self._database.execute(connection, self._adjust_text, values):
            return
        raise Failure(
            f"balance of user {change.user_id} too low: {change.need} cents are not there"
        )

    async def _plainly(self, connection: Any, change: Change) -> None:
        await self._database.execute(connection, self._database.begin)
        try:
            await self.adjust(connection, change)
        except BaseException:
            await self._database.execute(connection, "ROLLBACK")
            raise
        await self._database.execute(connection, "COMMIT")


class Sqlite:
    """A file of SQLite; calls take turns."""

    marks: tuple[str, ...] = ("?", "?", "?", "?")
    ignore = "OR IGNORE"
    conflict = ""
    begin = "BEGIN IMMEDIATE"
    has_xa = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        import aiosqlite

        connecting = aiosqlite.connect(self._path, isolation_level=None)
        self._connection = await self._stack.enter_async_context(connecting)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000"):
            await self._connection.execute(f"PRAGMA {pragma}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """See :class:`Database`."""
        async with self._turn:
            try:
                yield self._connection
            except BaseException:
                # A BEGIN that was cancelled happens all the same, in the driver's thread. Left open
                # it would be joined by the next call, whose changes nobody commits.
                await self._connection.rollback()
                raise

    def own_connection(self) -> AbstractAsyncContextManager[Any]:
        """See :class:`Database`; one is enough for a file."""
        return self.connection()

    async def execute(self, connection: Any, text: str, values: Sequence[object] = ()) -> int:
        """See :class:`Database`."""
        async with connection.execute(text, values) as cursor:
            return int(cursor.rowcount)


class Postgres:
    """A database of PostgreSQL."""

    marks: tuple[str, ...] = ("$1", "$2", "$3", "$4")
    ignore = ""
    conflict = "ON CONFLICT DO NOTHING"
    begin = "BEGIN"
    has_xa = True

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        import asyncpg

        self._pool = await asyncpg.create_pool(self._url, min_size=1, max_size=CONNECTIONS)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """See :class:`Database`."""
        async with self._pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Any]:
        """See :class:`Database`."""
        import asyncpg

        connection = await asyncpg.connect(self._url)
        try:
            yield connection
        finally:
            await connection.close()

    async def execute(self, connection: Any, text: str, values: Sequence[object] = ()) -> int:
        """See :class:`Database`."""
        done: str = await connection.execute(text, *values)  # such as "UPDATE 1"
        number = done.rpartition(" ")[2]
        return int(number) if number.isdecimal() else 0


class Mysql:
    """A database of MySQL or MariaDB."""

    marks: tuple[str, ...] = ("%s", "%s", "%s", "%s")
    ignore = "IGNORE"
    conflict = ""
    begin = "BEGIN"
    has_xa = True

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    async def __aenter__(self) -> Self:
        import asyncmy

        self._pool = await asyncmy.create_pool(minsize=1, maxsize=CONNECTIONS, **self._settings())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._pool.close()
        await self._pool.wait_closed()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """See :class:`Database`."""
        async with self._pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[Any]:
        """See :class:`Database`."""
        import asyncmy

        connection = await asyncmy.connect(**self._settings())
        try:
            yield connection
        finally:
            await connection.ensure_closed()

    def _settings(self) -> dict[str, Any]:
        from asyncmy.constants import CLIENT

        parts = self._parts
        return {
            "host": parts.hostname or "127.0.0.1",
            "port": parts.port or 3306,
            "user": unquote(parts.username or "root"),
            "password": unquote(parts.password or ""),
            "db": parts.path.lstrip("/"),
            "autocommit": True,
            "client_flag": CLIENT.FOUND_ROWS,  # a row that stays as it is was found all the same
        }

    async def execute(self, connection: Any, text: str, values: Sequence[object] = ()) -> int:
        """See :class:`Database`."""
        async with connection.cursor() as cursor:
            await cursor.execute(text, values or None)
            return int(cursor.rowcount)


def open_database(driver: str, source: str) -> Database:
    """The database that the configuration names, not open yet.

    Args:
        driver: ``sqlite``, ``postgres`` or ``mysql``.
        source: a path, or a URL such as ``postgres://user:password@host:5432/name``.
    """
    match driver:
        case "postgres":
            return Postgres(source)
        case "mysql":
            return Mysql(source)
        case _:
            return Sqlite(source)
