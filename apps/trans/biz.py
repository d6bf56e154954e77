"""What the transfer service does, what it refuses, and the ledger that it needs for that."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from kit import log
from kit.dtm.barrier import BranchBarrier
from kit.dtm.errors import Failure
from kit.dtm.wire import Op


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to an account, in cents.

    Attributes:
        user_id: whose account.
        balance: what is added to the balance.
        frozen: what is added to the part of it that is promised to somebody.
        need: what has to be there and not promised.
    """

    user_id: int
    balance: int = 0
    frozen: int = 0
    need: int = 0


Register: TypeAlias = Callable[[], Awaitable[None]]
"""Tells the coordinator of a branch of xa."""


class Ledger(Protocol):
    """Accounts with their balances."""

    async def apply(self, change: Change, branch: BranchBarrier | None) -> bool:
        """Make a change in one local transaction, at most once for a branch.

        Args:
            change: what happens.
            branch: the branch of a global transaction that it belongs to; ``None``: a plain call.

        Returns:
            Whether it was made: not when it was made before, undone before, or undoes nothing.

        Raises:
            Failure: there is less than what is needed.
        """
        ...

    async def apply_xa(self, change: Change, branch: BranchBarrier, register: Register) -> bool:
        """Make a change in a transaction of the database that the coordinator ends later.

        Called for the second phase as well, which ``branch.op`` tells: then what was prepared is
        committed or rolled back.

        Args:
            change: what happens.
            branch: the branch of a global transaction that it belongs to.
            register: tells the coordinator of the branch.

        Returns:
            Whether the change was made.

        Raises:
            Failure: there is less than what is needed, or this database has no XA.
        """
        ...


class Accounts:
    """Moves money between accounts, one side at a time; every method may be called again."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def transfer_out(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Take ``amount`` cents from an account.

        All methods raise :class:`~kit.dtm.errors.Failure` when the amount or the account makes no
        sense, or there is too little money.
        """
        change = Change(user_id, balance=-amount, need=amount)
        await self._apply(change, amount, branch, "transfer out %d cents from %d")

    async def transfer_in(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Put ``amount`` cents into an account."""
        change = Change(user_id, balance=amount)
        await self._apply(change, amount, branch, "transfer in %d cents to %d")

    async def revert_out(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Undo :meth:`transfer_out`."""
        change = Change(user_id, balance=amount)
        await self._apply(change, amount, branch, "transfer out of %d cents from %d reverted")

    async def revert_in(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Undo :meth:`transfer_in`; what was spent meanwhile is owed."""
        change = Change(user_id, balance=-amount)
        await self._apply(change, amount, branch, "transfer in of %d cents to %d reverted")

    async def try_out(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Promise ``amount`` cents of an account."""
        change = Change(user_id, frozen=amount, need=amount)
        await self._apply(change, amount, branch, "%d cents of %d promised")

    async def confirm_out(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Take the promised cents."""
        change = Change(user_id, balance=-amount, frozen=-amount)
        await self._apply(change, amount, branch, "transfer out %d cents from %d")

    async def cancel_out(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Take the promise back."""
        change = Change(user_id, frozen=-amount)
        await self._apply(change, amount, branch, "%d cents of %d no longer promised")

    async def try_in(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """See to it that ``amount`` cents can be put into an account; nothing moves yet."""
        await self._apply(Change(user_id), amount, branch, "%d cents can go to %d")

    async def confirm_in(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Put the cents into the account."""
        change = Change(user_id, balance=amount)
        await self._apply(change, amount, branch, "transfer in %d cents to %d")

    async def cancel_in(self, amount: int, user_id: int, branch: BranchBarrier | None) -> None:
        """Give up what was only looked at."""
        await self._apply(Change(user_id), amount, branch, "%d cents do not go to %d")

    async def xa_out(
        self, amount: int, user_id: int, branch: BranchBarrier, register: Register
    ) -> None:
        """Take ``amount`` cents, for good once the coordinator says so."""
        change = Change(user_id, balance=-amount, need=amount)
        await self._apply_xa(change, amount, branch, register, "transfer out %d cents from %d")

    async def xa_in(
        self, amount: int, user_id: int, branch: BranchBarrier, register: Register
    ) -> None:
        """Put ``amount`` cents into an account, for good once the coordinator says so."""
        change = Change(user_id, balance=amount)
        await self._apply_xa(change, amount, branch, register, "transfer in %d cents to %d")

    async def _apply_xa(
        self, change: Change, amount: int, branch: BranchBarrier, register: Register, line: str
    ) -> None:
        if branch.op == Op.ACTION:  # the second phase is sent without the payload
            _check(amount, change.user_id)
        if await self._ledger.apply_xa(change, branch, register):
            log.plain(line, amount, change.user_id)

    async def _apply(
        self, change: Change, amount: int, branch: BranchBarrier | None, line: str
    ) -> None:
        _check(amount, change.user_id)
        if await self._ledger.apply(change, branch):
            log.plain(line, amount, change.user_id)


MAX_CENTS = 10**15
"""Of one transfer: sums of balances stay far from the end of 64 bits."""


def _check(amount: int, user_id: int) -> None:
    # Not INVALID_ARGUMENT, which to a coordinator is an unknown result: it would ask for ever.
    # Failure is the definite no that rolls a saga or tcc back.
    if not 0 < amount <= MAX_CENTS:
        raise Failure(f"Amount: {amount} is not a number of cents from 1 to {MAX_CENTS}")
    if user_id <= 0:
        raise Failure(f"UserID: {user_id} is not an account; accounts are numbered from 1")
