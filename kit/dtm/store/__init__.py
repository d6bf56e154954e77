"""Where transactions live: the one thing a coordinator must not lose.

A :class:`Store` keeps transactions and decides who may change them. Implementations stand beside
this file: :mod:`kit.dtm.store.memory` for tests, :mod:`kit.dtm.store.sqlite` for one coordinator
with a file. Whatever implements the Protocol can be checked with ``kit.testing.check_store``.

Theory of operation
    *Leases.* A transaction is changed by one coordinator at a time, its *owner*, until
    ``lease_until`` on the store's clock. A lease is taken by :meth:`Store.create`,
    :meth:`Store.claim` or a change with ``take``, renewed while the round runs, and given back by
    the change that ends the round.

    *Fencing.* Every taking raises the transaction's ``fence``. Every change names the fence that
    its writer read or holds and is refused with :class:`LostLease` when the stored one is another:
    an owner that slept through its lease cannot write over its successor.

    *Durability.* When ``create`` or ``save`` returns, what it wrote survives kill -9 and power loss
    (memory: nothing survives). Several calls that arrive together share one commit; one that fails
    does not fail its neighbours.

    *Finality.* A transaction whose stored status is terminal is never changed again.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Protocol, Self

from kit.dtm.core.model import Branch, Transaction
from kit.errors import Conflict, InternalServer, ServiceUnavailable
from kit.value import value


class GidExists(Conflict):
    """A transaction with this gid is stored already."""

    def __init__(self, gid: str) -> None:
        super().__init__("GID_EXISTS", f"gid {gid!r} exists")


class BranchExists(Conflict):
    """The transaction has a branch with this branch_id and op already."""

    def __init__(self, gid: str) -> None:
        super().__init__("BRANCH_EXISTS", f"gid {gid!r} has such a branch already")


class KvChanged(Conflict):
    """The key exists already, or is not there in the version that the writer read."""

    def __init__(self, cat: str, key: str) -> None:
        super().__init__("KV_CHANGED", f"{cat} {key!r} was changed by somebody else")


class LostLease(Conflict):
    """The fence is another, somebody else holds the lease, or the transaction is over or gone."""

    def __init__(self, gid: str) -> None:
        super().__init__("LOST_LEASE", f"gid {gid!r} is changed by another coordinator")


class StoreUnavailable(ServiceUnavailable):
    """The store did not answer, or its queue is full.

    Nothing was written unless the message says otherwise.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("STORE_UNAVAILABLE", message)


class StoreCorrupt(InternalServer):
    """What was read back is not what a coordinator writes, or comes from a newer version."""

    def __init__(self, message: str = "") -> None:
        super().__init__("STORE_CORRUPT", message)


@value
class Held:
    """A transaction as stored, and who may change it.

    Attributes:
        fence: the number that a change has to name.
        owner: whose lease it is; empty when nobody's.
        lease_until: its end in milliseconds of the store's clock; 0 without an owner.
        id: of its row, where the store numbers rows.
    """

    tx: Transaction
    fence: int
    owner: str = ""
    lease_until: int = 0
    id: int = field(default=0, compare=False)


@value
class Change:
    """What a coordinator wants written, in one atomic step.

    Attributes:
        tx: every column of the transaction as it shall be; ``tx.branches`` is not written.
        branches: branch rows to insert or replace, found by (branch_id, op); new ones go behind the
            stored ones.
        fence: the number that the writer read or holds.
        owner: the writer.
        take: take the lease with this change; allowed while nobody holds it, its time is over, or
            the writer is its owner. Without it the writer must be the owner.
        release: give the lease back with this change.
        force: write whoever holds the lease, as if it were over; goes with ``take`` and only with a
            terminal status. The fence has to be right all the same.
        lease_s: seconds that a taken or kept lease lasts from now.
    """

    tx: Transaction
    branches: tuple[Branch, ...]
    fence: int
    owner: str
    take: bool = False
    release: bool = False
    force: bool = False
    lease_s: float = 10.0


@value
class Filter:
    """Which transactions are listed; what is empty does not matter.

    Attributes:
        created_from: earliest creation in milliseconds, inclusive.
        created_until: latest creation in milliseconds, inclusive.
    """

    status: str = ""
    trans_type: str = ""
    created_from: int | None = None
    created_until: int | None = None


@value
class KeyValue:
    """A versioned entry of the key-value table; topics live there.

    Attributes:
        version: 1 when created, one more with every update.
        create_time: milliseconds of the store's clock.
        update_time: milliseconds of the store's clock.
        id: of its row, where the store numbers rows.
    """

    cat: str
    key: str
    value: str
    version: int = 1
    create_time: int = field(default=0, compare=False)
    update_time: int = field(default=0, compare=False)
    id: int = field(default=0, compare=False)


