"""A store in PostgreSQL, shared by any number of coordinators; opens a database of dtm as it is.

Theory of operation
    *Writes.* New transactions, changes and appended branches that arrive together are one statement
    on one connection, hence one commit (:mod:`kit.dtm.store.group`). Refusals are found by the
    statement itself, row by row, so nobody fails with a neighbour. The requests of a batch are
    sorted by gid and rows are locked in that order, so coordinators seldom wait for each other
    crosswise; where they do, the server ends one statement and it is sent again.

    *Everything else* takes turns on a few other connections. Claims skip rows that somebody writes.

    *Time* is the database's, so clocks of coordinators do not matter.

    *Trouble.* A call is answered within 3 seconds or raises
    :class:`~kit.dtm.store.StoreUnavailable`; the next one finds a new connection by itself. When an
    answer to a write got lost, the message says that its outcome is unknown.

Not for a pooler that hands out the connection after each transaction: statements are prepared once
for each session.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Self, TypeAlias

import structlog

from kit.clock import Clock
from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import (
    BranchExists,
    Change,
    Filter,
    GidExists,
    Held,
    KeyValue,
    KvChanged,
    LostLease,
    StoreCorrupt,
    StoreUnavailable,
)
from kit.dtm.store.group import Group
from kit.dtm.store.postgres import statements
from kit.dtm.store.postgres.schema import migrate
from kit.dtm.store.postgres.session import (
    ANSWERS_WITHIN,
    Address,
    Connection,
    Row,
    Session,
    Sessions,
    is_unique_violation,
    opened,
)
from kit.dtm.store.rows import GLOBAL_COLUMNS, branch_row, global_row, transaction
from kit.dtm.store.rules import merged, refuse_misuse, refuse_twins, row_position

READERS = 4
"""Connections for all that is not written in groups."""

SCANNED_AT_ONCE = 20_000
"""Rows that a page of a filtered list looks at, whether they match or not."""

_UNKNOWN = "whether this was written is unknown"
_UNKNOWN_CLAIM = "what may have been claimed is free again when its lease is over"
_NEWEST = 2**63 - 1
_GID = GLOBAL_COLUMNS.index("gid")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Create:
    gid: str
    row: Row
    branches: Sequence[Row]
    asked: float

    def refusal(self) -> Exception:
        return GidExists(self.gid)


@dataclass(frozen=True, slots=True)
class _Save:
    gid: str
    row: Row
    branches: Sequence[Row]
    asked: float

    def refusal(self) -> Exception:
        return LostLease(self.gid)


@dataclass(frozen=True, slots=True)
class _Append:
    gid: str
    branches: Sequence[Row]
    asked: float
    row: Row = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row", (self.gid,))

    def refusal(self) -> Exception:
        return LostLease(self.gid)


_Write: TypeAlias = _Create | _Save | _Append


class PostgresStore:
    """A :class:`kit.dtm.store.Store` in a schema of a PostgreSQL database.

    Args:
        host: name or address of the server.
        port: of the server.
        user: who asks; has to own the tables, or the schema while they are not there.
        password: of ``user``; empty: none is asked for, or ``~/.pgpass`` has it.
        database: has to exist.
        schema: made if it is missing and ``user`` may.
        clock: leases and due times are measured with; ``None``: the clock of the database, which is
            the right one wherever more than one coordinator runs.
        ssl: a context, or ``disable``, ``prefer``, ``require``.
    """

    def __init__(
        self,
        *,
        host: str,
        user: str,
        port: int = 5432,
        password: str = "",
        database: str = "dtm",
        schema: str = "public",
        clock: Clock | None = None,
        ssl: ssl.SSLContext | str = "prefer",
    ) -> None:
        self._address = Address(host, port, user, password, database, schema, ssl)
        self._clock = clock
        self._weaknesses: tuple[str, ...] = ()
        self._writer = Session(self._address)
        self._readers: Sessions | None = None
        self._group: Group[_Write, None] | None = None

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """See :attr:`kit.dtm.store.Store.weaknesses`."""
        return self._weaknesses

    async def __aenter__(self) -> Self:
        """See :meth:`kit.dtm.store.Store.__aenter__`.

        Connecting takes at most 3 seconds; a first start on many rows of dtm's takes longer.
        """
        await opened(self._address, self._prepare)
        self._readers = Sessions(self._address, READERS)
        self._group = Group(str(self._address), self._write, key=attrgetter("gid"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """See :meth:`kit.dtm.store.Store.__aexit__`."""
        if self._group is not None:
            await self._group.aclose()
            await self._writer.aclose()
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await readers.aclose()

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        """See :meth:`kit.dtm.store.Store.create`."""
        refuse_twins(tx.gid, tx.branches)
        row = (*global_row(tx), owner, _ms(lease_s))
        await self._submit(_Create(tx.gid, row, _rows(tx.gid, tx.branches), _time()))
        return 1

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        found = await self._fetch(statements.LOAD, gid)
        return _held(found[0]) if found else None

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        refuse_misuse(change)
        gid = change.tx.gid
        row = (
            *global_row(change.tx),
            change.fence, change.owner, change.take, change.release, change.force,
            _ms(change.lease_s),
        )  # fmt: skip
        branches = merged((), change.branches)  # the last of twins counts
        await self._submit(_Save(gid, row, _rows(gid, branches), _time()))
        return change.fence + change.take

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        """See :meth:`kit.dtm.store.Store.append`."""
        if len({branch.key for branch in branches}) < len(branches):
            raise BranchExists(gid)
        await self._submit(_Append(gid, _rows(gid, branches), _time()))

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`.

        A transaction that cannot be read is logged as an error and left out, with a lease like the
        others: it is met again when that is over.
        """
        assert owner, "a claim names its owner"
        assert limit >= 0, "a negative limit would mean all"
        async with self._running.session() as (session, deadline):
            taken = await session.fetch(
                statements.TAKE, self._now, limit, owner, _ms(lease_s),
                deadline=deadline, effect=_UNKNOWN_CLAIM,
            )  # fmt: skip
            if not taken:
                return []
            rows = await session.fetch(
                statements.BRANCHES_OF, [row[_GID] for row in taken],
                deadline=deadline, effect=_UNKNOWN_CLAIM,
            )  # fmt: skip
        branches: defaultdict[str, list[Row]] = defaultdict(list)
        for gid, *branch in rows:
            branches[gid].append(tuple(branch))
        claimed = []
        for *head, _ in taken:
            gid = head[_GID]
            try:
                claimed.append(_held((*head, branches[gid])))
            except StoreCorrupt as exc:
                log.error("a stored transaction cannot be read", gid=gid, error=str(exc.message))  # noqa: TRY400
        return claimed

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """See :meth:`kit.dtm.store.Store.renew`."""
        held = sorted(held)  # rows are locked in the order in which groups lock them
        gids, fences = [gid for gid, _ in held], [fence for _, fence in held]
        renewed = await self._fetch(
            statements.RENEW, self._now, owner, _ms(lease_s), gids, fences, effect=_UNKNOWN
        )
        return set(gids).difference(gid for (gid,) in renewed)

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        found = await self._fetch(statements.NEXT_DUE)
        return _only(found) if found else None

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        assert limit >= 0, "a negative limit would mean all"
        return _only(await self._fetch(statements.PURGE, finished_before, limit, effect=_UNKNOWN))

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        """See :meth:`kit.dtm.store.Store.expired`."""
        assert limit >= 0, "a negative limit would mean all"
        rows = await self._fetch(statements.EXPIRED, finished_before, limit)
        return [_held(row).tx for row in rows]

    async def delete(self, gids: Sequence[str]) -> int:
        """See :meth:`kit.dtm.store.Store.delete`."""
        return _only(await self._fetch(statements.DELETE, sorted(gids), effect=_UNKNOWN))

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        """See :meth:`kit.dtm.store.Store.scan`; newest first."""
        assert limit >= 1, "a page of nothing never ends"
        below = _below(position)
        reach = await self._fetch(statements.SCAN_REACHES, below, SCANNED_AT_ONCE - 1)
        last = _only(reach) if reach else 0
        rows = await self._fetch(
            statements.SCAN, below, last, which.status, which.trans_type,
            which.created_from, which.created_until, limit,
        )  # fmt: skip
        page = [_held((*row, None)) for row in rows]
        if len(page) == limit:
            return page, str(page[-1].id)
        return page, str(last) if last else ""

    async def reset_next_cron_time(self, gid: str) -> bool:
        """See :meth:`kit.dtm.store.Store.reset_next_cron_time`."""
        return bool(await self._fetch(statements.RESET_ONE, self._now, gid, effect=_UNKNOWN))

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        """See :meth:`kit.dtm.store.Store.reset_cron_time`."""
        assert limit >= 1, "a limit of nothing never ends"
        later = _only(
            await self._fetch(statements.RESET, self._now, later_than, limit, effect=_UNKNOWN)
        )
        return min(later, limit), later > limit

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """See :meth:`kit.dtm.store.Store.find_kv`."""
        return [KeyValue(*row) for row in await self._fetch(statements.FIND_KV, cat, key)]

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """See :meth:`kit.dtm.store.Store.scan_kv`; newest first."""
        assert limit >= 1, "a page of nothing never ends"
        rows = await self._fetch(statements.SCAN_KV, cat, _below(position), limit)
        page = [KeyValue(*row) for row in rows]
        return page, str(page[-1].id) if len(page) == limit else ""

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.create_kv`."""
        if not await self._fetch(statements.CREATE_KV, self._now, cat, key, value, effect=_UNKNOWN):
            raise KvChanged(cat, key)

    async def update_kv(self, read: KeyValue, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.update_kv`."""
        if not await self._fetch(
            statements.UPDATE_KV, self._now, read.cat, read.key, read.version, value,
            effect=_UNKNOWN,
        ):  # fmt: skip
            raise KvChanged(read.cat, read.key)

    async def delete_kv(self, cat: str, key: str) -> bool:
        """See :meth:`kit.dtm.store.Store.delete_kv`."""
        return bool(await self._fetch(statements.DELETE_KV, cat, key, effect=_UNKNOWN))

    async def clear(self) -> None:
        """See :meth:`kit.dtm.store.Store.clear`."""
        await self._fetch(statements.CLEAR, effect=_UNKNOWN)

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        return _only(await self._fetch(statements.NOW, self._now))

    @property
    def _now(self) -> int | None:
        """What statements take for the time; ``None``: what the database's clock says."""
        return None if self._clock is None else self._clock.now_ms()

    @property
    def _running(self) -> Sessions:
        if self._readers is None:
            raise StoreUnavailable(f"{self._address} is not open")
        return self._readers

    async def _fetch(self, query: str, *args: object, effect: str = "") -> list[Row]:
        return await self._running.fetch(query, *args, effect=effect)

    async def _submit(self, request: _Write) -> None:
        if self._group is None:
            raise StoreUnavailable(f"{self._address} is not open")
        await self._group.submit(request)

    async def _write(self, batch: Sequence[_Write]) -> list[Exception | None]:
        """Commit ``batch``, in which each gid is there once.

        The deadline is that of the request that waits longest.
        """
        ordered: list[_Write] = sorted(batch, key=attrgetter("gid"))
        creates = [request for request in ordered if isinstance(request, _Create)]
        saves = [request for request in ordered if isinstance(request, _Save)]
        appends = [request for request in ordered if isinstance(request, _Append)]
        parts = (
            [request.row for request in creates],
            [request.row for request in saves],
            [row for part in (creates, saves) for request in part for row in request.branches],
            [row for request in appends for row in request.branches],
            [request.row for request in appends],
        )
        arrays = (
            array
            for rows, columns in zip(parts, statements.WRITE_COLUMNS, strict=True)
            for array in (zip(*rows, strict=True) if rows else ((),) * len(columns))
        )
        deadline = batch[0].asked + ANSWERS_WITHIN
        try:
            done = await self._writer.fetch(
                statements.WRITE, self._now, *arrays, deadline=deadline, effect=_UNKNOWN
            )
        except Exception as exc:
            # Only appended branches may not be there yet. Alone, the one that was refused is known.
            if len(batch) == 1 and is_unique_violation(exc):
                return [BranchExists(batch[0].gid)]
            raise
        written = {gid for (gid,) in done}
        return [None if request.gid in written else request.refusal() for request in batch]

    async def _prepare(self, connection: Connection) -> None:
        await migrate(connection, str(self._address), self._address.schema)
        self._weaknesses = await _weaknesses(connection)


_WEAK = {
    "fsync": "power loss may destroy the database; set fsync = on in postgresql.conf",
    "full_page_writes": "power loss may tear pages of it; set full_page_writes = on in "
    "postgresql.conf",
    "synchronous_commit": "a crash of the server forgets the last commits; "
    "ALTER ROLE … SET synchronous_commit = on",
}


async def _weaknesses(connection: Connection) -> tuple[str, ...]:
    found = []
    for setting, consequence in _WEAK.items():
        if await connection.fetchval("SELECT current_setting($1)", setting) == "off":
            found.append(f"PostgreSQL runs with {setting} = off: {consequence}")
    return tuple(found)


def _rows(gid: str, branches: Iterable[Branch]) -> list[Row]:
    return [(gid, *branch_row(branch)) for branch in branches]


def _held(row: Row) -> Held:
    *columns, fence, owner, lease_until, row_id, branches = row
    return Held(transaction(columns, branches or ()), fence, owner, lease_until, row_id)


def _only(rows: Sequence[Row]) -> int:
    [(value,)] = rows
    return int(value)


def _below(position: str) -> int:
    left_off = row_position(position)
    return _NEWEST if left_off is None else left_off


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _time() -> float:
    return asyncio.get_running_loop().time()
