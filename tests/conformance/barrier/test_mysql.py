"""The barrier over MariaDB, through every driver."""

from collections.abc import Callable

import pytest

from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, SqlBank, check_barrier
from kit.testing.mariadb import MariadbServer
from tests.conformance.barrier import banks

BANKS: dict[str, Callable[[MariadbServer], SqlBank]] = {
    "pymysql": lambda server: banks.pymysql_bank(server, autocommit=False),
    "pymysql-autocommit": lambda server: banks.pymysql_bank(server, autocommit=True),
    "pymysql-as-mysql": banks.pymysql_as_mysql_bank,
    "aiomysql": lambda server: banks.aiomysql_bank(server, autocommit=False),
    "asyncmy": lambda server: banks.asyncmy_bank(server, autocommit=False),
    "asyncmy-autocommit": lambda server: banks.asyncmy_bank(server, autocommit=True),
    "sqlalchemy-core": lambda server: banks.core_bank(banks.mysql_url(server, "pymysql")),
    "sqlalchemy-orm": lambda server: banks.orm_bank(banks.mysql_url(server, "pymysql")),
    "sqlalchemy-async-core": lambda server: banks.acore_bank(banks.mysql_url(server, "asyncmy")),
    "sqlalchemy-async-orm": lambda server: banks.aorm_bank(banks.mysql_url(server, "aiomysql")),
    "django": lambda server: banks.django_bank(
        "barrier_mysql",
        ENGINE="django.db.backends.mysql",
        NAME="business",
        HOST=server.host,
        PORT=server.port,
        USER=server.user,
        PASSWORD=server.password,
        OPTIONS={"charset": "utf8mb4"},
    ),
}


@pytest.fixture(scope="module", params=BANKS)
def bank(request: pytest.FixtureRequest, mariadb: MariadbServer) -> SqlBank:
    return BANKS[request.param](mariadb)


@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(bank: SqlBank, check: BarrierCheck) -> None:
    await check_barrier(bank, [check])
