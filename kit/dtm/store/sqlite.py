"""A store in one SQLite file, for one coordinator.

Theory of operation
    One thread owns the only connection and commits in groups (:mod:`kit.dtm.store.batch`); reads go
    the same way, so they see every write that was asked for before them. The file is in WAL mode
    with ``synchronous=FULL``: a commit is one fsync of the log.

    A lock on ``<path>.lock`` keeps a second process out. Whatever lease is found at the start was
    therefore held by a process that is dead: it is given back, and its transaction is due at once.

    Each operation (:mod:`kit.dtm.store.operations`) is a few statements that find their rows by an
    index; only a page that is filtered reads transactions that it does not give back.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar, TypeVarTuple

from kit.clock import Clock, SystemClock
from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import (
    Change,
    Filter,
    Held,
    KeyValue,
    StoreUnavailable,
    lock,
    operations,
    statements,
)
from kit.dtm.store.batch import Writer
from kit.dtm.store.connection import DATABASE_ERRORS, Connect, Connection, connect
from kit.dtm.store.rules import row_position
from kit.dtm.store.schema import migrate

BUSY_TIMEOUT_MS = 5_000
"""How long another program, such as a backup, may hold the database before requests fail."""

CHECKPOINT_PAGES = 1_000
"""Pages of 4 KiB in the log at which a commit brings them into the database; bounds the log.

