"""Connections that heal, and the words for what ails them.

A :class:`Session` is one connection that is made when it is needed and made anew after it broke. A
statement has until a deadline; then its connection is dropped, because whoever sent it cannot know
what became of it. asyncpg's own time limit would first ask the server to stop, which a server that
does not answer does not do either.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from kit.dtm.store import StoreCorrupt, StoreUnavailable
from kit.dtm.store.postgres.schema import quoted

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row: TypeAlias = tuple[Any, ...]

ANSWERS_WITHIN = 2.7
"""Seconds from a question to its answer or :class:`StoreUnavailable`."""

STATEMENT_TIMEOUT_MS = 2_500
"""When the server itself gives a statement up, so that none waits for a lock after its sender."""

MAX_WAITING = 1_000
"""Callers that wait for a session; one more is refused."""

ATTEMPTS = 3
"""For a statement that the server ended to resolve a deadlock, and to read on a new connection."""

PLANNER_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Of our sessions alone: every statement of this package finds its rows by an index.

One that is planned while a table is empty would read all of it ever after: on fresh tables that
halved the rate.
"""

_SETTINGS = {
    "application_name": "kit coordinator",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    **PLANNER_SETTINGS,
}

_RETRIED = {"40001", "40P01"}  # serialization failure, deadlock
_BUSY = {"25006", "55P03", "57014"}  # read-only, lock not available, statement_timeout
_UNAVAILABLE_CLASSES = {"08", "53", "57", "58", "XX"}
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)

_WAYS_OUT = {
    "28P01": "check Store.User and Store.Password",
    "28000": "check Store.User, Store.Password and pg_hba.conf",
    "3D000": "create the database, or check Store.Db",
    "3F000": "create the schema, or check Store.Schema",
    "42501": "grant the privilege, or name another schema in Store.Schema",
    "25006": "name the primary in Store.Host",
    "53300": "raise max_connections of the server, or start fewer coordinators",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is and who asks.

    Attributes:
        ssl: a context, or asyncpg's words for it: ``prefer``, ``require``, ``disable`` …
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    schema: str
    ssl: ssl.SSLContext | str

    def __str__(self) -> str:
        return f"PostgreSQL at {self.host}:{self.port}, database {self.database!r}"

    async def connect(self, **settings: str) -> Connection:
        """A new connection; ``settings`` are added to those of every session."""
        return await asyncpg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password or None,
            database=self.database,
            ssl=self.ssl,
            timeout=ANSWERS_WITHIN,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={**_SETTINGS, "search_path": quoted(self.schema), **settings},
        )

    def unavailable(self, exc: BaseException, effect: str = "") -> StoreUnavailable:
        """``exc`` in words: where, why, the way out, and whether something was written."""
        if isinstance(exc, TimeoutError):
            why = f"no answer in {ANSWERS_WITHIN} s"
        else:
            why = str(exc).strip() or type(exc).__name__
        way_out = _WAYS_OUT.get(_state(exc), "")
        return StoreUnavailable("; ".join(filter(None, (f"{self}: {why}", way_out, effect))))


