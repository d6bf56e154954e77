"""The barrier over PostgreSQL, through every driver."""

from collections.abc import Callable

import pytest

from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, SqlBank, check_barrier
from kit.testing.postgres import PostgresSettings
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


@pytest.fixture(scope="module", params=BANKS)
def bank(request: pytest.FixtureRequest, postgres: PostgresSettings) -> SqlBank:
    return BANKS[request.param](postgres)


@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(bank: SqlBank, check: BarrierCheck) -> None:
    await check_barrier(bank, [check])
