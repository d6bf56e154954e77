"""Saga: every step happens, or every step that may have happened is undone.

::

    prepared ──submit──► submitted ──all actions SUCCESS──► succeed
                             └─an action FAILURE, timeout, retry limit─► aborting
                                      aborting ──all compensations SUCCESS──► failed

A step has two rows, its action and its compensation. An action runs when the steps it waits for
succeeded: the one before it, unless the saga is concurrent, and those that ``orders`` names.

Undone is each step whose action succeeded, failed or could run now: a crash may have hidden that
it did run. A compensation runs when no step that waited for its own is left to be undone, and is
asked until it answers SUCCESS.

Once it is clear that the saga fails nothing new is started, and it begins to undo only when no
action is in flight: no compensation overtakes its own action. Until then the reason is kept in the
rollback reason of the submitted saga.

Source: dtm-labs/dtm dtmsvr/trans_type_saga.go, ProcessOnce.
"""

from kit.dtm.core.commands import Answer, Call, Command, Outcome, Save
from kit.dtm.core.events import Answered, Prepared, Submitted
from kit.dtm.core.model import Branch, Policy, Round, Transaction
from kit.dtm.core.retry import base_interval, doubled_interval, interval_after
from kit.dtm.core.rounds import (
    Step,
    accepted,
    behind_saves,
    call,
    custom,
    ended,
    failure,
    marked,
    merged,
    opened,
    replaced,
    retry_later,
    settled,
    shortened,
    stored,
    telling,
    turned,
    unknown,
)
from kit.dtm.wire import BranchStatus, Op, Result, Status, with_result_word
from kit.value import changed, value

_LOST = "fail message lost"
"""dtm's words for a failed action whose text was not kept."""


@value
class _Moment:
    """When a saga goes on, and what about it is written with the next save."""

    now: int
    policy: Policy
    jitter: float = 0.0
    rows: tuple[Branch, ...] = ()
    may_wait: bool = False


def created(event: Prepared | Submitted, policy: Policy) -> Step:
    """The transaction that a first Prepare or Submit makes."""
    tx = opened(event, policy)
    if isinstance(event, Prepared):
        return stored(tx)
    result = _go_on(None, tx, _Moment(event.now, policy, rows=tx.branches))
    return behind_saves(result, _accepted(event))


def submitted(tx: Transaction, event: Submitted, policy: Policy) -> Step:
    """A Submit for a saga that is prepared, or submitted already and asked for once more."""
    if tx.status is Status.PREPARED:
        saga = turned(tx, Status.SUBMITTED, event.now, policy)
        return behind_saves(_go_on(tx, saga, _Moment(event.now, policy)), _accepted(event))
    if tx.round is not None:
        return tx, _accepted(event)  # the running round answers who waits
    return behind_saves(woken(tx, event.now, policy), _accepted(event))


def woken(tx: Transaction, now: int, policy: Policy) -> Step:
    """Start a round, unless one is running; one that is never submitted waits, as in dtm."""
    if tx.round is not None:
        return tx, []
    if tx.status is Status.PREPARED:
        return retry_later(tx, now, doubled_interval(tx, policy))
    return _go_on(tx, tx, _Moment(now, policy))


def answered(tx: Transaction, event: Answered, policy: Policy) -> Step:
    """An action or a compensation answered."""
    assert tx.round is not None
    before, branch = tx, next(b for b in tx.branches if b.key == event.key)
    running = changed(tx.round, calling=tx.round.calling - {event.key})
    final = branch.op == Op.ACTION and event.result is Result.FAILURE
    if event.result is Result.SUCCESS or final:
        status = BranchStatus.FAILED if final else BranchStatus.SUCCEED
        branches, rows = settled(tx.branches, event.key, status, event.now)
        tx = changed(tx, branches=branches, update_time=event.now, round=running)
        if final:
            text = with_result_word(event.text, Result.FAILURE)
            tx = _doomed(tx, f"url:{branch.url} return failed: {text}")
        elif running.failed is None:
            tx = changed(tx, next_cron_interval=base_interval(tx, policy))
        moment = _Moment(event.now, policy, event.jitter, rows, not final and _is_plain(tx))
        return _go_on(before, tx, moment)
    alerts = unknown(event, policy, tx, branch.url)
    if tx.status is Status.SUBMITTED and tx.options.retry_limit and not _reason(tx, event.now):
        if tx.retry_count < tx.options.retry_limit:  # at once, as in dtm
            tx = changed(tx, retry_count=tx.retry_count + 1, update_time=event.now)
            return tx, [Save(tx), Call(branch, tx.options.request_timeout), *alerts]
        limit = tx.options.retry_limit
        reason = f"RetryCount is greater than RetryLimit, RetryLimit: {limit}"
        tx = _doomed(changed(tx, update_time=event.now), reason)
    running = Round(
        running.calling, telling(running.failed, event.result), running.tried | {event.key}
    )
    moment = _Moment(event.now, policy, event.jitter)
    tx, commands = _go_on(before, changed(tx, round=running), moment)
    return tx, [*commands, *alerts]


