"""A store that forgets everything with its process.

For tests, and as the plainest reading of the contract. No method suspends, so each is one
atomic step on the event loop.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

from kit.clock import Clock, SystemClock
from kit.dtm.core.model import Transaction
from kit.dtm.store import Change, GidExists, Held, LostLease
from kit.dtm.store.rules import ended_at, merged, refuse_twins


class MemoryStore:
    """A :class:`kit.dtm.store.Store` in a dictionary; looking for work walks over all of it."""

    durability = "none"
    """What survives: see :attr:`kit.dtm.store.sqlite.SqliteStore.durability`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._stored: dict[str, Held] = {}  # in creation order

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
        self._stored[tx.gid] = Held(replace(tx, round=None), 1, owner, lease_until)
        return 1

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        return self._stored.get(gid)

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        assert change.owner, "a change names its writer"
        gid = change.tx.gid
        held = self._stored.get(gid)
        if held is None or held.tx.status.terminal or held.fence != change.fence:
            raise LostLease(gid)
        may_take = change.take and held.lease_until <= self._clock.now_ms()
        if held.owner != change.owner and not may_take:
            raise LostLease(gid)
        tx = replace(change.tx, branches=merged(held.tx.branches, change.branches), round=None)
        fence = change.fence + change.take
        if change.release:
            self._stored[gid] = Held(tx, fence)
        else:
            self._stored[gid] = Held(tx, fence, change.owner, self._lease_end(change.lease_s))
        return fence

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`."""
        assert owner, "a claim names its owner"
        assert limit >= 0, "a negative limit would mean all"
        now = self._clock.now_ms()
        until = self._lease_end(lease_s)
        due = sorted((wait for wait in self._waits() if wait[0] <= now), key=_instant)
        claimed = [
            replace(held, fence=held.fence + 1, owner=owner, lease_until=until)
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
                self._stored[gid] = replace(stored, lease_until=self._lease_end(lease_s))
        return lost

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        return min((at for at, _ in self._waits()), default=None)

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        assert limit >= 0, "a negative limit would mean all"
        finished = (held.tx for held in self._stored.values() if held.tx.status.terminal)
        ended = [tx.gid for tx in finished if ended_at(tx) < finished_before][:limit]
        for gid in ended:
            del self._stored[gid]
        return len(ended)

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        return self._clock.now_ms()

    def _lease_end(self, lease_s: float) -> int:
        return self._clock.now_ms() + round(lease_s * 1000)

    def _waits(self) -> Iterator[tuple[int, Held]]:
        """The unfinished ones, each with the instant from which it can be claimed."""
        for held in self._stored.values():
            due = held.tx.next_cron_time
            if due is not None and not held.tx.status.terminal:
                yield max(due, held.lease_until), held


def _instant(wait: tuple[int, Held]) -> int:
    return wait[0]
