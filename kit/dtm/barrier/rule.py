"""The barrier's rule: which calls of a branch have an effect.

Every call leaves a row (gid, branch_id, op, barrier_id), written in the transaction of its effect;
an undo leaves the row of what it undoes as well. Whose row is new decides:

=======================  ====================  =================================================
row of the origin        row of the op         the call
=======================  ====================  =================================================
was there, or none       is new                is done
is new                   is new                undoes nothing: null compensation; the row of the
                                               origin keeps it from coming late
was there, or none       was there             is a repeat, or comes after its undo: hanging
=======================  ====================  =================================================

Two calls at once wait for each other at the unique key. Nothing here does I/O: the rule is a
generator over two primitives, and databases answer them.

Source: dtm-labs/dtm client/dtmcli/barrier.go, BranchBarrier.Call.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from kit.dtm.errors import Duplicated
from kit.dtm.wire import Op

ORIGINS = {Op.CANCEL: Op.TRY, Op.COMPENSATE: Op.ACTION, Op.ROLLBACK: Op.ACTION}
"""Undo → what it undoes."""

UNDONE = frozenset(ORIGINS.values())


class Outcome(StrEnum):
    """What became of a call; all but DONE ran nothing, and all are a success to the coordinator."""

    DONE = "done"
    REPEATED = "repeated"
    NULL_COMPENSATION = "null compensation"
    HANGING = "hanging"

    @property
    def suppressed(self) -> bool:
        """Whether the business was kept from running."""
        return self is not Outcome.DONE


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the barrier table; all but ``trans_type`` and ``reason`` are its key."""

    trans_type: str
    gid: str
    branch_id: str
    op: str
    barrier_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class InsertAbsent:
    """Insert those of ``rows`` that are not there, in this order; answered by their ops."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ReadReason:
    """Read the reason of the row with the key of ``row``, the newest committed one."""

    row: Row


Primitive: TypeAlias = InsertAbsent | ReadReason
Steps: TypeAlias = Generator[Primitive, frozenset[str] | str | None, Outcome]


def decide(row: Row) -> Steps:
    """Whether the call whose own row is ``row`` is to have its effect.

    Raises:
        Duplicated: a message's local transaction came before, or was rolled back by the query.
    """
    origin = ORIGINS.get(Op(row.op)) if row.op in ORIGINS else None
    rows = (row,) if origin is None else (_of(row, op=origin, reason=row.op), row)
    new = yield InsertAbsent(rows)
    assert isinstance(new, frozenset), "an insert is answered by the ops that were new"
    if origin is not None and origin in new:
        return Outcome.NULL_COMPENSATION
    if row.op in new:
        return Outcome.DONE
    if row.op == Op.MSG:
        raise Duplicated
    if row.op not in UNDONE:
        return Outcome.REPEATED
    reason = yield ReadReason(row)
    return Outcome.REPEATED if reason in (row.op, None) else Outcome.HANGING


def settle(row: Row) -> Steps:
    """Whether the local transaction of a message committed; from now on it cannot any more.

    DONE says that it did not: its row is new, or was written by an earlier query. REPEATED: it did.

    Source: dtm-labs/dtm client/dtmcli/barrier.go, QueryPrepared.
    """
    asked = _of(row, op=row.op, reason=Op.ROLLBACK)
    yield InsertAbsent((asked,))
    reason = yield ReadReason(asked)
    return Outcome.DONE if reason == Op.ROLLBACK else Outcome.REPEATED


def _of(row: Row, *, op: str, reason: str) -> Row:
    return Row(row.trans_type, row.gid, row.branch_id, op, row.barrier_id, reason)
