"""What every store has to decide in the same way."""

from collections.abc import Iterable

from kit.dtm.core.model import Branch, Transaction


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


def ended_at(tx: Transaction) -> int:
    """The instant at which a terminal transaction ended, as well as its rows tell."""
    for instant in (tx.finish_time, tx.rollback_time):
        if instant is not None:
            return instant
    return tx.update_time
