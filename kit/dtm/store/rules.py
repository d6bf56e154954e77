"""What every store has to decide in the same way."""

from collections.abc import Iterable

from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import Change, Filter

MAX_ID_DIGITS = 18
"""What surely fits the 64 bits of a row id."""


def refuse_twins(gid: str, branches: Iterable[Branch]) -> None:
    """See to it that no two of a new transaction's branches have the same branch_id and op.

    Raises:
        ValueError: two have.
    """
    seen = set()
    for branch in branches:
        if branch.key in seen:
            raise ValueError(
                f"gid {gid!r}: branch {branch.branch_id!r} is there twice for op {branch.op!r}; "
                f"a branch_id and an op together are unique"
            )
        seen.add(branch.key)


def merged(stored: Iterable[Branch], changed: Iterable[Branch]) -> tuple[Branch, ...]:
    """``stored`` with ``changed`` in place of those with the same key, new ones at the end."""
    branches = {branch.key: branch for branch in stored}
    branches.update((branch.key, branch) for branch in changed)
    return tuple(branches.values())


def refuse_misuse(change: Change) -> None:
    """See to it that ``change`` is one that a coordinator may ask for at all."""
    assert change.owner, "a change names its writer"
    if change.force:
        assert change.take, "a forced change takes the lease"
        assert change.tx.status.terminal, "only an end is forced"


def row_position(position: str) -> int | None:
    """The row id at which a page of numbered rows left off; ``None`` for the first page.

    Raises:
        ValueError: no page gave this position.
    """
    if not position:
        return None
    if not (position.isascii() and position.isdigit() and len(position) <= MAX_ID_DIGITS):
        raise ValueError(
            f"position {position[:40]!r} is none that a page gave; "
            f"leave it empty to begin with the first page"
        )
    return int(position)


def matches(tx: Transaction, which: Filter) -> bool:
    """Whether ``tx`` is among those that are listed."""
    return (
        which.status in ("", tx.status)
        and which.trans_type in ("", tx.trans_type)
        and (which.created_from is None or tx.create_time >= which.created_from)
        and (which.created_until is None or tx.create_time <= which.created_until)
    )


def ended_at(tx: Transaction) -> int:
    """The instant at which a terminal transaction ended, as well as its rows tell."""
    for instant in (tx.finish_time, tx.rollback_time):
        if instant is not None:
            return instant
    return tx.update_time
