"""asyncpg; a connection of a pool as well."""
# ruff: noqa: D102 - what the methods promise is said by `Link`

import asyncio
from functools import partial
from typing import Any

from asyncpg import Connection, InterfaceError, PostgresError
from asyncpg.pool import PoolConnectionProxy

from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, not_a_connection
from kit.dtm.barrier.links.poison import POISON
from kit.dtm.barrier.sql import Family, Sql, Statement, dollar


class AsyncpgLink(SqlLink):
    """One call over an asyncpg connection.

    asyncpg cannot say that a transaction has failed. A listener notes failed statements, and only
    after one of those the server is asked.
    """

    awaited = True
    speaks_xa = True

    def __init__(self, connection: Any, table: str) -> None:
        self.sql = Sql(Family.POSTGRES, dollar, table)
        self.joined = False
        self._connection = connection
        self._transaction: Any = None
        self._failed = False

    def begin(self) -> Flow[None]:
        self.joined = self._connection.is_in_transaction()
        if not self.joined:
            self._transaction = self._connection.transaction()
            yield self._transaction.start
        self._connection.add_query_logger(self._note)

    def execute(self, statement: Statement) -> Flow[Answer]:
        text, values = statement
        rows = yield partial(self._connection.fetch, text, *values)
        return Answer(rows)

    def still_open(self) -> Flow[bool]:
        self._connection.remove_query_logger(self._note)
        if not self._connection.is_in_transaction():
            return False
        yield partial(asyncio.sleep, 0)  # listeners are called in the next turn of the loop
        if self._failed:
            try:
                yield partial(self._connection.execute, "SELECT 1")
            except PostgresError:
                return False
        return True

    def commit(self) -> Flow[None]:
        yield self._transaction.commit

    def abandon(self) -> Flow[None]:
        self._connection.remove_query_logger(self._note)
        if not self.joined:
            try:
                yield self._transaction.rollback
            except InterfaceError:
                pass  # it has ended: the commit failed, or the connection is gone
        elif self._connection.is_in_transaction():
            try:
                yield partial(self._connection.execute, POISON)
            except PostgresError:
                pass  # as is wanted

    def _note(self, query: Any) -> None:
        self._failed = self._failed or query.exception is not None


def link(connection: object, table: str) -> Link:
    """The link for an asyncpg connection."""
    if isinstance(connection, Connection | PoolConnectionProxy):
        return AsyncpgLink(connection, table)
    raise not_a_connection(connection, "write `async with pool.acquire() as connection`")
