"""Every state that events can lead to, and what must hold at each step there is.

The search closes over states instead of sequences, so there is no bound on the length of a story.
The coordinator may die after every step: what its store holds then is followed as well, without
the saves that were deferred. Instants of the past decide nothing and do not make states differ.

The branches of a search keep a barrier's promise: an action that succeeded once never says later
that it did not.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kit.dtm.core import (
    Alert,
    Answer,
    Answered,
    BranchKey,
    Call,
    Command,
    Event,
    Outcome,
    Policy,
    Registered,
    Reply,
    Save,
    Stopped,
    Transaction,
    Wake,
    Woken,
    step,
)
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType

EARLY, LATE = 1_000_000, 1_100_000
POLICY = Policy(retry_max_interval=20, alert_retry_limit=1)
CALLBACK = "Transfer"
"""Name of the workflow, which is the operation of its callback."""

OPS: dict[tuple[TransType, Status], set[str]] = {
    (TransType.MSG, Status.PREPARED): {Op.MSG},
    (TransType.MSG, Status.SUBMITTED): {Op.ACTION},
    (TransType.SAGA, Status.SUBMITTED): {Op.ACTION},
    (TransType.SAGA, Status.ABORTING): {Op.COMPENSATE},
    (TransType.TCC, Status.SUBMITTED): {Op.CONFIRM},
    (TransType.TCC, Status.ABORTING): {Op.CANCEL},
    (TransType.XA, Status.SUBMITTED): {Op.COMMIT},
    (TransType.XA, Status.ABORTING): {Op.ROLLBACK},
    (TransType.WORKFLOW, Status.PREPARED): {CALLBACK},
}
"""What may be asked at all, by status."""

Met = dict[tuple[Status | None, str], set[Status | None]]


@dataclass(frozen=True)
class Seen:
    """A state of the search.

    Attributes:
        tx: what the coordinator has in memory.
        durable: what its store has.
        asked: branches that were called at some time.
        done: branches that answered SUCCESS at some time.
    """

    tx: Transaction | None = None
    durable: Transaction | None = None
    asked: frozenset[BranchKey] = frozenset()
    done: frozenset[BranchKey] = frozenset()
    stopped: bool = False
    identity: object = field(init=False, compare=False)

    def __post_init__(self) -> None:
        over = self.tx is not None and self.tx.status.terminal
        past = () if over else (self.asked, self.done, self.stopped)
        same = self.durable is self.tx or (self.tx is not None and self.durable == self.tx)
        now = identity(self.tx)
        there = now if same else identity(self.durable)
        object.__setattr__(self, "identity", (now, there, past))


def identity(tx: Transaction | None) -> object:
    """All of a transaction that can decide something later."""
    if tx is None or tx.status.terminal:  # the end is the end, however it came
        return tx and (tx.status, tx.trans_type, len(tx.branches))
    rows = tuple((b.key, b.url, b.status) for b in tx.branches)
    options = (tx.options.wait_result, tx.options.concurrent, tx.options.timeout_to_fail)
    return (
        (tx.status, tx.trans_type, tx.create_time, tx.next_cron_interval, tx.next_cron_time),
        (tx.rollback_reason, tx.retry_count, tx.custom_data, tx.query_prepared, tx.result),
        rows,
        options,
        tx.round,
    )


def explore(
    alphabet: Iterable[Event], strangers: Iterable[Event], met: Met, limit: int = 100_000
) -> int:
    """Try every event in every state that can be reached; give the number of states.

    Args:
        alphabet: the events.
        strangers: events that mean another transaction, tried once this one is there.
        met: takes down which status each kind of event led to.
        limit: of states; more means that the search does not close.
    """
    events, others = tuple(alphabet), tuple(strangers)
    front = [Seen()]
    known = {front[0].identity}
    while front:
        before = front.pop()
        for event in events if before.tx is None else (*events, *others):
            if isinstance(event, Answered) and breaks_promise(before, event):
                continue
            after, commands = step(before.tx, event, POLICY)
            check(before, event, after, commands)
            key = (before.tx.status if before.tx else None, type(event).__name__)
            met.setdefault(key, set()).add(after.status if after else None)
            seen = following(before, event, after, commands)
            crashed = replace(seen, tx=seen.durable)
            for state in (seen, crashed):
                if state.identity not in known:
                    assert len(known) < limit, "the search does not close"
                    known.add(state.identity)
                    front.append(state)
                    if not state.stopped:
                        check_progress(state)
    return len(known)


def breaks_promise(before: Seen, event: Answered) -> bool:
    """Whether a branch takes back what it said."""
    return event.result is Result.FAILURE and event.key in before.done


def following(
    before: Seen, event: Event, after: Transaction | None, commands: list[Command]
) -> Seen:
    """The state after a step."""
    durable, asked, done = before.durable, before.asked, before.done
    for command in commands:
        if isinstance(command, Save) and not command.deferred:
            durable = replace(command.tx, round=None)
        if isinstance(command, Call):
            asked |= {command.branch.key}
    if isinstance(event, Answered) and event.result is Result.SUCCESS and event.key in asked:
        done |= {event.key}
    stopped = before.stopped or isinstance(event, Stopped)
    return Seen(after, durable, asked, done, stopped and after is not None)


def stored(tx: Transaction | None) -> Transaction | None:
    """What a store keeps of ``tx``."""
    return None if tx is None else replace(tx, round=None)


def check(seen: Seen, event: Event, after: Transaction | None, commands: list[Command]) -> None:
    """G1, G2, G3, G5, G9 and G12 of the design, for one step."""
    before = seen.tx
    saves = [c for c in commands if isinstance(c, Save)]
    calls = [c for c in commands if isinstance(c, Call)]
    replies = [c for c in commands if isinstance(c, Reply)]
    answers = [c for c in commands if isinstance(c, Answer)]
    assert len(saves) <= 1
    assert len(replies) <= 1
    assert len(answers) <= 1
    assert not replies or not isinstance(event, Answered | Woken)

    # what is remembered is saved, and before anything that follows from it
    if stored(before) != stored(after):
        assert saves, f"{event} changed {before} to {after} without a save"
    if saves:
        assert commands[0] is saves[0]
        assert stored(saves[0].tx) == stored(after)
    if after is None:
        assert before is None
        assert not calls
        return
    if before is not None:
        check_kept(before, event, after)
        if before.status.terminal:
            assert after == before
            assert not saves
            assert not calls
            return
    check_save(before, after, saves)
    check_calls(seen, event, after, calls)
    if after.status.terminal and not isinstance(event, Stopped):
        check_end(seen, event, after)

    # nothing unfinished is forgotten, and the end is told truthfully
    assert after.status.terminal == (after.next_cron_time is None)
    assert after.round is None or after.round.calling
    for wake in (c for c in commands if isinstance(c, Wake)):
        assert wake.at == after.next_cron_time
    assert after.next_cron_interval <= POLICY.retry_max_interval
    undone = after.trans_type in (TransType.TCC, TransType.XA) and after.status is Status.FAILED
    for answer in answers:
        ended = after.status is Status.SUCCEED or undone
        assert (answer.outcome is Outcome.SUCCESS) == (ended and not isinstance(event, Stopped))
    for _ in (c for c in commands if isinstance(c, Alert)):
        assert isinstance(event, Answered)
        assert event.result in (Result.UNKNOWN, Result.FAILURE)
    if isinstance(event, Answered) and event.result is Result.UNKNOWN and after != before:
        assert saves or after.round is not None


def check_kept(before: Transaction, event: Event, after: Transaction) -> None:
    """Stored steps never change, what succeeded stays so, and a gid keeps its type."""
    assert after.trans_type is before.trans_type
    kept = after.branches[: len(before.branches)]
    assert isinstance(event, Registered) or len(kept) == len(after.branches)
    assert [(b.key, b.url, b.payload) for b in kept] == [
        (b.key, b.url, b.payload) for b in before.branches
    ]
    for was, now in zip(before.branches, kept, strict=True):
        assert was.status in (BranchStatus.PREPARED, now.status)
        assert (now.status is BranchStatus.PREPARED) == (now.finish_time is None)


def check_save(before: Transaction | None, after: Transaction, saves: list[Save]) -> None:
    """Rows that change are written; the lease is given back when nothing goes on."""
    for save in saves:
        old = {b.key: b for b in before.branches} if before else {}
        assert {b.key for b in save.branches} == {
            b.key for b in after.branches if old.get(b.key) != b
        }
        assert save.append or save.release == (after.round is None)
        if save.append:
            assert before is not None
            assert replace(after, branches=before.branches) == before
            assert after.round == before.round
        if save.force:
            assert after.status.terminal
        if save.deferred:
            assert before is not None
            assert after.status is before.status
            assert after.status is Status.SUBMITTED or after.trans_type is not TransType.SAGA


def check_calls(seen: Seen, event: Event, after: Transaction, calls: list[Call]) -> None:
    """Asked is only what the durable decision allows, once at a time, and never after its undo."""
    was = (
        seen.tx.round.calling if seen.tx is not None and seen.tx.round is not None else frozenset()
    )
    if isinstance(event, Answered):
        was -= {event.key}
    for call in calls:
        key = call.branch.key
        assert after.round is not None
        assert key in after.round.calling
        assert key not in was
        assert call.branch.status is BranchStatus.PREPARED
        assert call.branch.url
        assert call.branch.op in OPS[after.trans_type, after.status]
        if call.branch.op == Op.ACTION:
            assert (call.branch.branch_id, Op.COMPENSATE) not in seen.asked
        if after.trans_type is TransType.SAGA:
            assert call.branch.op == Op.ACTION or not any(op == Op.ACTION for _, op in was)
            check_order(seen, after, call)
    decided = {op for _, op in seen.asked | {c.branch.key for c in calls}}
    assert not decided & {Op.CONFIRM, Op.COMMIT} or not decided & {Op.CANCEL, Op.ROLLBACK}


def check_order(seen: Seen, after: Transaction, call: Call) -> None:
    """G9: a step comes after those that it waits for, and is undone before them."""
    custom = json.loads(after.custom_data or "{}")
    status = {b.key: b.status for b in after.branches}
    ids = [b.branch_id for b in after.branches if b.op == Op.ACTION]
    pairs = {(ids[int(n)], ids[m]) for n, of in custom.get("orders", {}).items() for m in of}
    if not custom.get("concurrent"):
        pairs |= set(zip(ids[1:], ids[:-1], strict=True))
    for later, earlier in pairs:
        if call.branch.key == (later, Op.ACTION):
            assert status[earlier, Op.ACTION] is BranchStatus.SUCCEED
        if call.branch.key == (earlier, Op.COMPENSATE) and (later, Op.ACTION) in seen.asked:
            assert status[later, Op.COMPENSATE] is BranchStatus.SUCCEED


def check_end(seen: Seen, event: Event, after: Transaction) -> None:
    """All or nothing."""
    status = {b.key: b.status for b in after.branches}
    succeeded = {key for key, s in status.items() if s is BranchStatus.SUCCEED}
    wanted: dict[tuple[TransType, Status], str] = {
        (TransType.MSG, Status.SUCCEED): Op.ACTION,
        (TransType.SAGA, Status.SUCCEED): Op.ACTION,
        (TransType.TCC, Status.SUCCEED): Op.CONFIRM,
        (TransType.TCC, Status.FAILED): Op.CANCEL,
        (TransType.XA, Status.SUCCEED): Op.COMMIT,
        (TransType.XA, Status.FAILED): Op.ROLLBACK,
    }
    if after.trans_type is TransType.WORKFLOW:
        return
    op = wanted.get((after.trans_type, after.status))
    if op is not None:  # these rows and no others
        assert succeeded == {key for key in status if key[1] == op}
    elif after.trans_type is TransType.MSG:
        assert not any(op == Op.ACTION for _, op in seen.asked)
    else:  # a saga that failed: what may have happened is undone
        assert after.rollback_reason
        happened = {key for key in seen.asked if key[1] == Op.ACTION}
        assert {(branch_id, Op.COMPENSATE) for branch_id, _ in happened} <= succeeded


def check_progress(seen: Seen) -> None:
    """G8: whatever happened, once all branches answer SUCCESS it comes to an end."""
    tx = seen.tx
    for _ in range(40):
        if tx is None or tx.status.terminal:
            return
        if tx.status is Status.PREPARED and tx.trans_type in (TransType.SAGA, TransType.WORKFLOW):
            return  # nobody but its client can go on
        if tx.round is None:
            tx, _ = step(tx, Woken(max(LATE, tx.next_cron_time or 0)), POLICY)
        else:
            key = min(tx.round.calling)
            tx, _ = step(tx, Answered(LATE, key, Result.SUCCESS), POLICY)
    raise AssertionError(f"no end in sight: {tx}")
