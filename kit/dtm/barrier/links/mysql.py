"""PyMySQL, aiomysql and asyncmy, on MySQL and MariaDB.

What the server says of its state with every answer is enough to see whether a transaction is open.
"""
# ruff: noqa: D102 - what the methods promise is said by `Link`

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, commit_refused, not_a_connection
from kit.dtm.barrier.rule import InsertAbsent, Primitive, ReadReason
from kit.dtm.barrier.sql import Family, Sql, Statement, percent_s

_IN_TRANSACTION = 0x0001
"""SERVER_STATUS_IN_TRANS of the client/server protocol."""

_CURSORS = {"pymysql": "pymysql.cursors", "aiomysql": "aiomysql", "asyncmy": "asyncmy.cursors"}


class MysqlLink(SqlLink):
    """One call over a connection of PyMySQL, aiomysql or asyncmy."""

    speaks_xa = True

    def __init__(self, connection: Any, table: str, *, driver: str) -> None:
        self.awaited = driver != "pymysql"
        self.sql = Sql(Family.of_mysql(connection.get_server_info()), percent_s, table)
        self.joined = False
        self._connection = connection
        self._cursor_class = _plain_cursor(driver)
        self._ready_made = driver != "aiomysql"  # whose cursor() is awaited
        self._unseen = driver == "asyncmy"
        self._guards = ExitStack()
        self._watch = _Watch(connection, awaited=self.awaited)
        self._own_row: ReadReason | None = None

    def begin(self) -> Flow[None]:
        self.joined = self._in_transaction
        if not self.joined and self._connection.get_autocommit():
            yield self._connection.begin
        # Otherwise the server begins with the first statement.
        self._guards.enter_context(commit_refused(self._connection))
        self._guards.enter_context(self._watch)
        # asyncmy has ways past `query`: without autocommit its transaction is always looked at.
        self._watch.failed = self._unseen and not self._connection.get_autocommit()

    def execute(self, statement: Statement) -> Flow[Answer]:
        text, values = statement
        cursor = self._connection.cursor(self._cursor_class)
        if not self._ready_made:
            cursor = yield lambda: cursor
        yield partial(cursor.execute, text, values)
        rows = []
        if cursor.description is not None:
            rows = yield cursor.fetchall
        return Answer(list(rows), cursor.rowcount)

    def alone(self, statement: Statement) -> Flow[Answer]:
        # Without autocommit a session of MariaDB is taken to be inside of a transaction, always.
        autocommit = self._connection.get_autocommit()
        if autocommit:
            return (yield from self.execute(statement))
        yield partial(self._connection.autocommit, True)
        try:
            answer = yield from self.execute(statement)
        finally:
            yield partial(self._connection.autocommit, False)
        return answer

    def answer(self, primitive: Primitive) -> Flow[frozenset[str] | str | None]:
        answer = yield from super().answer(primitive)
        # The drivers pass over the state that comes behind rows. Whoever ends the transaction from
        # here on hears of it in an answer without rows.
        self._connection.server_status |= _IN_TRANSACTION
        if isinstance(primitive, InsertAbsent):
            self._own_row = ReadReason(primitive.rows[-1])
        return answer

    def still_open(self) -> Flow[bool]:
        self._guards.close()
        if self._watch.ended or not self._in_transaction:
            return False
        if not self._watch.failed or self._own_row is None:
            return True
        # A deadlock rolls all of a transaction back; who swallows that goes on in another one.
        return (yield from self.answer(self._own_row)) is not None

    def commit(self) -> Flow[None]:
        yield self._connection.commit

    def abandon(self) -> Flow[None]:
        self._guards.close()
        yield self._connection.rollback

    @property
    def _in_transaction(self) -> bool:
        return bool((self._connection.server_status or 0) & _IN_TRANSACTION)


class _Watch:
    """Sees to each statement of the business whether it ended the transaction, or failed."""

    def __init__(self, connection: Any, *, awaited: bool) -> None:
        self.ended = False
        self.failed = False
        self._connection = connection
        self._query = connection.query
        self._is_awaited = awaited

    def __enter__(self) -> None:
        self._connection.query = self._awaited if self._is_awaited else self._called

    def __exit__(self, *_: object) -> None:
        del self._connection.query

    def _called(self, *args: Any, **options: Any) -> Any:
        with self._noting():
            return self._query(*args, **options)

    async def _awaited(self, *args: Any, **options: Any) -> Any:
        with self._noting():
            return await self._query(*args, **options)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        was_open = self._connection.server_status & _IN_TRANSACTION
        try:
            yield
        except BaseException:
            self.failed = True
            raise
        if was_open and not self._connection.server_status & _IN_TRANSACTION:
            self.ended = True


def _plain_cursor(driver: str) -> type[Any]:
    """Gives tuples, and does not fetch and report that a row was there already."""
    plain: type[Any] = importlib.import_module(_CURSORS[driver]).Cursor
    if driver == "pymysql":
        return plain

    async def say_nothing(self: object, connection: object) -> None:
        del self, connection

    return type("QuietCursor", (plain,), {"_show_warnings": say_nothing})


def link(connection: object, table: str) -> Link:
    """The link for a connection of PyMySQL, aiomysql or asyncmy."""
    packages = {cls.__module__.partition(".")[0] for cls in type(connection).__mro__}
    driver = next(name for name in _CURSORS if name in packages)
    if not hasattr(connection, "get_server_info"):
        raise not_a_connection(connection, "give the connection that the business uses")
    return MysqlLink(connection, table, driver=driver)
