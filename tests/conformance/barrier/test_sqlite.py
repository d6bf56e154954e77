"""The barrier over SQLite, through every driver."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, SqlBank, check_barrier
from tests.conformance.barrier import banks

BANKS: dict[str, Callable[[Path], SqlBank]] = {
    "sqlite3": banks.sqlite3_bank,
    "sqlite3-autocommit": lambda path: banks.sqlite3_bank(path, isolation_level=None),
    "aiosqlite": banks.aiosqlite_bank,
    "sqlalchemy-core": lambda path: banks.core_bank(f"sqlite:///{path}"),
    "sqlalchemy-orm": lambda path: banks.orm_bank(f"sqlite:///{path}"),
    "sqlalchemy-async-core": lambda path: banks.acore_bank(f"sqlite+aiosqlite:///{path}"),
    "sqlalchemy-async-orm": lambda path: banks.aorm_bank(f"sqlite+aiosqlite:///{path}"),
    "django": lambda path: banks.django_bank(
        "barrier_sqlite", ENGINE="django.db.backends.sqlite3", NAME=str(path)
    ),
}


@pytest.fixture(scope="module", params=BANKS)
def bank(request: pytest.FixtureRequest, sqlite: Path) -> SqlBank:
    return BANKS[request.param](sqlite)


@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(bank: SqlBank, check: BarrierCheck) -> None:
    await check_barrier(bank, [check])
