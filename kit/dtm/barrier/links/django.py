"""Django: ``django.db.connection`` or ``connections["name"]``.

``atomic`` is Django's transaction, and inside of it Django itself refuses commits.
"""
# ruff: noqa: D102 - what the methods promise is said by `Link`

import sys
from collections.abc import Callable
from typing import Any

from django.db import transaction

from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, not_a_connection
from kit.dtm.barrier.links.poison import IN_ERROR
from kit.dtm.barrier.sql import Family, Sql, Statement, percent_s


class DjangoLink(SqlLink):
    """One call over a connection of Django."""

    awaited = False

    def __init__(self, connection: Any, table: str) -> None:
        self.joined = False
        self._connection = connection
        self._atomic: Any = None
        self.sql = Sql(_family(connection), percent_s, table)

    def begin(self) -> Flow[None]:
        self.joined = self._connection.in_atomic_block
        if not self.joined:
            self._atomic = transaction.atomic(using=self._connection.alias)
            yield self._atomic.__enter__

    def execute(self, statement: Statement) -> Flow[Answer]:
        def call() -> Answer:
            with self._connection.cursor() as cursor:
                cursor.execute(*statement)
                rows = cursor.fetchall() if cursor.description is not None else []
                return Answer(list(rows), cursor.rowcount)

        answer: Answer = yield call
        return answer

    def still_open(self) -> Flow[bool]:
        yield from ()
        # A database error that was swallowed makes Django roll the block back in silence.
        if not self._connection.in_atomic_block or self._connection.needs_rollback:
            return False
        if self.sql.family is not Family.POSTGRES:
            return True
        return bool(self._connection.connection.info.transaction_status != IN_ERROR)

    def commit(self) -> Flow[None]:
        yield self._leave(None)

    def abandon(self) -> Flow[None]:
        if not self.joined:
            yield self._leave(sys.exception() or RuntimeError("abandoned"))
        elif self._connection.in_atomic_block:
            yield lambda: self._connection.set_rollback(True)

    def _leave(self, error: BaseException | None) -> Callable[[], object]:
        """Leave the block once; after an error inside its own end there is nothing to leave."""
        atomic, self._atomic = self._atomic, None
        if atomic is None:
            return lambda: None
        if error is None:
            return lambda: atomic.__exit__(None, None, None)
        return lambda: atomic.__exit__(type(error), error, error.__traceback__)


def _family(connection: Any) -> Family:
    if connection.vendor == "mysql":
        return Family.MARIADB if connection.mysql_is_mariadb else Family.MYSQL
    return Family(connection.vendor)


def link(connection: object, table: str) -> Link:
    """The link for a connection of Django."""
    if hasattr(connection, "in_atomic_block") and getattr(connection, "vendor", "") in (
        "sqlite", "postgresql", "mysql",
    ):  # fmt: skip
        return DjangoLink(connection, table)
    raise not_a_connection(connection, "give django.db.connection, of SQLite, PostgreSQL or MySQL")
