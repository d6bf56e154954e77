"""SQLAlchemy: Connection and Session, called and awaited.

Who commits behind the barrier's back leaves another transaction object, or none.
"""
# ruff: noqa: D102 - what the methods promise is said by `Link`

from functools import partial
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from kit.dtm.barrier.errors import BarrierError, CommitsApart
from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Answer, Link, SqlLink, not_a_connection
from kit.dtm.barrier.links.poison import IN_ERROR
from kit.dtm.barrier.sql import Family, Sql, Statement, colon


class SqlalchemyLink(SqlLink):
    """One call over a connection or session of SQLAlchemy."""

    sql: Sql

    def __init__(self, connection: Any, table: str, *, awaited: bool) -> None:
        self.awaited = awaited
        self.joined = False
        self._table = table
        self._outer = connection
        self._inner: Any = (  # the called one in an awaited one: its state is read without I/O
            connection.sync_session
            if isinstance(connection, AsyncSession)
            else connection.sync_connection
            if isinstance(connection, AsyncConnection)
            else connection
        )
        self._core: Any = None
        self._transaction: Any = None

    def begin(self) -> Flow[None]:
        self.joined = self._inner.in_transaction()
        if isinstance(self._inner, Session):
            try:
                core = yield self._outer.connection
            except UnboundExecutionError as exc:
                raise CommitsApart(
                    "the session has no bind of its own; give session.connection(...) of the "
                    "database with the business rows"
                ) from exc
            self._core = core.sync_connection if isinstance(core, AsyncConnection) else core
        else:
            self._core = self._inner
            if not self.joined:
                yield self._outer.begin
        self._refuse_autocommit()
        self._transaction = self._inner.get_transaction()
        self.sql = Sql(_family(self._core.dialect), colon, self._table)

    def execute(self, statement: Statement) -> Flow[Answer]:
        sql, values = statement
        named = {f"v{n}": value for n, value in enumerate(values, 1)}
        result = yield partial(self._outer.execute, text(sql), named)
        rows = list(result.all()) if result.returns_rows else []
        return Answer(rows, -1 if result.returns_rows else result.rowcount)

    def still_open(self) -> Flow[bool]:
        transaction = self._inner.get_transaction()
        if transaction is not self._transaction or not transaction.is_active:
            return False
        if isinstance(self._inner, Session):
            yield self._outer.flush  # what cannot be written is seen while it can be undone
        if self.sql.family is not Family.POSTGRES:
            return True
        info = getattr(self._core.connection.driver_connection, "info", None)
        if info is not None:
            return bool(info.transaction_status != IN_ERROR)
        try:
            yield partial(self._outer.execute, text("SELECT 1"))
        except Exception:  # noqa: BLE001 - each driver has its own; all mean that it failed before
            return False
        return True

    def commit(self) -> Flow[None]:
        yield self._outer.commit

    def abandon(self) -> Flow[None]:
        transaction = self._inner.get_transaction()
        if transaction is not None:
            # In a block of the caller's this leaves a transaction that refuses to go on.
            yield self._outer.rollback

    def _refuse_autocommit(self) -> None:
        options = self._core.get_execution_options()
        default = getattr(self._core.dialect, "_on_connect_isolation_level", None)
        if options.get("isolation_level", default) == "AUTOCOMMIT":
            raise CommitsApart(
                "the connection's isolation level is AUTOCOMMIT, so each statement commits alone; "
                "use an engine without it for branches"
            )


def _family(dialect: Any) -> Family:
    if dialect.name in ("mysql", "mariadb"):
        return Family.MARIADB if dialect.is_mariadb else Family.MYSQL
    try:
        return Family(dialect.name)
    except ValueError:
        raise BarrierError(
            f"dialect {dialect.name!r}: barriers are for {', '.join(Family)}"
        ) from None


def link(connection: object, table: str) -> Link:
    """The link for a connection or session of SQLAlchemy."""
    if isinstance(connection, scoped_session | async_scoped_session):
        connection = connection()
    if isinstance(connection, Connection | Session | AsyncConnection | AsyncSession):
        awaited = isinstance(connection, AsyncConnection | AsyncSession)
        return SqlalchemyLink(connection, table, awaited=awaited)
    raise not_a_connection(
        connection, "give a Connection or Session, or one of their Async relatives"
    )
