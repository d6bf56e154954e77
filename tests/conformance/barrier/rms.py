"""Databases that take part in XA, and the two phases as a coordinator drives them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncmy
import asyncpg

from kit.dtm.barrier import BranchBarrier, Outcome
from kit.dtm.barrier.xa import afinish, aprepare
from kit.dtm.errors import Ongoing
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings
from tests.conformance.barrier import banks


class Rm(Protocol):
    """A database that takes part in XA."""

    def connect(self) -> Any: ...
    async def add(self, connection: Any, name: str) -> None: ...
    async def amounts(self, name: str) -> list[int]: ...
    async def prepared(self) -> list[str]: ...
    def cut(self, connection: Any) -> None: ...


class Postgres:
    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(**self._settings)
        try:
            yield connection
        finally:
            await connection.close()

    async def add(self, connection: Any, name: str) -> None:
        await connection.execute(banks.INSERT.format("$1", "$2"), name, 1)

    async def amounts(self, name: str) -> list[int]:
        async with self.connect() as connection:
            return [row[0] for row in await connection.fetch(banks.SELECT.format("$1"), name)]

    async def prepared(self) -> list[str]:
        async with self.connect() as connection:
            return [row[0] for row in await connection.fetch("SELECT gid FROM pg_prepared_xacts")]

    def cut(self, connection: Any) -> None:
        connection.terminate()


class Mariadb:
    def __init__(self, server: MariadbServer) -> None:
        self._server = server

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        options = banks.mysql_options(self._server, db="business", autocommit=False)
        async with asyncmy.connect(**options) as connection:
            yield connection

    async def add(self, connection: Any, name: str) -> None:
        await banks.apercent(connection, banks.INSERT, name, 1)

    async def amounts(self, name: str) -> list[int]:
        async with self.connect() as connection:
            return await banks.apercent(connection, banks.SELECT, name)

    async def prepared(self) -> list[str]:
        async with self.connect() as connection, connection.cursor() as cursor:
            await cursor.execute("XA RECOVER")
            return [row[3].decode() for row in await cursor.fetchall()]

    def cut(self, connection: Any) -> None:
        connection.close()


def branch(gid: str, op: str = "action") -> BranchBarrier:
    return BranchBarrier("xa", gid, "01", op)


async def registered() -> None:
    """A coordinator that says yes."""


async def first_phase(
    rm: Rm, gid: str, *, register: Callable[[], Awaitable[object]] = registered
) -> Outcome:
    async with rm.connect() as connection:
        return await aprepare(
            branch(gid), connection, lambda: rm.add(connection, gid), register=register
        )


async def second_phase(rm: Rm, gid: str, op: str) -> None:
    """As a coordinator does: again while the answer is ONGOING or unknown."""
    for _ in range(1_000):
        try:
            async with rm.connect() as connection:
                return await afinish(branch(gid, op), connection)
        except Ongoing:
            await asyncio.sleep(0.02)
    raise AssertionError("phase 2 does not end")