class Session:
    """One connection, used by one caller at a time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None

    async def fetch(
        self, query: str, *args: object, deadline: float, effect: str = ""
    ) -> list[Row]:
        """The rows that ``query`` gives; it is one transaction.

        Args:
            query: with ``$1`` and so on.
            args: for these.
            deadline: by the clock of the event loop.
            effect: what a lost answer leaves open, for the message. Empty: nothing, so that a
                query whose connection broke is asked again.

        Raises:
            StoreUnavailable: no answer, or none but that it cannot be done now.
            StoreCorrupt: the tables are not what they were.
            asyncpg.PostgresError: what the query itself is refused for.
        """
        for left in reversed(range(ATTEMPTS)):
            await self._connect(deadline)
            try:
                return await self._ask(query, args, deadline)
            except TimeoutError as exc:
                raise self._address.unavailable(exc, effect) from exc
            except asyncpg.DataError:
                raise
            except _LOST as exc:
                self.drop()
                if effect or not left:
                    raise self._address.unavailable(exc, effect) from exc
            except asyncpg.PostgresError as exc:
                state = _state(exc)
                if state in _RETRIED and left:
                    continue
                if not self.connected and not effect and left:
                    continue
                if state in _RETRIED | _BUSY or state[:2] in _UNAVAILABLE_CLASSES:
                    if state == "25006":
                        self.drop()  # what was the primary is none any more
                    lost = effect if not self.connected else ""
                    raise self._address.unavailable(exc, lost) from exc
                if state in ("42P01", "42703"):
                    raise StoreCorrupt(f"{self._address}: {exc}; its tables were changed") from exc
                raise
        raise AssertionError("the last attempt returns or raises")

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        return self._connection is not None and not self._connection.is_closed()

    def drop(self) -> None:
        """Break the connection; the next question makes a new one."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def aclose(self) -> None:
        """Say good-bye if the server listens."""
        if self._connection is not None and self.connected:
            try:
                async with asyncio.timeout(1.0):
                    await self._connection.close()
            except (TimeoutError, asyncpg.PostgresError, *_LOST):
                pass  # it is dropped all the same
        self.drop()

    async def _connect(self, deadline: float) -> None:
        if self.connected:
            return
        self.drop()
        try:
            async with asyncio.timeout_at(deadline):
                self._connection = await self._address.connect()
        except (TimeoutError, asyncpg.PostgresError, *_LOST) as exc:
            raise self._address.unavailable(exc) from exc

    async def _ask(self, query: str, args: tuple[object, ...], deadline: float) -> list[Row]:
        connection = self._connection
        assert connection is not None, "a question follows a connection"
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            connection.terminate()  # whoever waits hears of it at once

        timer = asyncio.get_running_loop().call_at(deadline, give_up)
        try:
            return [tuple(row) for row in await connection.fetch(query, *args)]
        except asyncio.CancelledError:
            self.drop()  # its answer would come for the next question
            raise
        except Exception:
            if late:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()


class Sessions:
    """A few sessions that callers take turns with."""

    def __init__(self, address: Address, number: int) -> None:
        self._address = address
        self._idle = [Session(address) for _ in range(number)]
        self._all = tuple(self._idle)
        self._turns = asyncio.Semaphore(number)
        self._waiting = 0

    async def fetch(self, query: str, *args: object, effect: str = "") -> list[Row]:
        """See :meth:`Session.fetch`; the wait for a session counts as well."""
        async with self.session() as (session, deadline):
            return await session.fetch(query, *args, deadline=deadline, effect=effect)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Session, float]]:
        """A session for the block, and until when it has to be done."""
        deadline = asyncio.get_running_loop().time() + ANSWERS_WITHIN
        if self._waiting >= MAX_WAITING:
            raise StoreUnavailable(
                f"{self._address}: {MAX_WAITING} questions wait already, try again later"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError as exc:
            raise self._address.unavailable(exc) from exc
        finally:
            self._waiting -= 1
        session = self._take()
        try:
            yield session, deadline
        finally:
            self._idle.append(session)
            self._turns.release()

    def _take(self) -> Session:
        """One that is connected if there is one: the server may not allow another connection."""
        rested = reversed(self._idle)
        session = next((each for each in rested if each.connected), self._idle[-1])
        self._idle.remove(session)
        return session

    async def aclose(self) -> None:
        """Close them all."""
        await asyncio.gather(*(session.aclose() for session in self._all))


async def opened(address: Address, use: Callable[[Connection], Awaitable[None]]) -> None:
    """Run ``use`` on a connection whose statements may take their time.

    Raises:
        StoreUnavailable: it cannot be made, or ``use`` was refused.
    """
    connection = None
    try:
        connection = await address.connect(statement_timeout="0")
        await use(connection)
        await connection.close(timeout=1.0)
    except (TimeoutError, asyncpg.PostgresError, *_LOST) as exc:
        raise address.unavailable(exc) from exc
    finally:
        if connection is not None:
            connection.terminate()


def _state(exc: BaseException) -> str:
    return getattr(exc, "sqlstate", None) or ""


def is_unique_violation(exc: BaseException) -> bool:
    """Whether a row that was to be new is there already."""
    return _state(exc) == "23505"
