"""A store in MySQL or MariaDB, in dtm's tables, for any number of coordinators.

Theory of operation
    Five connections, so that nothing waits for what is slower than itself: one commits batches of
    creations and one batches of changes (:mod:`kit.dtm.store.mysql.writes`), one reads
    transactions, many in one round trip, one looks for work and keeps leases, one serves lists,
    key-values and clearing up. Each is opened when it is needed and again when it was lost.

    All durations are measured with the database's clock, which coordinators on different machines
    share.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Self

import structlog

from kit.clock import Clock
from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import (
    Change,
    Filter,
    Held,
    KeyValue,
    KvChanged,
    StoreCorrupt,
    StoreUnavailable,
)
from kit.dtm.store.group import Group
from kit.dtm.store.mysql import texts
from kit.dtm.store.mysql.link import ANSWER_WITHIN, Address, DuplicateError, Link, Result, Rows
from kit.dtm.store.mysql.schema import prepare
from kit.dtm.store.mysql.writes import Append, Create, Queued, Write, Writes, lease_ms
from kit.dtm.store.rows import Value, transaction
from kit.dtm.store.rules import refuse_misuse, refuse_twins, row_position

__all__ = ["MysqlStore"]

PATIENCE = ANSWER_WITHIN + 0.3
"""Seconds after which a caller hears that it waited in vain, wherever its request is."""

LOADED_TOGETHER = 64
"""Transactions read in one round trip: bounds the memory of large ones."""

RENEWED_TOGETHER = 1_000
"""Leases extended in one commit: bounds how long others wait for their rows."""

log = structlog.get_logger(__name__)


class MysqlStore:
    """A :class:`kit.dtm.store.Store` in MySQL 8 or MariaDB 10.6 and later.

    Args:
        host: of the server.
        port: of the server.
        user: needs all privileges on the database, and that of creating it when it is not there.
        password: of ``user``.
        db: the database; one of dtm is migrated and what it left unfinished goes on.
        clock: leases and due times are measured with; the database's when ``None``.
        tls: ``None`` for plain text.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 3306,
        user: str = "root",
        password: str = "",
        db: str = "dtm",
        *,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        address = Address(host, port, user, password, db, tls)
        self._clock = clock
        self._name = f"{address} {db}"
        self._creator, self._writer, self._scheduler, self._clerk = (
            Link(address) for _ in range(4)
        )
        self._reader = Link(address, "REPEATABLE READ")  # so that snapshots are consistent
        self._creates: Group[Queued, int | None] | None = None
        self._writes: Group[Queued, int | None] | None = None
        self._loads: Group[str, Held | None] | None = None
        self._weaknesses: tuple[str, ...] = ()

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """See :attr:`kit.dtm.store.Store.weaknesses`."""
        return self._weaknesses

    async def __aenter__(self) -> Self:
        """See :meth:`kit.dtm.store.Store.__aenter__`.

        Nothing is freed: a lease belongs to another coordinator until it is over.
        """
        try:
            self._weaknesses = await prepare(self._clerk)
        except BaseException:
            await self._clerk.aclose()
            raise
        self._creates = Group(self._name, Writes(self._creator, self._clock).commit)
        self._writes = Group(self._name, Writes(self._writer, self._clock).commit)
        self._loads = Group(self._name, self._load_all, max_batch=LOADED_TOGETHER)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """See :meth:`kit.dtm.store.Store.__aexit__`."""
        for group in (self._creates, self._writes, self._loads):
            if group is not None:
                await group.aclose()
        for link in (self._creator, self._writer, self._reader, self._scheduler, self._clerk):
            await link.aclose()

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        """See :meth:`kit.dtm.store.Store.create`."""
        refuse_twins(tx.gid, tx.branches)
        return _fence(await self._write(Create(tx, owner, lease_ms(lease_s))))

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        if self._loads is None:
            raise StoreUnavailable(f"{self._name} is not open")
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._loads.submit(gid)
        except TimeoutError:
            raise self._reader.unavailable("no answer in time") from None

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        refuse_misuse(change)
        return _fence(await self._write(change))

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        """See :meth:`kit.dtm.store.Store.append`."""
        await self._write(Append(gid, tuple(branches)))

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`.

        A transaction that cannot be read is logged as an error and left out, with a lease like the
        others: it is met again when that is over.
        """
        assert owner, "a claim names its owner"
        assert limit >= 0, "a negative limit would mean all"
        if limit == 0:
            return []

        async def work() -> list[Held]:
            _, _, now, due = await self._scheduler.ask(
                self._set_now(), texts.BEGIN, "SELECT @now", texts.lock_due(limit), begins=True
            )
            if not due.rows:
                await self._scheduler.ask(texts.COMMIT)
                return []
            lease_until = _number(now) + lease_ms(lease_s)
            ids = [_int(row[0]) for row in due.rows]
            gids = [str(row[-1]) for row in due.rows]
            _, branches, _ = await self._scheduler.ask(
                texts.take(ids, owner, lease_until),
                texts.select_branches(gids),
                texts.COMMIT,
                commits=True,
            )
            taken = [(row[0], _int(row[1]) + 1, owner, lease_until, *row[4:]) for row in due.rows]
            return _readable(_held_all(taken, branches.rows))

        return await self._scheduler.transact(work)

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """See :meth:`kit.dtm.store.Store.renew`."""
        lost: set[str] = set()
        for at in range(0, len(held), RENEWED_TOGETHER):
            lost |= await self._renew(owner, dict(held[at : at + RENEWED_TOGETHER]), lease_s)
        return lost

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        [found] = await self._read(self._scheduler, texts.NEXT_DUE)
        return _int(found.rows[0][0]) if found.rows else None

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        [ended] = await self._read(self._clerk, texts.select_ended(finished_before, limit))
        return await self.delete([str(row[0]) for row in ended.rows])

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        """See :meth:`kit.dtm.store.Store.expired`.

        A transaction that cannot be read is logged as an error and left out.
        """
        [ended] = await self._read(self._clerk, texts.select_ended(finished_before, limit))
        gids = [str(row[0]) for row in ended.rows]
        if not gids:
            return []
        globals_, branches = await self._read(
            self._clerk, texts.select_globals(gids), texts.select_branches(gids)
        )
        return [held.tx for held in _readable(_held_all(globals_.rows, branches.rows))]

    async def delete(self, gids: Sequence[str]) -> int:
        """See :meth:`kit.dtm.store.Store.delete`."""
        if not gids:
            return 0

        async def work() -> int:
            _, found = await self._clerk.ask(texts.BEGIN, texts.lock_finished(gids), begins=True)
            finished = [str(row[0]) for row in found.rows]
            deletes = texts.delete(finished) if finished else ()
            await self._clerk.ask(*deletes, texts.COMMIT, commits=True)
            return len(finished)

        return await self._clerk.transact(work)

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        """See :meth:`kit.dtm.store.Store.scan`; newest first.

        A transaction that cannot be read is logged as an error and left out.
        """
        assert limit >= 1, "a page of nothing never ends"
        rows, last = await self._read(
            self._clerk, *texts.page(row_position(position), limit, which)
        )
        following = ""
        if len(rows.rows) == limit:
            following = str(rows.rows[-1][0])
        elif last.rows:
            following = str(last.rows[0][0])
        return _readable(_held_all(rows.rows, ())), following

    async def reset_next_cron_time(self, gid: str) -> bool:
        """See :meth:`kit.dtm.store.Store.reset_next_cron_time`."""
        *_, found = await self._read(self._clerk, self._set_now(), *texts.make_due(gid))
        return bool(_number(found))

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        """See :meth:`kit.dtm.store.Store.reset_cron_time`."""
        assert limit >= 1, "a limit of nothing never ends"

        async def work() -> tuple[int, bool]:
            *_, later = await self._clerk.ask(
                self._set_now(), texts.BEGIN, texts.lock_later(later_than, limit + 1), begins=True
            )
            ids = [_int(row[0]) for row in later.rows]
            change = (texts.make_all_due(ids[:limit]),) if ids else ()
            await self._clerk.ask(*change, texts.COMMIT, commits=True)
            return len(ids[:limit]), len(ids) > limit

        return await self._clerk.transact(work)

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """See :meth:`kit.dtm.store.Store.find_kv`."""
        [found] = await self._read(self._clerk, texts.select_kv(cat, key))
        return [_key_value(row) for row in found.rows]

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """See :meth:`kit.dtm.store.Store.scan_kv`; newest first."""
        assert limit >= 1, "a page of nothing never ends"
        older_than = row_position(position)
        [found] = await self._read(self._clerk, texts.page_kv(cat, older_than, limit))
        page = [_key_value(row) for row in found.rows]
        return page, str(page[-1].id) if len(page) == limit else ""

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.create_kv`."""
        try:
            await self._change_kv(texts.insert_kv(cat, key, value))
        except DuplicateError:
            raise KvChanged(cat, key) from None

    async def update_kv(self, read: KeyValue, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.update_kv`."""
        if not await self._change_kv(texts.update_kv(read.cat, read.key, read.version, value)):
            raise KvChanged(read.cat, read.key)

    async def delete_kv(self, cat: str, key: str) -> bool:
        """See :meth:`kit.dtm.store.Store.delete_kv`."""
        return bool(await self._change_kv(texts.delete_kv(cat, key)))

    async def clear(self) -> None:
        """See :meth:`kit.dtm.store.Store.clear`."""
        await self._read(self._clerk, texts.BEGIN, *texts.CLEAR, texts.COMMIT)

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        if self._clock is not None:
            return self._clock.now_ms()
        [found] = await self._read(self._scheduler, f"SELECT {texts.DATABASE_NOW}")
        return _number(found)

    async def _write(self, write: Write) -> int | None:
        group = self._creates if isinstance(write, Create) else self._writes
        if group is None:
            raise StoreUnavailable(f"{self._name} is not open")
        queued = Queued(write)
        try:
            async with asyncio.timeout(PATIENCE):
                return await group.submit(queued)
        except TimeoutError:
            queued.abandoned = not queued.started
            raise self._writer.unavailable("no answer in time", unknown=queued.started) from None

    async def _load_all(self, gids: Sequence[str]) -> list[Held | Exception | None]:
        async def work() -> tuple[Result, Result]:
            _, globals_, branches, _ = await self._reader.ask(
                texts.SNAPSHOT,
                texts.select_globals(gids),
                texts.select_branches(gids),
                texts.COMMIT,
                begins=True,
            )
            return globals_, branches

        globals_, branches = await self._reader.transact(work)
        found = dict(_held_all(globals_.rows, branches.rows))
        return [found.get(gid) for gid in gids]

    async def _renew(self, owner: str, held: dict[str, int], lease_s: float) -> set[str]:
        async def work() -> set[str]:
            *_, found = await self._scheduler.ask(
                self._set_now(), texts.BEGIN, texts.lock_held(owner, held), begins=True
            )
            kept = {
                str(gid): _int(id_) for gid, id_, fence in found.rows if held[str(gid)] == fence
            }
            change = (texts.extend(kept.values(), lease_ms(lease_s)),) if kept else ()
            await self._scheduler.ask(*change, texts.COMMIT, commits=True)
            return held.keys() - kept.keys()

        return await self._scheduler.transact(work)

    async def _read(self, link: Link, *statements: str) -> list[Result]:
        """What ``statements`` give, which may be run twice."""
        return await link.transact(lambda: link.ask(*statements, begins=True))

    async def _change_kv(self, statement: str) -> int:
        async def work() -> int:
            _, changed = await self._clerk.ask(
                self._set_now(), statement, begins=True, commits=True
            )
            return changed.met

        return await self._clerk.transact(work)

    def _set_now(self) -> str:
        return texts.set_now(None if self._clock is None else self._clock.now_ms())


