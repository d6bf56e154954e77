"""A connection to MySQL or MariaDB that is opened anew when it was lost.

All that is known about the driver is here. Texts hold several statements, parted by ``;``, and make
one round trip; their values are literals of :mod:`kit.dtm.store.mysql.texts`.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import asyncmy
from asyncmy import errors
from asyncmy.constants.CLIENT import FOUND_ROWS

from kit.dtm.store import StoreUnavailable
from kit.dtm.store.rows import Value

ANSWER_WITHIN = 2.5
"""Seconds from the first try to the last answer, waiting for the connection included."""

ATTEMPTS = 8
"""How often a transaction that lost a deadlock is tried."""

TRUSTED_FOR = 5.0
"""Seconds that a connection may have rested without being asked whether it still lives; fewer than
:data:`ABANDONED_AFTER`, so that no write meets the moment in which the server closes it."""

ABANDONED_AFTER = 10
"""Seconds after which the server closes a silent session: what a frozen coordinator has locked is
free again."""

SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
"""Of every session, whatever the server's is: the literals rely on the backslash, and what does not
fit a column is refused instead of cut off."""

# Numbers of errors: mariadb.com/kb/en/mariadb-error-codes, mysqld_error.h.
DUPLICATE_KEY = 1062
UNKNOWN_DATABASE = 1049
NO_SUCH_TABLE = 1146
_SUBQUERY_OF_ROWS = 1242
_NOT_SENT = 2006  # the driver's: the connection was found closed before anything was written
_LOCK_WAIT = 1205
_CONTENDED = {1020, 1213}  # changed since read, deadlock
_ENDED = {0, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 2006, 2013, 2055}
_WAYS_OUT = {
    1040: "raise max_connections, or run fewer coordinators",
    1044: "create the database and grant the user all privileges on it",
    1045: "check User and Password of the Store settings",
    1142: "grant the user all privileges on the database",
    1290: "name the primary server, not a read-only one",
    1836: "name the primary server, not a read-only one",
    2003: "start the server, or correct Host and Port of the Store settings",
}

T = TypeVar("T")
Rows = Sequence[Sequence[Value]]


class ContendedError(Exception):
    """Somebody else's locks were in the way: nothing was written, the same may be tried again."""


class LockedError(ContendedError):
    """As long as the session waits for a lock, a second, nobody gave it back."""


class RefusedError(Exception):
    """What :func:`kit.dtm.store.mysql.texts.lock_or_fail` asked for is not so."""


class DuplicateError(Exception):
    """A row with this key exists; nothing was written."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and who asks; shown without the password."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement gave: its rows, or how many rows it met."""

    rows: Rows
    met: int