class Store(Protocol):
    """Keeps transactions, and a few key-values.

    The stamps of branches and key-values are the store's own: what a caller put into them is not
    written.

    Texts hold no NUL and no lone surrogate; a gid has at most 128 characters, a branch_id too,
    every other text and payload at most 4 MiB. Whoever calls has seen to it.

    All methods raise :class:`StoreUnavailable` when the store does not answer, within 3 seconds.
    """

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """Settings under which an acknowledged write may be lost, each with its way out.

        Known once the store is open; empty when kill -9 and power loss lose nothing.
        """
        ...

    async def __aenter__(self) -> Self:
        """Open: create or migrate the schema, check durability, free what a dead single owner held.

        Raises:
            StoreUnavailable: it cannot be opened; the message says where and why.
            StoreCorrupt: the schema is newer than this program.
        """
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Finish what was accepted, then close."""
        ...

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        """Store a new transaction with its branches; give its fence (1).

        Args:
            tx: the transaction; ``tx.branches`` is written.
            owner: who takes the lease at once; empty leaves it free.
            lease_s: seconds that the lease lasts.

        Raises:
            GidExists: there is one; nothing was written.
            ValueError: two of its branches have the same branch_id and op; nothing was written.
        """
        ...

    async def load(self, gid: str) -> Held | None:
        """The transaction with its branches in creation order, or ``None``."""
        ...

    async def save(self, change: Change) -> int:
        """Write ``change``; give the fence that the next change has to name.

        That is one more when this change took the lease.

        Raises:
            LostLease: see there; nothing was written.
        """
        ...

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        """Add branches to a prepared transaction, whoever holds its lease; its fence stays.

        Raises:
            LostLease: it is not prepared, or gone; nothing was written.
            BranchExists: one is there already, or two of them are the same; nothing was written.
        """
        ...

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """Take the leases of up to ``limit`` unfinished transactions that are due and free.

        Due: ``next_cron_time`` has come, on the store's clock. The most overdue come first, counted
        from when they were both due and free.
        """
        ...

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """Extend leases to ``lease_s`` from now; give the gids of those that were lost.

        Args:
            owner: whose leases they are.
            held: (gid, fence) of each.
            lease_s: seconds.
        """
        ...

    async def next_due(self) -> int | None:
        """The soonest ``next_cron_time`` of an unfinished transaction, or ``None``.

        A transaction whose lease is over counts; one that is held counts with the end of its lease,
        where that is later.
        """
        ...

    async def purge(self, finished_before: int, limit: int) -> int:
        """Delete up to ``limit`` transactions that ended before that instant; give their number.

        Ended: a terminal one's finish or rollback time. What is unfinished is never deleted.
        """
        ...

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        """What :meth:`purge` would delete, with branches, for whoever wants to keep a copy."""
        ...

    async def delete(self, gids: Sequence[str]) -> int:
        """Delete those of ``gids`` that are terminal, with their branches; give their number."""
        ...

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        """A page of transactions without their branches, newest first where the store can.

        Args:
            position: empty for the first page, else what the last page gave.
            limit: rows a page, at least 1.
            which: filters, all of which must hold.

        Returns:
            The page, and the position of the next one; empty when this was the last. Pages may be
            uneven, even empty, on a store that walks its keys; walked to the end they hold every
            transaction that was there all along.

        Raises:
            ValueError: the position is none that a page gave.
        """
        ...

    async def reset_next_cron_time(self, gid: str) -> bool:
        """Make a transaction due now; tell whether it is stored.

        Nothing else of it changes, and a terminal one stays as it is. Needs no lease: the save of a
        running round has the last word.
        """
        ...

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        """Make up to ``limit`` unfinished transactions due now whose time is after ``later_than``.

        Args:
            later_than: an instant of the store's clock in milliseconds.
            limit: at least 1.

        Returns:
            How many, and whether more of them remain.
        """
        ...

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """The entries of a category with a key, sorted by key; what is empty does not matter."""
        ...

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """A page of a category's entries, as :meth:`scan` pages.

        Raises:
            ValueError: the position is none that a page gave.
        """
        ...

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        """Store a new entry, version 1.

        Raises:
            KvChanged: there is one.
        """
        ...

    async def update_kv(self, read: KeyValue, value: str) -> None:
        """Replace the value of an entry that was read; its version grows by one.

        Raises:
            KvChanged: it is gone, or has another version by now.
        """
        ...

    async def delete_kv(self, cat: str, key: str) -> bool:
        """Delete an entry; tell whether it was there."""
        ...

    async def clear(self) -> None:
        """Delete every transaction and key-value of this store, and nothing else (flag ``-r``)."""
        ...

    async def now_ms(self) -> int:
        """The store's clock, which leases and due times are measured with."""
        ...
