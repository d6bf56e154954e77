"""XA branches outlive the servers that keep them."""

from contextlib import closing
from typing import Any

import pymysql

from kit.dtm.barrier.table import acreate_table, create_table
from kit.testing.mariadb import mariadb_server
from kit.testing.postgres import postgres_server
from tests.conformance.barrier import banks
from tests.conformance.barrier.rms import Mariadb, Postgres, Rm, first_phase, second_phase


async def test_a_prepared_branch_survives_a_killed_postgres() -> None:
    async with postgres_server() as server:
        rm = Postgres(server.settings)
        async with rm.connect() as connection:
            await acreate_table(connection)
            await connection.execute(
                "CREATE TABLE effect (id BIGSERIAL PRIMARY KEY, name TEXT, amount INT)"
            )
        await survive(rm, server)


async def test_a_prepared_branch_survives_a_killed_mariadb() -> None:
    async with mariadb_server(own=True) as server:
        with closing(pymysql.connect(**banks.mysql_options(server))) as connection:
            create_table(connection)
            banks.percent(connection, "CREATE DATABASE business")
            banks.percent(
                connection,
                "CREATE TABLE business.effect (id BIGINT AUTO_INCREMENT PRIMARY KEY, "
                "name VARCHAR(200), amount INT)",
            )
        await survive(Mariadb(server), server)


async def survive(rm: Rm, server: Any) -> None:
    for op in ("commit", "rollback"):
        await first_phase(rm, f"xa-killed-{op}")
    server.kill()
    await server.start()
    for op, amounts in (("commit", [1]), ("rollback", [])):
        await second_phase(rm, f"xa-killed-{op}", op)
        assert await rm.amounts(f"xa-killed-{op}") == amounts
    assert await rm.prepared() == []