Checkpoints from a second thread, after the answers, and every 4,000 or 16,000 pages were measured:
neither rate nor p99 changed, and with the thread a busy log never came to its end. A checkpoint
whose fsync fails is simply tried again: it writes every page anew, from a log that is durable.
"""

CACHE_KIB = 16_384
"""Pages kept in memory; most of what random gids touch in a million transactions."""

T = TypeVar("T")
Args = TypeVarTuple("Args")


_JOURNALS = {"off": "nowhere", "memory": "in memory"}
_LOSSES = {
    0: "a power loss may damage the whole file with synchronous off",
    1: "a power loss may lose the last commits with synchronous normal",
}


def end_process(message: str) -> None:
    """Say ``message`` on stderr and end the process with code 1, without any clean-up."""
    sys.stderr.write(f"fatal: {message}\n")
    sys.stderr.flush()
    os._exit(1)


class SqliteStore:
    """A :class:`kit.dtm.store.Store` in a file.

    Args:
        path: of the database; made, readable by its owner alone, when it does not exist. Its folder
            must exist.
        clock: leases and due times are measured with.
        synchronous: ``full`` survives power loss; ``normal`` may lose the last commits in one,
            ``off`` the whole file.
        connect: which driver.
        on_fatal: told, in another thread, why nothing can be written any more: an fsync failed, so
            what the disk holds is unknown. Every call raises
            :class:`~kit.dtm.store.StoreUnavailable` from then on.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Clock | None = None,
        *,
        synchronous: Literal["full", "normal", "off"] = "full",
        connect: Connect = connect,
        on_fatal: Callable[[str], None] = end_process,
    ) -> None:
        self._path = Path(path).absolute()
        self._clock = clock or SystemClock()
        self._synchronous = synchronous
        self._connect = connect
        self._on_fatal = on_fatal
        self._lock = -1
        self._weaknesses: tuple[str, ...] = ()
        self._writer: Writer | None = None

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """See :attr:`kit.dtm.store.Store.weaknesses`; from what SQLite says of itself."""
        return self._weaknesses

    async def __aenter__(self) -> Self:
        """See :meth:`kit.dtm.store.Store.__aenter__`."""
        self._writer = Writer(str(self._path), self._open, self._close, self._on_fatal)
        await self._writer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """See :meth:`kit.dtm.store.Store.__aexit__`."""
        if self._writer is not None:
            await self._writer.close()

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        """See :meth:`kit.dtm.store.Store.create`."""
        return await self._submit(operations.create, self._clock, tx, owner, lease_s)

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        return await self._submit(operations.load, gid)

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        return await self._submit(operations.save, self._clock, change)

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        """See :meth:`kit.dtm.store.Store.append`."""
        await self._submit(operations.append, self._clock, gid, tuple(branches))

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`.

        A transaction that cannot be read is logged as an error and left out, with a lease like the
        others: it is met again when that is over.
        """
        return await self._submit(operations.claim, self._clock, owner, limit, lease_s)

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """See :meth:`kit.dtm.store.Store.renew`."""
        return await self._submit(operations.renew, self._clock, owner, tuple(held), lease_s)

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        return await self._submit(operations.next_due)

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        return await self._submit(operations.purge, finished_before, limit)

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        """See :meth:`kit.dtm.store.Store.expired`.

        A transaction that cannot be read is logged as an error and left out, and stays.
        """
        return await self._submit(operations.expired, finished_before, limit)

    async def delete(self, gids: Sequence[str]) -> int:
        """See :meth:`kit.dtm.store.Store.delete`."""
        return await self._submit(operations.delete, tuple(gids))

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        """See :meth:`kit.dtm.store.Store.scan`.

        Newest first. A transaction that cannot be read is logged as an error and left out.
        """
        return await self._submit(operations.scan, row_position(position), limit, which)

    async def reset_next_cron_time(self, gid: str) -> bool:
        """See :meth:`kit.dtm.store.Store.reset_next_cron_time`."""
        return await self._submit(operations.reset_next_cron_time, self._clock, gid)

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        """See :meth:`kit.dtm.store.Store.reset_cron_time`."""
        return await self._submit(operations.reset_cron_time, self._clock, later_than, limit)

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """See :meth:`kit.dtm.store.Store.find_kv`."""
        return await self._submit(operations.find_kv, cat, key)

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """See :meth:`kit.dtm.store.Store.scan_kv`."""
        return await self._submit(operations.scan_kv, cat, row_position(position), limit)

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.create_kv`."""
        await self._submit(operations.create_kv, self._clock, cat, key, value)

    async def update_kv(self, read: KeyValue, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.update_kv`."""
        await self._submit(operations.update_kv, self._clock, read, value)

    async def delete_kv(self, cat: str, key: str) -> bool:
        """See :meth:`kit.dtm.store.Store.delete_kv`."""
        return await self._submit(operations.delete_kv, cat, key)

    async def clear(self) -> None:
        """See :meth:`kit.dtm.store.Store.clear`."""
        await self._submit(operations.clear)

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        return self._clock.now_ms()

    def _submit(
        self, operation: Callable[[Connection, *Args], T], *args: *Args
    ) -> asyncio.Future[T]:
        if self._writer is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._writer.submit(operation, *args)

    # Everything below runs in the writer's thread.

    def _open(self) -> Connection:
        self._lock = lock.hold(str(self._path))
        try:
            return self._opened()
        except BaseException:
            lock.release(self._lock)
            raise

    def _opened(self) -> Connection:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as exc:
            raise StoreUnavailable(f"{self._path}: {exc}; let this user write to it") from exc
        db = self._connect(str(self._path))
        try:
            for pragma in (
                f"busy_timeout = {BUSY_TIMEOUT_MS}",
                "journal_mode = WAL",
                f"synchronous = {self._synchronous}",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                f"cache_size = -{CACHE_KIB}",
            ):
                db.execute(f"PRAGMA {pragma}").fetchall()
            migrate(db, str(self._path))
            db.execute(statements.FREE, (self._clock.now_ms(),))
            self._weaknesses = tuple(_weaknesses(db))
        except BaseException:
            db.close()
            raise
        return db

    def _close(self, db: Connection) -> None:
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except DATABASE_ERRORS:
            pass  # no room for it: the log stays, the next start reads it
        db.close()
        lock.release(self._lock)


def _weaknesses(db: Connection) -> Iterator[str]:
    [(journal,)] = db.execute("PRAGMA journal_mode").fetchall()
    [(level,)] = db.execute("PRAGMA synchronous").fetchall()
    # Some file systems refuse wal; the journal that SQLite then keeps is slower and as durable.
    if journal in ("off", "memory"):
        yield (
            f"a crash may damage the whole file, SQLite keeps its journal {_JOURNALS[journal]}; "
            f"move the file to a local disk"
        )
    if level in _LOSSES:
        yield f"{_LOSSES[level]}; set synchronous to full"
