"""The barrier over PostgreSQL, through every driver."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio

from kit.dtm.barrier.table import acreate_table
from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, SqlBank, check_barrier
from kit.testing.postgres import PostgresSettings, postgres_settings
from tests.conformance.barrier import banks

BANKS: dict[str, Callable[[PostgresSettings], SqlBank]] = {
    "psycopg": lambda found: banks.psycopg_bank(found, autocommit=False),
    "psycopg-autocommit": lambda found: banks.psycopg_bank(found, autocommit=True),
    "psycopg-async": lambda found: banks.apsycopg_bank(found, autocommit=False),
    "asyncpg": banks.asyncpg_bank,
    "sqlalchemy-core": lambda found: banks.core_bank(banks.postgres_url(found, "psycopg")),
    "sqlalchemy-orm": lambda found: banks.orm_bank(banks.postgres_url(found, "psycopg")),
    "sqlalchemy-async-core": lambda found: banks.acore_bank(banks.postgres_url(found, "asyncpg")),
    "sqlalchemy-async-orm": lambda found: banks.aorm_bank(banks.postgres_url(found, "asyncpg")),
    "django": lambda found: banks.django_bank(
        "barrier_postgres",
        ENGINE="django.db.backends.postgresql",
        NAME=found["database"],
        HOST=found["host"],
        PORT=found["port"],
        USER=found["user"],
        PASSWORD=found["password"],
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settings() -> AsyncIterator[PostgresSettings]:
    """A server with the table of the business and that of the barrier."""
    async with postgres_settings() as found:
        connection = await asyncpg.connect(**found)
        await acreate_table(connection)
        await acreate_table(connection)  # is there already
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS effect (id BIGSERIAL PRIMARY KEY, name TEXT, amount INT)"
        )
        await connection.close()
        yield found


@pytest.fixture(scope="module", params=BANKS)
def bank(request: pytest.FixtureRequest, settings: PostgresSettings) -> SqlBank:
    return BANKS[request.param](settings)


@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(bank: SqlBank, check: BarrierCheck) -> None:
    await check_barrier(bank, [check])