def _go_on(before: Transaction | None, tx: Transaction, moment: _Moment) -> Step:
    """Save what is new; then start what can run now, wait for what is running, or end the round.

    Args:
        before: what is stored, ``None`` when that is nothing.
        tx: the saga, submitted or aborting.
        moment: when, and what is written.
    """
    submitted = tx.status is Status.SUBMITTED
    if submitted and _open(tx) and (reason := _reason(tx, moment.now)):
        if tx.round is not None and tx.round.calling:  # what is in flight is heard first
            return tx, _saved(before, tx, moment.rows)
        tx = turned(_doomed(tx, reason), Status.ABORTING, moment.now, moment.policy)
        submitted = False
    tx, rows = _skip_empty(tx, moment)
    if not _open(tx):
        tx = ended(tx, Status.SUCCEED if submitted else Status.FAILED, moment.now)
        answer = Answer(Outcome.SUCCESS) if submitted else failure(tx.rollback_reason)
        return tx, [Save(tx, rows, release=True), answer]
    following = _following(tx)
    if following or (tx.round is not None and tx.round.calling):
        saved = _saved(before, tx, rows, deferred=moment.may_wait and submitted)
        tx, calls = call(tx, following)
        return tx, [*saved, *calls]
    assert tx.round is not None
    assert tx.round.failed is not None
    tx, commands = retry_later(
        tx,
        moment.now,
        interval_after(tx, tx.round.failed, moment.policy),
        rows,
        jitter=moment.jitter,
        latest=_times_out_at(tx) if submitted else None,
    )
    return tx, [*commands, failure("" if submitted else tx.rollback_reason)]


def _saved(
    before: Transaction | None, tx: Transaction, rows: tuple[Branch, ...], deferred: bool = False
) -> list[Command]:
    return [] if tx == before else [Save(tx, rows, deferred=deferred)]


def _skip_empty(tx: Transaction, moment: _Moment) -> tuple[Transaction, tuple[Branch, ...]]:
    """Count what has no URL as done when its turn comes, which may bring the turn of more."""
    rows = moment.rows
    while empty := tuple(b for b in _following(tx) if not b.url):
        empty = marked(empty, BranchStatus.SUCCEED, moment.now)
        tx = changed(tx, branches=replaced(tx.branches, empty), update_time=moment.now)
        rows = merged(rows, empty)
    return tx, rows


def _open(tx: Transaction) -> bool:
    """Whether something is left to be done, or to be undone once it is aborting."""
    if tx.status is Status.SUBMITTED:
        return any(a.status is not BranchStatus.SUCCEED for a in _rows(tx, Op.ACTION))
    return bool(_to_undo(tx))


def _following(tx: Transaction) -> tuple[Branch, ...]:
    """What can be asked now and was not yet asked in this round."""
    running = tx.round or Round()
    asked = running.calling | running.tried
    if tx.status is Status.SUBMITTED:
        actions = _rows(tx, Op.ACTION)
        ready = [actions[index] for index in sorted(_runnable(tx))]
    else:
        undo = _to_undo(tx)
        awaited = set().union(*(_needs(tx)[index] for index in undo))
        ready = [undo[index] for index in sorted(undo, reverse=True) if index not in awaited]
    return tuple(b for b in ready if b.key not in asked)


def _runnable(tx: Transaction) -> set[int]:
    """Steps whose action is not decided while those that it waits for succeeded."""
    actions, needs = _rows(tx, Op.ACTION), _needs(tx)
    done = {i for i, action in enumerate(actions) if action.status is BranchStatus.SUCCEED}
    return {
        index
        for index, action in enumerate(actions)
        if action.status is BranchStatus.PREPARED and needs[index] <= done
    }


def _to_undo(tx: Transaction) -> dict[int, Branch]:
    """Compensations that are due now or later, by step: of each action that may have run."""
    runnable = _runnable(tx)
    rows = {b.branch_id: b for b in _rows(tx, Op.COMPENSATE)}
    return {
        index: rows[action.branch_id]
        for index, action in enumerate(_rows(tx, Op.ACTION))
        if (action.status is not BranchStatus.PREPARED or index in runnable)
        and rows[action.branch_id].status is not BranchStatus.SUCCEED
    }


def _rows(tx: Transaction, op: Op) -> list[Branch]:
    return [b for b in tx.branches if b.op == op]


def _needs(tx: Transaction) -> list[set[int]]:
    """The steps that each step waits for, which are earlier ones; the steps count from 0.

    ``orders`` in the custom data, ``{"2": [0, 1]}``, count for a sequential saga as well.
    """
    data = custom(tx.custom_data)
    number = len(_rows(tx, Op.ACTION))
    concurrent = data.get("concurrent") is True or tx.options.concurrent
    needs: list[set[int]] = [set() if concurrent or i == 0 else {i - 1} for i in range(number)]
    orders = data.get("orders")
    for key, before in orders.items() if isinstance(orders, dict) else ():
        index = int(key) if key.isascii() and key.isdecimal() else number
        if index < number and isinstance(before, list):
            needs[index] |= {i for i in before if isinstance(i, int) and 0 <= i < index}
    return needs


def _is_plain(tx: Transaction) -> bool:
    """Whether the success of an action may be written late: nothing is decided by it but the end.

    A crash in between has one action asked again.
    """
    if tx.options.timeout_to_fail or tx.options.retry_limit or tx.options.concurrent:
        return False
    data = custom(tx.custom_data)
    return not data.get("concurrent") and not data.get("orders")


def _times_out_at(tx: Transaction) -> int | None:
    """A saga is timed out only when its client says so, whatever the server's setting is."""
    timeout = tx.options.timeout_to_fail
    return tx.create_time + timeout * 1000 if timeout else None


def _reason(tx: Transaction, now: int) -> str:
    """Why a submitted saga with open actions fails; empty while it need not."""
    if tx.rollback_reason:
        return tx.rollback_reason
    if any(a.status is BranchStatus.FAILED for a in _rows(tx, Op.ACTION)):
        return _LOST
    due = _times_out_at(tx)
    if due is not None and now >= due:
        return f"Timeout after {tx.options.timeout_to_fail} seconds"
    return ""


def _doomed(tx: Transaction, reason: str) -> Transaction:
    return changed(tx, rollback_reason=tx.rollback_reason or shortened(reason))


def _accepted(event: Submitted) -> list[Command]:
    return accepted(event.request.options.wait_result)
