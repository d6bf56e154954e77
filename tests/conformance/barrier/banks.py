"""Banks over every driver that a barrier joins, for the contract and for what is special."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiomysql
import aiosqlite
import asyncmy
import asyncpg
import django
import django.apps
import django.conf
import psycopg
import pymysql
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from kit.testing.barrier import SqlBank
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings

EFFECT = "effect"
INSERT = "INSERT INTO effect (name, amount) VALUES ({}, {})"
SELECT = "SELECT amount FROM effect WHERE name = {} ORDER BY id"


class Base(DeclarativeBase):
    """Of the one mapped class."""


class Effect(Base):
    """A row of the business, for the ORM."""

    __tablename__ = EFFECT
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    amount: Mapped[int]


def percent(connection: Any, statement: str, *values: object) -> list[int]:
    """Run a statement over any called driver of DB-API with ``%s``."""
    with connection.cursor() as cursor:
        cursor.execute(statement.format("%s", "%s"), values)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


async def apercent(connection: Any, statement: str, *values: object) -> list[int]:
    """The same for awaited drivers."""
    async with connection.cursor() as cursor:
        await cursor.execute(statement.format("%s", "%s"), values)
        return [row[0] for row in await cursor.fetchall()] if cursor.description else []


def percent_bank(connect: Callable[[], Any], table: str = "") -> SqlBank:
    return SqlBank(
        connect,
        lambda c, name, amount: percent(c, INSERT, name, amount),
        lambda c, name: percent(c, SELECT, name),
        awaited=False,
        table=table,
    )


def apercent_bank(connect: Callable[[], Any], table: str = "") -> SqlBank:
    return SqlBank(
        connect,
        lambda c, name, amount: apercent(c, INSERT, name, amount),
        lambda c, name: apercent(c, SELECT, name),
        awaited=True,
        table=table,
    )


# SQLite


def sqlite3_bank(path: Path, **options: Any) -> SqlBank:
    @contextmanager
    def connect() -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(path, **options)
        try:
            yield connection
        finally:
            connection.close()

    return SqlBank(
        connect,
        lambda c, name, amount: c.execute(INSERT.format("?", "?"), (name, amount)),
        lambda c, name: [row[0] for row in c.execute(SELECT.format("?"), (name,))],
        awaited=False,
    )


def aiosqlite_bank(path: Path) -> SqlBank:
    async def effects(connection: aiosqlite.Connection, name: str) -> list[int]:
        rows = await connection.execute_fetchall(SELECT.format("?"), (name,))
        return [row[0] for row in rows]

    async def add(connection: aiosqlite.Connection, name: str, amount: int) -> None:
        await connection.execute(INSERT.format("?", "?"), (name, amount))

    return SqlBank(lambda: aiosqlite.connect(path), add, effects, awaited=True)


# PostgreSQL


def psycopg_dsn(settings: PostgresSettings) -> str:
    return psycopg.conninfo.make_conninfo(
        host=settings["host"], port=settings["port"], user=settings["user"],
        password=settings["password"], dbname=settings["database"],
    )  # fmt: skip


def psycopg_bank(settings: PostgresSettings, *, autocommit: bool) -> SqlBank:
    @contextmanager
    def connect() -> Iterator[psycopg.Connection[Any]]:
        connection = psycopg.connect(psycopg_dsn(settings), autocommit=autocommit)
        try:
            yield connection
        finally:
            connection.close()

    return percent_bank(connect)


def apsycopg_bank(settings: PostgresSettings, *, autocommit: bool) -> SqlBank:
    @asynccontextmanager
    async def connect() -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        connection = await psycopg.AsyncConnection.connect(
            psycopg_dsn(settings), autocommit=autocommit
        )
        try:
            yield connection
        finally:
            await connection.close()

    return apercent_bank(connect)


def asyncpg_bank(settings: PostgresSettings) -> SqlBank:
    @asynccontextmanager
    async def connect() -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(**settings)
        try:
            yield connection
        finally:
            await connection.close()

    async def effects(connection: asyncpg.Connection, name: str) -> list[int]:
        return [row[0] for row in await connection.fetch(SELECT.format("$1"), name)]

    return SqlBank(
        connect,
        lambda c, name, amount: c.execute(INSERT.format("$1", "$2"), name, amount),
        effects,
        awaited=True,
    )


# MySQL and MariaDB


def mysql_options(server: MariadbServer, **more: Any) -> dict[str, Any]:
    options = {"host": server.host, "port": server.port, "user": server.user}
    return {**options, "password": server.password, "charset": "utf8mb4", **more}


def pymysql_bank(server: MariadbServer, *, autocommit: bool) -> SqlBank:
    @contextmanager
    def connect() -> Iterator[pymysql.Connection]:
        options = mysql_options(server, database="business", autocommit=autocommit)
        with pymysql.connect(**options) as connection:
            yield connection

    return percent_bank(connect)


class AsMysql(pymysql.connections.Connection):
    """A connection to a server that does not say that it is MariaDB."""

    def get_server_info(self) -> str:
        return "8.0.36"


def pymysql_as_mysql_bank(server: MariadbServer) -> SqlBank:
    """MariaDB understands the statements for MySQL as well."""
    return percent_bank(lambda: AsMysql(**mysql_options(server, database="business")))


def asyncmy_bank(server: MariadbServer, *, autocommit: bool) -> SqlBank:
    @asynccontextmanager
    async def connect() -> AsyncIterator[asyncmy.Connection]:
        options = mysql_options(server, db="business", autocommit=autocommit)
        async with asyncmy.connect(**options) as connection:
            yield connection

    return apercent_bank(connect)


def aiomysql_bank(server: MariadbServer, *, autocommit: bool) -> SqlBank:
    @asynccontextmanager
    async def connect() -> AsyncIterator[aiomysql.Connection]:
        options = mysql_options(server, db="business", autocommit=autocommit)
        connection = await aiomysql.connect(**options)
        try:
            yield connection
        finally:
            await connection.ensure_closed()

    return apercent_bank(connect)


# SQLAlchemy


def core_bank(url: str, **options: Any) -> SqlBank:
    engine = create_engine(url, poolclass=NullPool, **options)

    def effects(connection: Any, name: str) -> list[int]:
        rows = [row[0] for row in connection.execute(text(SELECT.format(":a")), {"a": name})]
        connection.rollback()
        return rows

    return SqlBank(
        engine.connect,
        lambda c, name, amount: c.execute(
            text(INSERT.format(":a", ":b")), {"a": name, "b": amount}
        ),
        effects,
        awaited=False,
    )


def orm_bank(url: str, **options: Any) -> SqlBank:
    engine = create_engine(url, poolclass=NullPool, **options)

    def effects(session: Session, name: str) -> list[int]:
        return list(
            session.scalars(text(SELECT.format(":a")), {"a": name})  # type: ignore[arg-type]
        )

    return SqlBank(
        lambda: Session(engine),
        lambda s, name, amount: s.add(Effect(name=name, amount=amount)),
        effects,
        awaited=False,
    )


def acore_bank(url: str, **options: Any) -> SqlBank:
    engine = create_async_engine(url, poolclass=NullPool, **options)

    async def effects(connection: Any, name: str) -> list[int]:
        rows = await connection.execute(text(SELECT.format(":a")), {"a": name})
        return [row[0] for row in rows]

    return SqlBank(
        lambda: closed_after(engine.connect()),
        lambda c, name, amount: c.execute(
            text(INSERT.format(":a", ":b")), {"a": name, "b": amount}
        ),
        effects,
        awaited=True,
    )


def aorm_bank(url: str, **options: Any) -> SqlBank:
    engine = create_async_engine(url, poolclass=NullPool, **options)

    async def add(session: AsyncSession, name: str, amount: int) -> None:
        session.add(Effect(name=name, amount=amount))

    async def effects(session: AsyncSession, name: str) -> list[int]:
        rows = await session.execute(text(SELECT.format(":a")), {"a": name})
        return [row[0] for row in rows]

    return SqlBank(lambda: AsyncSession(engine), add, effects, awaited=True)


@asynccontextmanager
async def closed_after(connection: AbstractAsyncContextManager[Any]) -> AsyncIterator[Any]:
    async with connection as opened:
        yield opened


def postgres_url(settings: PostgresSettings, driver: str) -> str:
    who = f"{settings['user']}:{quote(settings['password'])}"
    where = f"{settings['host']}:{settings['port']}/{settings['database']}"
    return f"postgresql+{driver}://{who}@{where}"


def mysql_url(server: MariadbServer, driver: str) -> str:
    who = f"{server.user}:{quote(server.password)}"
    return f"mysql+{driver}://{who}@{server.host}:{server.port}/business?charset=utf8mb4"


# Django


def django_bank(alias: str, **database: Any) -> SqlBank:
    """Over ``connections[alias]``; the settings of this process get that database."""
    if not django.conf.settings.configured:
        django.conf.settings.configure()
    if not django.apps.apps.ready:
        django.setup()
    from django.db import connections

    connections.settings[alias] = connections.configure_settings(
        {"default": {}, alias: {"CONN_HEALTH_CHECKS": False, **database}}
    )[alias]

    @contextmanager
    def connect() -> Iterator[Any]:
        connection = connections[alias]  # one a thread
        try:
            yield connection
        finally:
            connection.close()

    return percent_bank(connect)
