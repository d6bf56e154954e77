"""How a batch of writes becomes one commit.

Theory of operation
    Nearly every batch is one round trip. One of creations inserts, and a gid that exists already
    makes the whole of it fail. One of changes locks the rows that are as their writers say, fails
    unless that is all of them, writes with two statements whatever the number of rows, and commits.

    A batch that failed, or is neither, takes two: the first locks the rows of all its transactions
    and reads who may change them; then each request is decided here, in order and in view of those
    before it; the second round trip writes what was accepted and commits.

    Rows are locked in the order of their gids, so that coordinators wait for each other and do not
    deadlock; where they do all the same, the batch is tried again. A row that another session has
    locked is left out at first, so that its neighbours do not wait; what wants to change it is
    tried again for a second.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from kit.clock import Clock
from kit.dtm.core.model import Branch, BranchKey, Transaction
from kit.dtm.store import BranchExists, Change, GidExists, LostLease, StoreUnavailable
from kit.dtm.store.mysql import texts
from kit.dtm.store.mysql.link import (
    ContendedError,
    DuplicateError,
    Link,
    LockedError,
    RefusedError,
    Result,
)
from kit.dtm.store.rows import Value
from kit.dtm.store.rules import merged
from kit.dtm.wire import Status

BATCH_BYTES = 8 << 20
"""Payloads of one commit, about: bounds its memory, and the time of its neighbours."""


@dataclass(frozen=True, slots=True)
class Create:
    """See :meth:`kit.dtm.store.Store.create`."""

    tx: Transaction
    owner: str
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Append:
    """See :meth:`kit.dtm.store.Store.append`."""

    gid: str
    branches: tuple[Branch, ...]


_PAUSES = (0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.4)
"""Seconds before each new look at rows which another session has locked. Other coordinators need
milliseconds; whoever needs more than a second does not keep the writes behind waiting for longer.
"""

Write: TypeAlias = Create | Change | Append
Answer: TypeAlias = int | Exception | None


_LOCKED = ContendedError("another session changes this transaction")
"""The answer to a write that has to wait."""


@dataclass(slots=True)
class Queued:
    """A write on its way.

    Attributes:
        started: it may have been sent.
        abandoned: nobody waits for it any more, and it shall not be sent.
    """

    write: Write
    started: bool = False
    abandoned: bool = False


@dataclass(slots=True)
class _Row:
    """A transaction as it is, or as the batch will leave it.

    Attributes:
        new: it is not stored yet.
        lease_until: an expression for the database beside what it comes to.
        tx: to be written, when anything but branches is.
        stored: keys of its branches, where somebody appends.
        branches: to be written.
    """

    new: bool
    status: str
    fence: int
    owner: str
    lease_until: int
    tx: Transaction | None = None
    stored: set[BranchKey] = field(default_factory=set)
    branches: tuple[Branch, ...] = ()


class Writes:
    """Commits batches over one connection.

    Args:
        link: whose isolation is READ COMMITTED.
        clock: of leases and stamps; the database's without one.
    """

    def __init__(self, link: Link, clock: Clock | None) -> None:
        self._link = link
        self._clock = clock

    async def commit(self, batch: Sequence[Queued]) -> list[Answer]:
        """Write what may be written, durably, and give the answers; raises nothing."""
        return [answer for part in _parts(batch) for answer in await self._answers(part)]

    async def _answers(self, part: Sequence[Queued]) -> list[Answer]:
        try:
            await self._link.transact(self._link.ready)
            waited_for = [queued for queued in part if not queued.abandoned]
            for queued in waited_for:
                queued.started = True
            given = iter(await self._commit([queued.write for queued in waited_for]))
        except StoreUnavailable as exc:
            return [exc] * len(part)
        except Exception as exc:  # noqa: BLE001 - whatever it was, its neighbours shall not suffer
            if len(part) > 1:
                return [answer for one in part for answer in await self._answers([one])]
            return [exc]
        gone = StoreUnavailable("nobody waits for this write any more")
        return [gone if queued.abandoned else next(given) for queued in part]

    async def _commit(self, writes: Sequence[Write]) -> list[Answer]:
        if not writes:
            return []
        creates = {write.tx.gid: write for write in writes if isinstance(write, Create)}
        if len(creates) == len(writes):
            try:
                await self._link.transact(lambda: self._insert(list(creates.values())))
            except DuplicateError:
                pass  # one of them exists: look which
            else:
                return [1] * len(writes)
        changes = {write.tx.gid: write for write in writes if isinstance(write, Change)}
        if len(changes) == len(writes):
            try:
                await self._link.transact(lambda: self._replace(list(changes.values())))
            except RefusedError:
                pass  # one of them may not be made, or has to wait: look which
            else:
                return [change.fence + change.take for change in changes.values()]
        answers = await self._link.transact(lambda: self._decide(writes))
        if locked := [write for write, at in zip(writes, answers, strict=True) if at is _LOCKED]:
            later = iter(await self._when_unlocked(locked))
            answers = [next(later) if answer is _LOCKED else answer for answer in answers]
        return answers

    async def _when_unlocked(self, writes: Sequence[Write]) -> list[Answer]:
        """Write those whose rows become free, and say of the others that they did not."""
        answers: list[Answer] = [_LOCKED] * len(writes)
        for pause in _PAUSES:
            left = [n for n, answer in enumerate(answers) if answer is _LOCKED]
            if not left:
                break
            await asyncio.sleep(pause)
            again = [writes[n] for n in left]
            given: Sequence[Answer]
            try:
                given = await self._link.transact(partial(self._decide, again))
            except StoreUnavailable as exc:  # the server is gone now, what was answered stays
                given = [exc] * len(again)
            for n, answer in zip(left, given, strict=True):
                answers[n] = answer
        refused = self._link.unavailable("another session has locked this transaction; try again")
        return [refused if answer is _LOCKED else answer for answer in answers]

    async def _insert(self, creates: Sequence[Create]) -> None:
        begin = (texts.set_now(self._now()), texts.BEGIN)
        rows = (
            texts.global_values(
                create.tx, create.owner, _lease_end(create.lease_ms) if create.owner else "0", 1
            )
            for create in creates
        )
        branches = (
            texts.branch_values(create.tx.gid, branch)
            for create in creates
            for branch in create.tx.branches
        )
        statements = [*begin, *texts.insert_globals(rows), *texts.upsert_branches(branches)]
        try:
            await self._send([*statements, texts.COMMIT], begins=True)
        except LockedError as exc:  # by whoever changes a transaction of the same gid
            raise DuplicateError(str(exc)) from exc

    async def _replace(self, changes: Sequence[Change]) -> None:
        begin = (
            texts.set_now(self._now()),
            texts.BEGIN,
            texts.lock_or_fail(changes),
        )
        rows = (
            texts.global_values(
                change.tx,
                "" if change.release else change.owner,
                "0" if change.release else _lease_end(lease_ms(change.lease_s)),
                change.fence + change.take,
            )
            for change in changes
        )
        branches = (
            texts.branch_values(change.tx.gid, branch)
            for change in changes
            for branch in change.branches
        )
        statements = [*begin, *texts.replace_globals(rows), *texts.upsert_branches(branches)]
        await self._send([*statements, texts.COMMIT], begins=True)

    async def _decide(self, writes: Sequence[Write]) -> list[Answer]:
        gids = sorted({_gid(write) for write in writes})
        appended = sorted({write.gid for write in writes if isinstance(write, Append)})
        read = [texts.set_now(self._now()), texts.BEGIN, "SELECT @now"]
        read.append(texts.lock_globals(gids))
        if appended:
            read.append(texts.branch_keys(appended))
        _, _, now, globals_, *keys = await self._link.ask(*read, begins=True)
        rows = {
            str(gid): _Row(False, str(status), _int(fence), str(owner), _int(lease_until))
            for gid, status, fence, owner, lease_until in globals_.rows
        }
        for result in keys:
            for gid, branch_id, op in result.rows:
                if (row := rows.get(str(gid))) is not None:
                    row.stored.add((str(branch_id), str(op)))
        missing = [gid for gid in gids if gid not in rows]
        locked = await self._existing(missing) if missing else frozenset()
        decided = _Decisions(_now(now), rows, locked)
        answers = [decided.answer(write) for write in writes]
        try:
            await self._send([*decided.statements(), texts.COMMIT])
        except DuplicateError as exc:  # another coordinator created one of them just now
            raise ContendedError(str(exc)) from exc
        return answers

    async def _existing(self, gids: Sequence[str]) -> frozenset[str]:
        [found] = await self._link.ask(texts.existing(gids))
        return frozenset(str(row[0]) for row in found.rows)

    async def _send(self, statements: Sequence[str], *, begins: bool = False) -> None:
        packets = list(texts.packets(statements))
        for n, packet in enumerate(packets):
            last = n == len(packets) - 1
            await self._link.ask(*packet, begins=begins and n == 0, commits=last)

    def _now(self) -> int | None:
        return self._clock.now_ms() if self._clock is not None else None


class _Decisions:
    """Who may write what; the rules of :class:`kit.dtm.store.memory.MemoryStore`.

    Args:
        now: the instant of the batch.
        rows: the transactions by gid.
        locked: gids of those that could not be read, because another session changes them.
    """

    def __init__(self, now: int, rows: dict[str, _Row], locked: frozenset[str]) -> None:
        self._now = now
        self._rows = rows
        self._locked = locked

    def answer(self, write: Write) -> Answer:
        """Accept a write, or say why not."""
        if isinstance(write, Create):
            return self._create(write)
        if _gid(write) in self._locked:
            return _LOCKED
        match write:
            case Change():
                return self._save(write)
            case Append():
                return self._append(write)

    def statements(self) -> Iterator[str]:
        """What writes everything that was accepted."""
        written = {gid: row for gid, row in self._rows.items() if row.tx is not None}
        new = (_values(row) for row in written.values() if row.new)
        old = (_values(row) for row in written.values() if not row.new)
        branches = (
            texts.branch_values(gid, branch)
            for gid, row in self._rows.items()
            for branch in row.branches
        )
        yield from texts.insert_globals(new)
        yield from texts.replace_globals(old)
        yield from texts.upsert_branches(branches)

    def _create(self, create: Create) -> Answer:
        tx = create.tx
        if tx.gid in self._rows or tx.gid in self._locked:
            return GidExists(tx.gid)
        lease_until = self._now + create.lease_ms if create.owner else 0
        self._rows[tx.gid] = _Row(
            True,
            tx.status,
            1,
            create.owner,
            lease_until,
            tx,
            {b.key for b in tx.branches},
            tx.branches,
        )
        return 1

    def _save(self, change: Change) -> Answer:
        tx = change.tx
        row = self._rows.get(tx.gid)
        if row is None or Status(row.status).terminal or row.fence != change.fence:
            return LostLease(tx.gid)
        may_take = change.take and (change.force or row.lease_until <= self._now)
        if row.owner != change.owner and not may_take:
            return LostLease(tx.gid)
        row.tx, row.status = tx, tx.status
        row.fence += change.take
        row.owner, row.lease_until = (
            ("", 0) if change.release else (change.owner, self._now + lease_ms(change.lease_s))
        )
        self._add(row, change.branches)
        return row.fence

    def _append(self, append: Append) -> Answer:
        row = self._rows.get(append.gid)
        if row is None or row.status != Status.PREPARED:
            return LostLease(append.gid)
        keys = {branch.key for branch in append.branches}
        if len(keys) < len(append.branches) or keys & row.stored:
            return BranchExists(append.gid)
        self._add(row, append.branches)
        return None

    def _add(self, row: _Row, branches: tuple[Branch, ...]) -> None:
        row.stored.update(branch.key for branch in branches)
        row.branches = merged(row.branches, branches) if row.branches else branches


def lease_ms(seconds: float) -> int:
    """A lease's length in milliseconds."""
    return round(seconds * 1000)


def _lease_end(length_ms: int) -> str:
    return f"@now + {length_ms}"


def _values(row: _Row) -> str:
    assert row.tx is not None
    return texts.global_values(row.tx, row.owner, str(row.lease_until), row.fence)


def _gid(write: Write) -> str:
    return write.gid if isinstance(write, Append) else write.tx.gid


def _size(write: Write) -> int:
    if isinstance(write, Create):
        branches, texts_ = write.tx.branches, len(write.tx.custom_data)
    elif isinstance(write, Append):
        branches, texts_ = write.branches, 0
    else:
        branches, texts_ = write.branches, len(write.tx.custom_data) + len(write.tx.result)
    return texts_ + sum(len(branch.payload) for branch in branches)


def _parts(batch: Sequence[Queued]) -> Iterator[list[Queued]]:
    """``batch`` in parts of about :data:`BATCH_BYTES` at most."""
    part: list[Queued] = []
    size = 0
    for queued in batch:
        more = _size(queued.write)
        if part and size + more > BATCH_BYTES:
            yield part
            part, size = [], 0
        part.append(queued)
        size += more
    if part:
        yield part


def _now(result: Result) -> int:
    [[now]] = result.rows
    return _int(now)


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value
