"""sqlite3 and aiosqlite.

Statements cost no round trip here, so a savepoint marks the transaction: it is gone when that was
committed behind the barrier's back, and a failed branch is undone without the caller's rows.
"""
# ruff: noqa: D102 - what the methods promise is said by `Link`

import sqlite3
from functools import partial
from typing import Any

from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, not_a_connection
from kit.dtm.barrier.sql import Family, Sql, Statement, question_mark

_MARK = "kit_barrier"


class SqliteLink(SqlLink):
    """One call over a connection of sqlite3 or aiosqlite."""

    def __init__(self, connection: Any, table: str, *, awaited: bool) -> None:
        self.awaited = awaited
        self.sql = Sql(Family.SQLITE, question_mark, table)
        self.joined = False
        self._connection = connection

    def begin(self) -> Flow[None]:
        self.joined = self._connection.in_transaction
        if not self.joined:
            # IMMEDIATE waits for other writers here; a transaction that becomes a writer later is
            # refused at once when another one wrote meanwhile.
            yield partial(self._connection.execute, "BEGIN IMMEDIATE")
        yield partial(self._connection.execute, f"SAVEPOINT {_MARK}")

    def execute(self, statement: Statement) -> Flow[Answer]:
        text, values = statement
        cursor = yield partial(self._connection.cursor)
        cursor.row_factory = None  # the caller's may give anything
        yield partial(cursor.execute, text, values)
        rows = yield cursor.fetchall
        yield cursor.close
        return Answer(rows, cursor.rowcount)

    def still_open(self) -> Flow[bool]:
        try:
            yield partial(self._connection.execute, f"RELEASE {_MARK}")
        except sqlite3.OperationalError:
            return False
        return True

    def commit(self) -> Flow[None]:
        yield self._connection.commit

    def abandon(self) -> Flow[None]:
        if not self.joined:
            yield self._connection.rollback
            return
        try:
            yield partial(self._connection.execute, f"ROLLBACK TO {_MARK}")
            yield partial(self._connection.execute, f"RELEASE {_MARK}")
        except sqlite3.OperationalError:
            # The mark is gone with the transaction; what is open now is not what was joined.
            yield self._connection.rollback


def link(connection: object, table: str) -> Link:
    """The link for a connection of sqlite3 or aiosqlite."""
    if isinstance(connection, sqlite3.Connection):
        return SqliteLink(connection, table, awaited=False)
    if hasattr(connection, "in_transaction"):
        return SqliteLink(connection, table, awaited=True)
    raise not_a_connection(connection, "give the connection whose execute() the business calls")
