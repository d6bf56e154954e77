"""The PostgreSQL store keeps the store contract on a real server."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from kit.dtm.store.postgres import PostgresStore
from kit.testing.postgres import PostgresSettings, postgres_settings
from kit.testing.store import STORE_CHECKS, StoreCheck, check_store

_numbers = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings() -> AsyncIterator[PostgresSettings]:
    """Where a server is that all checks use, each in a schema of its own."""
    async with postgres_settings() as found:
        yield found


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_postgres_store_keeps_the_contract(
    check: StoreCheck, settings: PostgresSettings
) -> None:
    """Each promise of kit.dtm.store.Store."""
    schema = f'kit check "{next(_numbers)}"'
    await check_store(lambda clock: PostgresStore(**settings, schema=schema, clock=clock), [check])
