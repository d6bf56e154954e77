"""What a run of transactions must look like, whatever was killed, stopped or frozen meanwhile.

A :class:`History` is what clients were told, what branches were asked and what is stored at the
end. Each check is a small function over it that gives its complaints; :func:`complaints` is all of
them. The names G1 … are the promises of the project (docs/architecture.md). The checks themselves
are tested against sabotaged histories in ``test_histories.py``.

Branches are idempotent by gid, branch and op, as behind a barrier: an *effect* happens the first
time a call is answered with SUCCESS, and a repeated call changes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SUCCEED, FAILED = "succeed", "failed"
TERMINAL = (SUCCEED, FAILED)
ANY = "any"
"""The end of a transaction whose branches do not always say the same."""

FORWARD = {"saga": "action", "msg": "action", "workflow": "action"}
"""The op that has the effect; clients of tcc and xa do the first phase themselves."""

OPPOSITES = (("confirm", "cancel"), ("commit", "rollback"))

UNDOES = {"saga": "compensate", "tcc": "cancel", "xa": "rollback"}
FULFILS = {"tcc": "confirm", "xa": "commit"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as a branch saw it.

    Attributes:
        success: whether it answered SUCCESS.
    """

    gid: str
    branch_id: str
    op: str
    success: bool = True

    @property
    def row(self) -> tuple[str, str]:
        return self.branch_id, self.op


@dataclass(slots=True)
class Told:
    """What the client of one transaction wanted, and what it was told.

    Attributes:
        mode: ``msg``, ``saga``, ``tcc``, ``xa`` or ``workflow``.
        end: the status that the client's decision leads to.
        stored: it was acknowledged that the transaction is stored.
        rows: branches whose storing was acknowledged.
        decided: the request that decides (Submit, Abort) was sent.
        acknowledged: and it was acknowledged.
        refused: why the coordinator said no.
    """

    gid: str
    mode: str
    end: str
    stored: bool = False
    rows: set[tuple[str, str]] = field(default_factory=set)
    decided: bool = False
    acknowledged: bool = False
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """One transaction at the end; ``rows`` are its branches in stored order, with their status."""

    status: str
    rows: tuple[tuple[tuple[str, str], str], ...]


@dataclass(slots=True)
class History:
    """All that is known of a run."""

    told: dict[str, Told] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)

    def calls(self, gid: str) -> list[Asked]:
        """Calls of one transaction, in the order of arrival."""
        return [call for call in self.asked if call.gid == gid]


def nothing_acknowledged_is_lost(history: History) -> Iterator[str]:
    """G1: what a client was told is stored is there, with each branch."""
    for gid, told in history.told.items():
        stored = history.stored.get(gid)
        if stored is None:
            if told.stored or told.acknowledged:
                yield f"{gid} was acknowledged and is not stored"
            continue
        keys = [key for key, _ in stored.rows]
        if missing := told.rows - set(keys):
            yield f"{gid}: rows {sorted(missing)} were acknowledged and are not stored"
        if len(keys) != len(set(keys)):
            yield f"{gid}: a row is stored twice: {keys}"


def everything_ended(history: History) -> Iterator[str]:
    """G8: nothing is still going on, and what was asked for has become of it."""
    for gid, stored in history.stored.items():
        told = history.told.get(gid)
        if stored.status not in TERMINAL:
            yield f"{gid} is still {stored.status}"
        elif told is not None and told.acknowledged and told.end not in (ANY, stored.status):
            yield f"{gid}: {told.end} was acknowledged, {stored.status} is stored"


def one_decision(history: History) -> Iterator[str]:
    """G2: never both phases' ends of one transaction, and no action after a compensation."""
    for gid in {call.gid for call in history.asked}:
        ops = [call.op for call in history.calls(gid)]
        for pair in OPPOSITES:
            if set(pair) <= set(ops):
                yield f"{gid} was told both {pair[0]} and {pair[1]}: {ops}"
        if "compensate" in ops and "action" in ops[ops.index("compensate") :]:
            yield f"{gid} acted after a compensation: {ops}"


def all_or_nothing(history: History) -> Iterator[str]:
    """G3: succeeded: every effect is there; failed: every effect that happened is undone."""
    for gid, stored in history.stored.items():
        told = history.told.get(gid)
        if told is None or stored.status not in TERMINAL:
            continue
        done = {call.row for call in history.calls(gid) if call.success}
        keys = {key for key, _ in stored.rows}
        if stored.status == SUCCEED:
            op = FULFILS.get(told.mode) or FORWARD[told.mode]
            if missing := {key for key in keys if key[1] == op} - done:
                yield f"{gid} succeeded without the effects {sorted(missing)}"
            if undone := {row for row in done if row[1] == UNDOES.get(told.mode)}:
                yield f"{gid} succeeded and undid {sorted(undone)}"
            continue
        undo = UNDOES.get(told.mode, "")
        if told.mode == "saga":
            needed = {(branch, undo) for branch, op in done if op == "action"}
        elif undo:
            needed = {key for key in keys if key[1] == undo}
        else:
            needed = set()
            if done & {key for key in keys if key[1] == FORWARD[told.mode]}:
                yield f"{gid} failed and its effects stay: {sorted(done)}"
        if missing := needed - done:
            yield f"{gid} failed and did not undo {sorted(missing)}"


def rows_tell_the_truth(history: History) -> Iterator[str]:
    """G12: a row that says succeed belongs to a branch that said so."""
    for gid, stored in history.stored.items():
        done = {call.row for call in history.calls(gid) if call.success}
        for key, status in stored.rows:
            if status == "succeed" and key not in done:
                yield f"{gid}: {key} is stored as succeed, its branch never said so"


def nobody_was_refused(history: History) -> Iterator[str]:
    """No client heard a definite no: none of them asked for anything wrong."""
    for gid, told in history.told.items():
        if told.refused:
            yield f"{gid} was refused: {told.refused}"


CHECKS: tuple[Callable[[History], Iterator[str]], ...] = (
    nothing_acknowledged_is_lost,
    everything_ended,
    one_decision,
    all_or_nothing,
    rows_tell_the_truth,
    nobody_was_refused,
)


def complaints(history: History) -> list[str]:
    """What is wrong with a run; empty when nothing is."""
    return [f"{check.__name__}: {text}" for check in CHECKS for text in check(history)]
