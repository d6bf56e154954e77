"""MongoDB: a session of pymongo, called and awaited.

The rows are documents of collection ``dtm_barrier.barrier``, inserted by upsert: in a transaction
of MongoDB a duplicate key would end it. Two calls at once meet in a write conflict at the unique
index, which :func:`kit.dtm.barrier.mongo.create_index` makes and nothing works without; it ends the
later one, and its coordinator asks again.

Source: dtm-labs/dtm client/dtmcli/barrier_mongo.go.
"""
# ruff: noqa: D102 - what the methods promise is said by `Link`

from datetime import UTC, datetime
from functools import partial
from typing import Any

from kit.dtm.barrier.errors import BarrierError
from kit.dtm.barrier.flow import Flow
from kit.dtm.barrier.links import Link, not_a_connection
from kit.dtm.barrier.rule import Primitive, ReadReason, Row
from kit.dtm.barrier.sql import check_table

DEFAULT_COLLECTION = "dtm_barrier.barrier"

KEY = ("gid", "branch_id", "op", "barrier_id")


class MongoLink(Link):
    """One call over a session of pymongo."""

    def __init__(self, session: Any, table: str, *, awaited: bool) -> None:
        self.awaited = awaited
        self.joined = False
        self._session = session
        self._rows = collection_of(session.client, table)

    def begin(self) -> Flow[None]:
        self.joined = self._session.in_transaction
        if not self.joined:
            # Neither driver asks the server here: AsyncClientSession.start_transaction is awaited
            # for its form only.
            yield self._session.start_transaction

    def answer(self, primitive: Primitive) -> Flow[frozenset[str] | str | None]:
        if isinstance(primitive, ReadReason):
            key = _key(primitive.row)
            found = yield partial(self._rows.find_one, key, session=self._session)
            return None if found is None else str(found["reason"])
        new = set()
        for row in primitive.rows:
            now = datetime.now(UTC)
            new_row = {"trans_type": row.trans_type, "reason": row.reason, "create_time": now}
            rest = {"$setOnInsert": new_row}
            update = partial(self._rows.update_one, _key(row), rest, upsert=True)
            result = yield partial(update, session=self._session)
            if result.upserted_id is not None:
                new.add(row.op)
        return frozenset(new)

    def still_open(self) -> Flow[bool]:
        yield from ()
        return bool(self._session.in_transaction)

    def commit(self) -> Flow[None]:
        yield self._session.commit_transaction

    def abandon(self) -> Flow[None]:
        if self._session.in_transaction:
            yield self._session.abort_transaction


def collection_of(client: Any, table: str) -> Any:
    """Where the rows are.

    Raises:
        BarrierError: ``table`` is no name of a database and a collection.
    """
    database, _, collection = check_table(table or DEFAULT_COLLECTION).partition(".")
    if not collection:
        raise BarrierError(f"barrier table {table!r}: write database.collection for MongoDB")
    return client[database][collection]


def _key(row: Row) -> dict[str, str]:
    return {name: getattr(row, name) for name in KEY}


def link(connection: object, table: str) -> Link:
    """The link for a session of pymongo."""
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.synchronous.client_session import ClientSession

    if isinstance(connection, AsyncClientSession | ClientSession):
        awaited = isinstance(connection, AsyncClientSession)
        return MongoLink(connection, table, awaited=awaited)
    raise not_a_connection(connection, "give a session: `with client.start_session() as session`")
