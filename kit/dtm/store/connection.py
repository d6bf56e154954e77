"""SQLite as apsw or the standard library speak it, under one small protocol.

apsw is preferred for the SQLite it brings along (a distribution's Python may have one that is years
old); either can be the only connection to a file. There is never a second one: up to 3.51.2 two
connections that write or checkpoint at once can corrupt the file (SQLite's WAL-reset bug), and one
is enough.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from kit.dtm.store import StoreCorrupt, StoreUnavailable
from kit.dtm.store.rows import Value

try:
    import apsw
except ImportError:
    DATABASE_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error,)
else:
    DATABASE_ERRORS = (sqlite3.Error, apsw.Error)

_FULL, _BUSY, _CORRUPT, _NOT_A_DATABASE = 13, 5, 11, 26
_FAILED_SYNCS = frozenset({1034, 1290})  # SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC

_WAY_OUT = {
    _FULL: "the disk is full, free some space",
    _BUSY: "another program holds a lock on it, close that one",
}


class Cursor(Protocol):
    """The answer to a statement."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Every row."""
        ...


class Connection(Protocol):
    """What the store asks of a driver. Statements outside a BEGIN commit on their own."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; SQLite gives one up by itself on some errors."""
        ...

    def execute(self, statement: str, bindings: Sequence[Value] = (), /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Value]], /) -> object:
        """Run one statement for each of ``rows``."""
        ...

    def changes(self) -> int:
        """How many rows the last ``execute`` of an INSERT, UPDATE or DELETE changed."""
        ...

    def close(self) -> None:
        """Checkpoint and close."""
        ...


Connect: TypeAlias = Callable[[str], Connection]
"""Opens the database at an absolute path; is called in the thread that uses it."""


def connect_apsw(path: str) -> Connection:
    """A connection of apsw.

    Raises:
        ImportError: apsw is not installed.
    """
    import apsw

    return apsw.Connection(path)


def connect_stdlib(path: str) -> Connection:
    """A connection of the standard library."""
    return sqlite3.connect(path, isolation_level=None, factory=_Standard)


def connect(path: str) -> Connection:
    """A connection of apsw where that is installed, else of the standard library."""
    try:
        return connect_apsw(path)
    except ImportError:
        return connect_stdlib(path)


class _Standard(sqlite3.Connection):
    """A connection that remembers how many rows a statement changed."""

    _changed = 0

    def execute(self, statement: str, bindings: Any = (), /) -> sqlite3.Cursor:
        """See :meth:`Connection.execute`."""
        cursor = super().execute(statement, bindings)
        self._changed = cursor.rowcount
        return cursor

    def changes(self) -> int:
        """See :meth:`Connection.changes`."""
        return self._changed


def sync_failed(error: BaseException) -> bool:
    """Whether the system could not bring written data to the disk.

    It may have dropped that data while marking it clean, so a second fsync that succeeds proves
    nothing (the "fsyncgate" of PostgreSQL, 2018): nothing can be promised any more.
    """
    return _code(error) in _FAILED_SYNCS


def busy(error: BaseException) -> bool:
    """Whether another program held the database for longer than ``busy_timeout``."""
    return _code(error) & 0xFF == _BUSY


def translated(error: Exception, path: str) -> Exception:
    """``error`` in the words of the store contract; itself when it is not the driver's."""
    if not isinstance(error, DATABASE_ERRORS):
        return error
    code = _code(error) & 0xFF
    if code in (_CORRUPT, _NOT_A_DATABASE):
        known: Exception = StoreCorrupt(
            f"{path}: {error}; restore it from a backup, or name another file"
        )
    else:
        way_out = f"; {_WAY_OUT[code]}" if code in _WAY_OUT else ""
        known = StoreUnavailable(f"{path}: {error}{way_out}")
    known.__cause__ = error
    return known


def _code(error: BaseException) -> int:
    """SQLite's extended result code, 0 for other errors."""
    for name in ("extendedresult", "sqlite_errorcode"):  # apsw, sqlite3
        code = getattr(error, name, None)
        if isinstance(code, int):
            return code
    return 0
