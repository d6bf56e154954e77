"""Servers with the table of the barrier and one of the business."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pymysql
import pytest
import pytest_asyncio

from kit.dtm.barrier.table import acreate_table, create_table
from kit.testing.mariadb import MariadbServer, mariadb_server
from kit.testing.postgres import PostgresSettings, postgres_settings
from tests.conformance.barrier import banks

pymysql.install_as_MySQLdb()  # which Django's backend imports


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("barrier") / "business.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        create_table(connection)
        create_table(connection)  # is there already
        connection.execute("CREATE TABLE effect (id INTEGER PRIMARY KEY, name TEXT, amount INT)")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def postgres() -> AsyncIterator[PostgresSettings]:
    async with postgres_settings() as found:
        connection = await asyncpg.connect(**found)
        await acreate_table(connection)
        await acreate_table(connection)  # is there already
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS effect (id BIGSERIAL PRIMARY KEY, name TEXT, amount INT)"
        )
        await connection.close()
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mariadb() -> AsyncIterator[MariadbServer]:
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