class Link:
    """One connection at a time, used by one transaction after the other.

    Args:
        address: where to.
        isolation: level of its sessions.
    """

    def __init__(self, address: Address, isolation: str = "READ COMMITTED") -> None:
        self.address = address
        self._isolation = isolation
        self._lock = asyncio.Lock()
        self._connection: Any = None
        self._used_at = 0.0
        self._deadline = 0.0
        self._max_packet = 0

    async def transact(
        self, work: Callable[[], Awaitable[T]], *, within: float = ANSWER_WITHIN
    ) -> T:
        """Give what ``work`` gives, which calls :meth:`ask`; try again what lost a deadlock.

        What ``work`` has begun and not committed when it raises is rolled back.

        Args:
            work: may run several times.
            within: seconds.

        Raises:
            StoreUnavailable: no answer in time, or none that helps.
        """
        deadline = asyncio.get_running_loop().time() + within
        try:
            async with asyncio.timeout_at(deadline):
                await self._lock.acquire()
        except TimeoutError:
            raise self.unavailable(f"busy for {within} s") from None
        try:
            self._deadline = deadline
            for _ in range(ATTEMPTS - 1):
                try:
                    return await self._attempt(work)
                except ContendedError:
                    continue
            try:
                return await self._attempt(work)
            except ContendedError as exc:
                raise self.unavailable(f"{exc}; tried {ATTEMPTS} times") from exc
        finally:
            self._lock.release()

    async def ask(
        self, *statements: str, begins: bool = False, commits: bool = False
    ) -> list[Result]:
        """Send ``statements`` in one round trip and give what each gave.

        Args:
            *statements: those behind one that fails are not run.
            begins: nothing of a transaction was sent before, so a connection that turns out to be
                dead may be replaced.
            commits: the last one makes the writes durable, so without an answer nobody knows.

        Raises:
            ContendedError: see there.
            DuplicateError: see there.
            RefusedError: see there.
            StoreUnavailable: the server does not answer, or refuses.
            ValueError: a value is larger than the server takes, or does not fit its column.
        """
        text = ";".join(statements).encode()
        try:
            async with asyncio.timeout_at(self._deadline):
                rested = self._connection is not None
                await self._ready()
                self._refuse_oversize(text)
                try:
                    return await self._send(text)
                except errors.MySQLError as exc:
                    gone = _number(exc) == _NOT_SENT or (_number(exc) in _ENDED and not commits)
                    if not (begins and rested and gone):
                        raise
                    self.drop()
                    await self._ready()
                    return await self._send(text)
        except TimeoutError:
            connected = self._connection is not None
            self.drop()
            raise self.unavailable("no answer in time", unknown=commits and connected) from None
        except errors.MySQLError as exc:
            raise self._translated(exc, commits=commits) from exc

    async def ready(self) -> None:
        """Be connected; inside of :meth:`transact`, as :meth:`ask`.

        Raises:
            StoreUnavailable: the server does not answer, or refuses.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._ready()
        except TimeoutError:
            self.drop()
            raise self.unavailable("no answer in time") from None
        except errors.MySQLError as exc:
            raise self._translated(exc, commits=False) from exc

    async def aclose(self) -> None:
        """Say goodbye and close, once the running transaction is over."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    async with asyncio.timeout(ANSWER_WITHIN):
                        await connection.ensure_closed()
                except (errors.MySQLError, OSError, TimeoutError):
                    connection.close()

    def drop(self) -> None:
        """Close without a word; the server rolls back what was open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def unavailable(self, reason: str, *, unknown: bool = False) -> StoreUnavailable:
        """The error that says where and why, and whether something may have been written."""
        outcome = "; whether it was written is unknown" if unknown else ""
        return StoreUnavailable(f"{self.address}: {reason}{outcome}")

    async def _attempt(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except Exception:
            if self._connection is not None:
                try:
                    await self.ask("ROLLBACK")
                except Exception:
                    self.drop()
                    raise
            raise
        except BaseException:  # cancelled: how far the server came is unknown
            self.drop()
            raise

    async def _send(self, text: bytes) -> list[Result]:
        connection = self._connection
        results = []
        await connection.query(text)
        while True:
            given = connection._result  # noqa: SLF001 - cursors log warnings, which show values
            results.append(Result(given.rows or (), given.affected_rows))
            if not given.has_next:
                self._used_at = asyncio.get_running_loop().time()
                return results
            await connection.next_result()

    async def _ready(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._connection is not None and now - self._used_at > TRUSTED_FOR:
            try:
                async with asyncio.timeout(ANSWER_WITHIN / 2):
                    await self._connection.ping(reconnect=False)
            except (errors.MySQLError, TimeoutError):
                self.drop()
        if self._connection is None:
            self._connection = await self._connect()
            self._used_at = asyncio.get_running_loop().time()

    async def _connect(self) -> Any:
        address = self.address
        connection: Any = await asyncmy.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database or None,
            ssl=address.tls,
            charset="utf8mb4",
            autocommit=None,
            client_flag=FOUND_ROWS,
            program_name="dtm",
        )
        try:
            await connection.query(
                "SET NAMES utf8mb4, autocommit = 1, innodb_lock_wait_timeout = 1, "
                f"wait_timeout = {ABANDONED_AFTER}, sql_mode = '{SQL_MODE}'"
            )
            await connection.query(f"SET SESSION TRANSACTION ISOLATION LEVEL {self._isolation}")
            await connection.query("SELECT @@max_allowed_packet")
            [[self._max_packet]] = connection._result.rows  # noqa: SLF001 - see _send
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_oversize(self, text: bytes) -> None:
        if len(text) + 1 > self._max_packet:
            raise ValueError(
                f"a write of {len(text)} bytes is more than {self.address} takes; set its "
                f"max_allowed_packet, which is {self._max_packet}, to 64M"
            )

    def _translated(self, exc: errors.MySQLError, *, commits: bool) -> Exception:
        number = _number(exc)
        said = f"{exc.args[-1] if exc.args else exc} (error {number})"
        if number == DUPLICATE_KEY:
            return DuplicateError(said)
        if number == _SUBQUERY_OF_ROWS:
            return RefusedError(said)
        if number == _LOCK_WAIT:
            return LockedError(said)
        if number in _CONTENDED:
            return ContendedError(said)
        if isinstance(exc, errors.DataError):
            return ValueError(f"{self.address}: {said}")
        ended = number in _ENDED
        if ended:
            self.drop()
        if number in _WAYS_OUT:
            said = f"{said}; {_WAYS_OUT[number]}"
        return ServerError(
            number,
            self.unavailable(said, unknown=commits and ended and number != _NOT_SENT).message,
        )

    def elsewhere(self, database: str) -> "Link":
        """A link to another database of the same server; empty for none."""
        return Link(replace(self.address, database=database), self._isolation)


class ServerError(StoreUnavailable):
    """What the server, or the way to it, refuses.

    Attributes:
        number: MySQL's.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def _number(exc: errors.MySQLError) -> int:
    return exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
