"""The barrier over MariaDB, through every driver."""

from collections.abc import AsyncIterator, Callable

import pymysql
import pytest
import pytest_asyncio

from kit.dtm.barrier.table import create_table
from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, SqlBank, check_barrier
from kit.testing.mariadb import MariadbServer, mariadb_server
from tests.conformance.barrier import banks

pymysql.install_as_MySQLdb()  # which Django's backend imports

BANKS: dict[str, Callable[[MariadbServer], SqlBank]] = {
    "pymysql": lambda server: banks.pymysql_bank(server, autocommit=False),
    "pymysql-autocommit": lambda server: banks.pymysql_bank(server, autocommit=True),
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[MariadbServer]:
    """A server with the table of the business and that of the barrier."""
    async with mariadb_server() as found:
        with pymysql.connect(**banks.mysql_options(found)) as connection:
            create_table(connection)
            create_table(connection)  # is there already
            with connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE IF NOT EXISTS business")
                cursor.execute(
                    "CREATE TABLE IF NOT EXISTS business.effect (id BIGINT AUTO_INCREMENT "
                    "PRIMARY KEY, name VARCHAR(200), amount INT)"
                )
        yield found


@pytest.fixture(scope="module", params=BANKS)
def bank(request: pytest.FixtureRequest, server: MariadbServer) -> SqlBank:
    return BANKS[request.param](server)


@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(bank: SqlBank, check: BarrierCheck) -> None:
    await check_barrier(bank, [check])
