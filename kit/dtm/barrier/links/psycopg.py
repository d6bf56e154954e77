"""psycopg 3, called and awaited."""
# ruff: noqa: D102 - what the methods promise is said by `Link`

from contextlib import ExitStack
from functools import partial
from typing import Any

from psycopg import AsyncConnection, Connection, Error
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from kit.dtm.barrier.errors import CommitsApart
from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, commit_refused, not_a_connection
from kit.dtm.barrier.links.poison import POISON
from kit.dtm.barrier.sql import Family, Sql, Statement, percent_s


class PsycopgLink(SqlLink):
    """One call over a psycopg connection."""

    speaks_xa = True

    def __init__(self, connection: Any, table: str, *, awaited: bool) -> None:
        self.awaited = awaited
        self.sql = Sql(Family.POSTGRES, percent_s, table)
        self.joined = False
        self._connection = connection
        self._guards = ExitStack()

    def begin(self) -> Flow[None]:
        if self._status is TransactionStatus.INERROR:
            raise CommitsApart(
                "the open transaction has failed and commits nothing; roll it back first"
            )
        self.joined = self._status is TransactionStatus.INTRANS
        if not self.joined and self._connection.autocommit:
            yield partial(self._connection.execute, "BEGIN")
        # Otherwise psycopg begins with the first statement.
        self._guards.enter_context(commit_refused(self._connection))

    def execute(self, statement: Statement) -> Flow[Answer]:
        text, values = statement
        cursor = self._connection.cursor(row_factory=tuple_row)
        yield partial(cursor.execute, text, values)
        rows = []
        if cursor.description is not None:
            rows = yield cursor.fetchall
        return Answer(rows, cursor.rowcount)

    def alone(self, statement: Statement) -> Flow[Answer]:
        autocommit = self._connection.autocommit
        yield partial(self._connection.set_autocommit, True)
        try:
            answer = yield from self.execute(statement)
        finally:
            yield partial(self._connection.set_autocommit, autocommit)
        return answer

    def still_open(self) -> Flow[bool]:
        # A statement that failed, its error swallowed: COMMIT would then roll back in silence.
        yield from ()
        self._guards.close()
        return self._status is TransactionStatus.INTRANS

    def commit(self) -> Flow[None]:
        yield partial(self._connection.execute, "COMMIT")

    def abandon(self) -> Flow[None]:
        self._guards.close()
        if self._status not in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            return
        if not self.joined:
            yield partial(self._connection.execute, "ROLLBACK")
            return
        try:
            yield partial(self._connection.execute, POISON)
        except Error:
            pass  # as is wanted

    @property
    def _status(self) -> TransactionStatus:
        return TransactionStatus(self._connection.info.transaction_status)


def link(connection: object, table: str) -> Link:
    """The link for a psycopg connection."""
    if isinstance(connection, Connection | AsyncConnection):
        return PsycopgLink(connection, table, awaited=isinstance(connection, AsyncConnection))
    raise not_a_connection(
        connection, "give the connection that the business uses, not pool or cursor"
    )
