"""The MySQL store keeps the store contract on a real MariaDB."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from kit.clock import Clock
from kit.dtm.store.mysql import MysqlStore
from kit.testing.mariadb import MariadbServer, mariadb_server
from kit.testing.store import STORE_CHECKS, StoreCheck, check_store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[MariadbServer]:
    async with mariadb_server() as running:
        yield running


@asynccontextmanager
async def empty_store(server: MariadbServer, clock: Clock | None) -> AsyncIterator[MysqlStore]:
    store = MysqlStore(
        server.host, server.port, server.user, server.password, "kit_contract", clock=clock
    )
    async with store:
        await store.clear()
        yield store


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_mysql_store_keeps_the_contract(server: MariadbServer, check: StoreCheck) -> None:
    """Each promise of kit.dtm.store.Store."""
    await check_store(lambda clock: empty_store(server, clock), [check])
