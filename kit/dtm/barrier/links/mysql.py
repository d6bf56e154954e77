"""PyMySQL, aiomysql and asyncmy, on MySQL and MariaDB.

What the server says of its state with every answer is enough to see whether a transaction is open.
"""
# ruff: noqa: D102 - what the methods promise is said by `Link`

import importlib
from contextlib import ExitStack
from functools import partial
from typing import Any

from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, commit_refused, not_a_connection
from kit.dtm.barrier.rule import Primitive
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
        self._guards = ExitStack()

    def begin(self) -> Flow[None]:
        self.joined = self._in_transaction
        if not self.joined and self._connection.get_autocommit():
            yield self._connection.begin
        # Otherwise the server begins with the first statement.
        self._guards.enter_context(commit_refused(self._connection))

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
        return answer

    def still_open(self) -> Flow[bool]:
        yield from ()
        self._guards.close()
        return self._in_transaction

    def commit(self) -> Flow[None]:
        yield self._connection.commit

    def abandon(self) -> Flow[None]:
        self._guards.close()
        yield self._connection.rollback

    @property
    def _in_transaction(self) -> bool:
        return bool((self._connection.server_status or 0) & _IN_TRANSACTION)


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
