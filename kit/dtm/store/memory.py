"""A store that forgets everything with its process.

For tests, and as the plainest reading of the contract. No method suspends, so each is one
atomic step on the event loop.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Self, TypeVar

from kit.clock import Clock, SystemClock
from kit.dtm.core.model import Branch, BranchKey, Transaction
from kit.dtm.store import (
    BranchExists,
    Change,
    Filter,
    GidExists,
    Held,
    KeyValue,
    KvChanged,
    LostLease,
)
from kit.dtm.store.rules import (
    ended_at,
    matches,
    merged,
    refuse_misuse,
    refuse_twins,
    row_position,
)
from kit.dtm.wire import Status
from kit.value import changed

R = TypeVar("R", Held, KeyValue)


class MemoryStore:
    """A :class:`kit.dtm.store.Store` in a dictionary; looking for work walks over all of it."""

    weaknesses = ("everything is lost when the process ends; use Driver: sqlite",)
    """See :attr:`kit.dtm.store.Store.weaknesses`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._ids = count(1)
        self._stored: dict[str, Held] = {}  # both in creation order
        self._kv: dict[tuple[str, str], KeyValue] = {}

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Nothing to close; what is stored stays until the object goes."""

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        """See :meth:`kit.dtm.store.Store.create`."""
        refuse_twins(tx.gid, tx.branches)
        if tx.gid in self._stored:
            raise GidExists(tx.gid)
        lease_until = self._lease_end(lease_s) if owner else 0
        tx = changed(tx, branches=self._stamped(tx.branches), round=None)
        self._stored[tx.gid] = Held(tx, 1, owner, lease_until, next(self._ids))
        return 1

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        return self._stored.get(gid)

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        refuse_misuse(change)
        gid = change.tx.gid
        held = self._stored.get(gid)
        if held is None or held.tx.status.terminal or held.fence != change.fence:
            raise LostLease(gid)
        may_take = change.take and (change.force or held.lease_until <= self._clock.now_ms())
        if held.owner != change.owner and not may_take:
            raise LostLease(gid)
        written = self._stamped(
            change.branches, {branch.key: branch for branch in held.tx.branches}
        )
        tx = changed(change.tx, branches=merged(held.tx.branches, written), round=None)
        fence = change.fence + change.take
        lease = ("", 0) if change.release else (change.owner, self._lease_end(change.lease_s))
        self._stored[gid] = Held(tx, fence, *lease, held.id)
        return fence

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        """See :meth:`kit.dtm.store.Store.append`."""
        held = self._stored.get(gid)
        if held is None or held.tx.status is not Status.PREPARED:
            raise LostLease(gid)
        together = merged(held.tx.branches, self._stamped(branches))
        if len(together) < len(held.tx.branches) + len(branches):
            raise BranchExists(gid)
        self._stored[gid] = changed(held, tx=changed(held.tx, branches=together))

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`."""
        assert owner, "a claim names its owner"
        assert limit >= 0, "a negative limit would mean all"
        now = self._clock.now_ms()
        until = self._lease_end(lease_s)
        due = sorted((wait for wait in self._waits() if wait[0] <= now), key=_instant)
        claimed = [
            changed(held, fence=held.fence + 1, owner=owner, lease_until=until)
            for _, held in due[:limit]
        ]
        self._stored.update((held.tx.gid, held) for held in claimed)
        return claimed

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """See :meth:`kit.dtm.store.Store.renew`."""
        lost = set()
        for gid, fence in held:
            stored = self._stored.get(gid)
            if (
                stored is None
                or stored.tx.status.terminal
                or (stored.owner, stored.fence) != (owner, fence)
            ):
                lost.add(gid)
            else:
                self._stored[gid] = changed(stored, lease_until=self._lease_end(lease_s))
        return lost

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        return min((at for at, _ in self._waits()), default=None)

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        return await self.delete([tx.gid for tx in await self.expired(finished_before, limit)])

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        """See :meth:`kit.dtm.store.Store.expired`."""
        assert limit >= 0, "a negative limit would mean all"
        finished = (held.tx for held in self._stored.values() if held.tx.status.terminal)
        return [tx for tx in finished if ended_at(tx) < finished_before][:limit]

    async def delete(self, gids: Sequence[str]) -> int:
        """See :meth:`kit.dtm.store.Store.delete`."""
        deleted = 0
        for gid in gids:
            held = self._stored.get(gid)
            if held is not None and held.tx.status.terminal:
                del self._stored[gid]
                deleted += 1
        return deleted

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        """See :meth:`kit.dtm.store.Store.scan`; newest first."""
        found, following = _page(
            (held for held in reversed(self._stored.values()) if matches(held.tx, which)),
            position,
            limit,
        )
        return [changed(held, tx=changed(held.tx, branches=())) for held in found], following

    async def reset_next_cron_time(self, gid: str) -> bool:
        """See :meth:`kit.dtm.store.Store.reset_next_cron_time`."""
        held = self._stored.get(gid)
        if held is None:
            return False
        if not held.tx.status.terminal:
            self._make_due(held)
        return True

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        """See :meth:`kit.dtm.store.Store.reset_cron_time`."""
        assert limit >= 1, "a limit of nothing never ends"
        later = [
            held
            for _, held in self._waits()
            if held.tx.next_cron_time is not None and held.tx.next_cron_time > later_than
        ]
        for held in later[:limit]:
            self._make_due(held)
        return len(later[:limit]), len(later) > limit

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """See :meth:`kit.dtm.store.Store.find_kv`."""
        found = (kv for kv in self._kv.values() if cat in ("", kv.cat) and key in ("", kv.key))
        return sorted(found, key=lambda kv: (kv.key, kv.cat))

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """See :meth:`kit.dtm.store.Store.scan_kv`."""
        entries = (kv for kv in reversed(self._kv.values()) if kv.cat == cat)
        return _page(entries, position, limit)

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.create_kv`."""
        if (cat, key) in self._kv:
            raise KvChanged(cat, key)
        now = self._clock.now_ms()
        self._kv[cat, key] = KeyValue(cat, key, value, 1, now, now, next(self._ids))

    async def update_kv(self, read: KeyValue, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.update_kv`."""
        kv = self._kv.get((read.cat, read.key))
        if kv is None or kv.version != read.version:
            raise KvChanged(read.cat, read.key)
        self._kv[read.cat, read.key] = changed(
            kv, value=value, version=kv.version + 1, update_time=self._clock.now_ms()
        )

    async def delete_kv(self, cat: str, key: str) -> bool:
        """See :meth:`kit.dtm.store.Store.delete_kv`."""
        return self._kv.pop((cat, key), None) is not None

    async def clear(self) -> None:
        """See :meth:`kit.dtm.store.Store.clear`."""
        self._stored.clear()
        self._kv.clear()

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        return self._clock.now_ms()

    def _lease_end(self, lease_s: float) -> int:
        return self._clock.now_ms() + round(lease_s * 1000)

    def _stamped(
        self, branches: Iterable[Branch], before: Mapping[BranchKey, Branch] | None = None
    ) -> tuple[Branch, ...]:
        """``branches`` as written now, first written when those ``before`` were."""
        now = self._clock.now_ms()
        first = {key: branch.create_time for key, branch in (before or {}).items()}
        return tuple(
            changed(branch, create_time=first.get(branch.key, now), update_time=now)
            for branch in branches
        )

    def _make_due(self, held: Held) -> None:
        tx = changed(held.tx, next_cron_time=self._clock.now_ms())
        self._stored[tx.gid] = changed(held, tx=tx)

    def _waits(self) -> Iterator[tuple[int, Held]]:
        """The unfinished ones, each with the instant from which it can be claimed."""
        for held in self._stored.values():
            due = held.tx.next_cron_time
            if due is not None and not held.tx.status.terminal:
                yield max(due, held.lease_until), held


def _page(newest_first: Iterable[R], position: str, limit: int) -> tuple[list[R], str]:
    """Up to ``limit`` rows older than ``position``, and the position after them."""
    assert limit >= 1, "a page of nothing never ends"
    left_off = row_position(position)
    older = (row for row in newest_first if left_off is None or row.id < left_off)
    page = list(islice(older, limit))
    return page, str(page[-1].id) if len(page) == limit else ""


def _instant(wait: tuple[int, Held]) -> int:
    return wait[0]
