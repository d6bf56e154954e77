"""The barrier over MongoDB; needs a replica set, which no package brings: set MONGODB_URI."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pymongo
import pytest

from kit.dtm.barrier import BarrierError, BranchBarrier
from kit.dtm.barrier.links import link_of
from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, SqlBank, check_barrier

URI = os.environ.get("MONGODB_URI", "")


def called() -> SqlBank:
    @contextmanager
    def connect() -> Iterator[Any]:
        with pymongo.MongoClient(URI) as client, client.start_session() as session:
            yield session

    def add(session: Any, name: str, amount: int) -> None:
        effects = session.client["business"]["effect"]
        effects.insert_one({"name": name, "amount": amount}, session=session)

    def effects(session: Any, name: str) -> list[int]:
        found = session.client["business"]["effect"].find({"name": name}).sort("_id")
        return [row["amount"] for row in found]

    return SqlBank(connect, add, effects, awaited=False)


def awaited() -> SqlBank:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        async with pymongo.AsyncMongoClient(URI) as client, client.start_session() as session:
            yield session

    async def add(session: Any, name: str, amount: int) -> None:
        effects = session.client["business"]["effect"]
        await effects.insert_one({"name": name, "amount": amount}, session=session)

    async def effects(session: Any, name: str) -> list[int]:
        found = session.client["business"]["effect"].find({"name": name}).sort("_id")
        return [row["amount"] async for row in found]

    return SqlBank(connect, add, effects, awaited=True)


@pytest.mark.skipif(not URI, reason="MongoDB: set MONGODB_URI to a replica set")
@pytest.mark.parametrize("bank", [called, awaited])
@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(bank: Any, check: BarrierCheck) -> None:
    await check_barrier(bank(), [check])


async def test_sessions_are_joined_and_clients_are_refused() -> None:
    with pymongo.MongoClient("mongodb://127.0.0.1:1", connect=False) as client:
        with client.start_session() as session:
            assert link_of(session).awaited is False
            with pytest.raises(BarrierError, match=r"database\.collection"):
                BranchBarrier("saga", "g", "01", "action", table="barrier").guard(session)
        with pytest.raises(BarrierError, match="start_session"):
            link_of(client)
    awaited_client: Any = pymongo.AsyncMongoClient("mongodb://127.0.0.1:1", connect=False)
    async with awaited_client, awaited_client.start_session() as other:
        assert link_of(other).awaited is True
