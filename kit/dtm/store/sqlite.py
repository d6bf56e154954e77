"""A store in one SQLite file, for one coordinator.

Theory of operation
    One thread owns the only connection and commits in groups (:mod:`kit.dtm.store.batch`); reads go
    the same way, so they see every write that was asked for before them. The file is in WAL mode
    with ``synchronous=FULL``: a commit is one fsync of the log.

    A lock on ``<path>.lock`` keeps a second process out. Whatever lease is found at the start was
    therefore held by a process that is dead: it is given back, and its transaction is due at once.

    Each operation is one to three statements that find their rows by an index; none of them reads a
    transaction that it does not give back or change.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import structlog

from kit.clock import Clock, SystemClock
from kit.dtm.core.model import Transaction
from kit.dtm.store import (
    Change,
    GidExists,
    Held,
    LostLease,
    StoreCorrupt,
    StoreUnavailable,
    lock,
    statements,
)
from kit.dtm.store.batch import Writer
from kit.dtm.store.connection import DATABASE_ERRORS, Connect, Connection, connect
from kit.dtm.store.rows import Value, branch_row, global_row, transaction
from kit.dtm.store.rules import refuse_twins
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

log = structlog.get_logger(__name__)


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
        self._durability = ""
        self._writer: Writer | None = None

    @property
    def durability(self) -> str:
        """What SQLite says it does for an acknowledged write: ``full``, ``normal`` or ``off``.

        Only ``full`` survives power loss; all survive kill -9. Known once the store is open.
        """
        return self._durability

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
        return await self._running.submit(self._create, tx, owner, lease_s)

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        return await self._running.submit(self._load, gid)

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        return await self._running.submit(self._save, change)

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`.

        A transaction that cannot be read is logged as an error and left out, with a lease like the
        others: it is met again when that is over.
        """
        return await self._running.submit(self._claim, owner, limit, lease_s)

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """See :meth:`kit.dtm.store.Store.renew`."""
        return await self._running.submit(self._renew, owner, tuple(held), lease_s)

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        return await self._running.submit(self._next_due)

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        return await self._running.submit(self._purge, finished_before, limit)

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        return self._clock.now_ms()

    @property
    def _running(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable(f"{self._path} is not open")
        return self._writer

    # Everything below runs in the writer's thread; operations refuse before they write.

    def _create(self, db: Connection, tx: Transaction, owner: str, lease_s: float) -> int:
        now = self._clock.now_ms()
        lease_until = _after(now, lease_s) if owner else 0
        db.execute(statements.INSERT_GLOBAL, (*global_row(tx), owner, lease_until))
        if not db.changes():
            raise GidExists(tx.gid)
        refuse_twins(tx.gid, tx.branches)
        db.executemany(
            statements.INSERT_BRANCH,
            [(tx.gid, *branch_row(branch), now, now) for branch in tx.branches],
        )
        return 1

    def _load(self, db: Connection, gid: str) -> Held | None:
        found = db.execute(statements.SELECT_GLOBAL, (gid,)).fetchall()
        if not found:
            return None
        return _held(found[0], db.execute(statements.SELECT_BRANCHES, (gid,)).fetchall())

    def _save(self, db: Connection, change: Change) -> int:
        assert change.owner, "a change names its writer"
        now = self._clock.now_ms()
        tx, owner = change.tx, change.owner
        lease = ("", 0) if change.release else (owner, _after(now, change.lease_s))
        free_before = now if change.take else -1  # without `take` no foreign lease is old enough
        *columns, _ = global_row(tx)
        db.execute(
            statements.UPDATE_GLOBAL,
            (*columns, *lease, int(change.take), tx.gid, change.fence, owner, free_before),
        )
        if not db.changes():
            raise LostLease(tx.gid)
        if change.branches:
            db.executemany(
                statements.UPSERT_BRANCH,
                [(tx.gid, *branch_row(branch), now, now) for branch in change.branches],
            )
        return change.fence + change.take

    def _claim(self, db: Connection, owner: str, limit: int, lease_s: float) -> list[Held]:
        assert owner, "a claim names its owner"
        assert limit >= 0, "a negative limit would mean all"
        now = self._clock.now_ms()
        lease_until = _after(now, lease_s)
        due = db.execute(statements.SELECT_DUE, (now, limit)).fetchall()
        if not due:
            return []
        ids = json.dumps([row[-1] for row in due])
        db.execute(statements.TAKE, (owner, lease_until, ids))
        branches = defaultdict(list)
        for gid, *branch in db.execute(statements.SELECT_BRANCHES_OF, (ids,)).fetchall():
            branches[gid].append(branch)
        claimed = []
        for *columns, fence, _ in due:
            gid = columns[-1]
            try:
                tx = transaction(columns, branches[gid])
            except StoreCorrupt as exc:
                log.error("a stored transaction cannot be read", gid=gid, error=str(exc.message))  # noqa: TRY400
                continue
            claimed.append(Held(tx, _int(fence) + 1, owner, lease_until))
        return claimed

    def _renew(
        self, db: Connection, owner: str, held: tuple[tuple[str, int], ...], lease_s: float
    ) -> set[str]:
        lease_until = _after(self._clock.now_ms(), lease_s)
        lost = set()
        for gid, fence in held:  # a few µs each; SQLite's JSON would cut a gid at a NUL
            db.execute(statements.RENEW, (lease_until, gid, owner, fence))
            if not db.changes():
                lost.add(gid)
        return lost

    def _next_due(self, db: Connection) -> int | None:
        found = db.execute(statements.SELECT_NEXT_DUE).fetchall()
        return _int(found[0][0]) if found else None

    def _purge(self, db: Connection, finished_before: int, limit: int) -> int:
        assert limit >= 0, "a negative limit would mean all"
        ended = db.execute(statements.SELECT_ENDED, (finished_before, limit)).fetchall()
        ids = json.dumps([row[0] for row in ended])
        db.execute(statements.DELETE_BRANCHES, (ids,))
        db.execute(statements.DELETE_GLOBALS, (ids,))
        return len(ended)

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
            self._durability = _durability(db)
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


def _durability(db: Connection) -> str:
    [(journal,)] = db.execute("PRAGMA journal_mode").fetchall()
    [(level,)] = db.execute("PRAGMA synchronous").fetchall()
    # Some file systems refuse wal; the journal that SQLite then keeps is slower and as durable.
    return "off" if journal in ("off", "memory") else ("off", "normal", "full", "full")[_int(level)]


def _held(row: Sequence[Value], branches: Sequence[Sequence[Value]]) -> Held:
    *columns, fence, owner, lease_until = row
    return Held(transaction(columns, branches), _int(fence), str(owner), _int(lease_until))


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _after(now_ms: int, seconds: float) -> int:
    return now_ms + round(seconds * 1000)
