"""How the barrier reaches a database through the connection that the business uses.

A link is made for one call. It says whether a transaction is open, runs statements in it, and ends
what it began. Its methods are flows, so one class serves the called and the awaited drivers.
"""

import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from kit.dtm.barrier.errors import BarrierError, CommitsApart
from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.rule import Outcome, Primitive, ReadReason, Steps
from kit.dtm.barrier.sql import Sql, Statement


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave: the rows, and how many it changed."""

    rows: list[Any] = field(default_factory=list)
    count: int = 0


class Link(Protocol):
    """One connection during one call of a barrier.

    Attributes:
        awaited: whether its driver is an asynchronous one.
        joined: whether the transaction is the caller's, who ends it; known after ``begin``.
    """

    awaited: bool
    joined: bool

    def begin(self) -> Flow[None]:
        """Join the open transaction, or begin one.

        Raises:
            CommitsApart: statements on this connection commit one by one.
        """
        ...

    def answer(self, primitive: Primitive) -> Flow[frozenset[str] | str | None]:
        """Do what the rule wants, in the transaction."""
        ...

    def still_open(self) -> Flow[bool]:
        """Whether the transaction that ``begin`` found or made is open and can be committed."""
        ...

    def commit(self) -> Flow[None]:
        """End what ``begin`` began."""
        ...

    def abandon(self) -> Flow[None]:
        """Undo: roll back; a transaction of the caller's is left so that it cannot commit this."""
        ...


class SqlLink(Link):
    """A link to a database that speaks SQL.

    Attributes:
        sql: statements in the dialect of its database; complete after ``begin``.
        speaks_xa: whether it leaves transactions to the server enough to prepare one.
    """

    sql: Sql
    speaks_xa: bool = False

    @abstractmethod
    def execute(self, statement: Statement) -> Flow[Answer]:
        """Run a statement in the transaction."""

    def alone(self, statement: Statement) -> Flow[Answer]:
        """Run a statement outside of any transaction."""
        return (yield from self.execute(statement))

    def answer(self, primitive: Primitive) -> Flow[frozenset[str] | str | None]:
        """As the rule's primitives are in SQL."""
        if isinstance(primitive, ReadReason):
            answer = yield from self.execute(self.sql.reason(primitive))
            return answer.rows[0][0] if answer.rows else None
        new: set[str] = set()
        for statement, op in self.sql.inserts(primitive):
            answer = yield from self.execute(statement)
            if self.sql.tells_inserted:
                new |= {row[0] for row in answer.rows}
            elif answer.count:
                new.add(op)
        return frozenset(new)


_LINKS = {
    "sqlite3": "kit.dtm.barrier.links.sqlite",
    "aiosqlite": "kit.dtm.barrier.links.sqlite",
    "psycopg": "kit.dtm.barrier.links.psycopg",
    "asyncpg": "kit.dtm.barrier.links.asyncpg",
    "pymysql": "kit.dtm.barrier.links.mysql",
    "aiomysql": "kit.dtm.barrier.links.mysql",
    "asyncmy": "kit.dtm.barrier.links.mysql",
    "sqlalchemy": "kit.dtm.barrier.links.sqlalchemy",
    "django": "kit.dtm.barrier.links.django",
    "pymongo": "kit.dtm.barrier.links.mongo",
}
"""Package of a connection's class → module with ``link(connection, table)``."""


def link_of(connection: object, table: str = "") -> Link:
    """The link for ``connection``.

    Raises:
        BarrierError: nobody knows this kind of connection, or ``table`` is no name.
    """
    for cls in type(connection).__mro__:
        if module := _LINKS.get(cls.__module__.partition(".")[0]):
            make: Callable[[object, str], Link] = importlib.import_module(module).link
            return make(connection, table)
    kind = type(connection)
    raise BarrierError(
        f"connection is a {kind.__module__}.{kind.__qualname__}; a barrier joins a connection of "
        f"{', '.join(_LINKS)}"
    )


def not_a_connection(connection: object, way_out: str) -> BarrierError:
    """The error for an engine, a pool, a cursor."""
    kind = type(connection)
    return BarrierError(f"{kind.__module__}.{kind.__qualname__} is no connection; {way_out}")


def decide_on(link: Link, steps: Steps) -> Flow[Outcome]:
    """Run the rule's ``steps`` over ``link``."""
    try:
        primitive = next(steps)
        while True:
            answer = yield from link.answer(primitive)
            primitive = steps.send(answer)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


@contextmanager
def commit_refused(connection: Any) -> Iterator[None]:
    """Keep the business from calling ``connection.commit()``, which would split its rows."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise CommitsApart(
            "the business calls commit() inside a barrier; leave it out, the transaction is "
            "committed with the barrier's row"
        )

    connection.commit = refuse
    try:
        yield
    finally:
        del connection.commit