def _held_all(globals_: Rows, branches: Rows) -> list[tuple[str, Held | StoreCorrupt]]:
    """Each gid with its transaction, or with why that cannot be read."""
    of_gid: dict[Value, list[Sequence[Value]]] = defaultdict(list)
    for _, gid, *branch in sorted(branches, key=itemgetter(0)):
        of_gid[gid].append(branch)
    found: list[tuple[str, Held | StoreCorrupt]] = []
    for id_, fence, owner, lease_until, *columns in globals_:
        gid = columns[-1]
        try:
            tx = transaction(columns, of_gid[gid])
            held = Held(tx, _int(fence), str(owner), _int(lease_until), _int(id_))
            found.append((str(gid), held))
        except StoreCorrupt as exc:
            found.append((str(gid), exc))
    return found


def _readable(found: Iterable[tuple[str, Held | StoreCorrupt]]) -> list[Held]:
    readable = []
    for gid, held in found:
        if isinstance(held, StoreCorrupt):
            log.error("a stored transaction cannot be read", gid=gid, error=held.message)
        else:
            readable.append(held)
    return readable


def _key_value(row: Sequence[Value]) -> KeyValue:
    id_, cat, key, value, version, created, updated = row
    return KeyValue(
        str(cat), str(key), str(value), _int(version), _int(created), _int(updated), _int(id_)
    )


def _fence(answer: int | None) -> int:
    assert answer is not None
    return answer


def _number(result: Result) -> int:
    [[number]] = result.rows
    return _int(number)


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value
