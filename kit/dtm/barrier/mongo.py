"""The unique index that barriers in MongoDB stand on."""

from typing import Any

from kit.dtm.barrier.links.mongo import KEY, collection_of

_KEYS = [(name, 1) for name in KEY]


def create_index(client: Any, table: str = "") -> None:
    """Make the unique index of the barrier's collection, unless it is there.

    Args:
        client: a ``pymongo.MongoClient``.
        table: ``database.collection``; ``dtm_barrier.barrier`` by default, as in dtm.

    Raises:
        BarrierError: ``table`` is no such name.
    """
    collection_of(client, table).create_index(_KEYS, unique=True)


async def acreate_index(client: Any, table: str = "") -> None:
    """As :func:`create_index`, for a ``pymongo.AsyncMongoClient``."""
    await collection_of(client, table).create_index(_KEYS, unique=True)
