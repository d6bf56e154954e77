"""Msg: once submitted, every action happens; nothing is ever undone.

::

    prepared ──submit──► submitted ──all actions SUCCESS──► succeed
        │  └─query SUCCESS─►┘
        └──abort, or query FAILURE──► failed

A prepared message that is neither submitted nor aborted is decided by asking its sender
(query-prepared) once it timed out. An action is a promise of its service: FAILURE is one more
reason to ask again.

Source: dtm-labs/dtm dtmsvr/trans_type_msg.go, ProcessOnce.
"""

from kit.dtm.core.commands import Answer, Command, Outcome, Reply, Save
from kit.dtm.core.events import Aborted, Answered, Prepared, Submitted
from kit.dtm.core.model import Branch, Policy, Round, Transaction
from kit.dtm.core.retry import base_interval, fails_at, interval_after
from kit.dtm.core.rounds import (
    Step,
    accepted,
    answer_for,
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
    wait_for_timeout,
    wake,
)
from kit.dtm.wire import QUERY_BRANCH_ID, BranchStatus, Op, Result, Status
from kit.value import changed

_WAITS = failure("")


def created(event: Prepared | Submitted, policy: Policy) -> Step:
    """The transaction that a first Prepare or Submit makes."""
    tx = opened(event, policy)
    if isinstance(event, Prepared):
        return stored(changed(tx, next_cron_time=fails_at(tx, policy)))
    return _begin(tx, event.now, tx.branches, _accepted(event))


def submitted(tx: Transaction, event: Submitted, policy: Policy) -> Step:
    """A Submit for a message that is prepared, or submitted already and asked for once more."""
    if tx.status is Status.PREPARED:  # a query-prepared in flight has lost its question
        tx = turned(tx, Status.SUBMITTED, event.now, policy)
        return _begin(tx, event.now, (), _accepted(event))
    if tx.round is not None:
        return tx, _accepted(event)  # the running round answers who waits
    return behind_saves(woken(tx, event.now, policy), _accepted(event))


def aborted(tx: Transaction, event: Aborted) -> Step:
    """An Abort for a message that is still prepared."""
    tx = ended(tx, Status.FAILED, event.now)
    return tx, [Save(tx, release=True), Reply(Outcome.SUCCESS)]


def woken(tx: Transaction, now: int, policy: Policy) -> Step:
    """Start a round, unless one is running or nothing is to be done yet."""
    if tx.round is not None:
        return tx, []
    if tx.status is Status.SUBMITTED:
        return _resume(tx, now)
    if now < fails_at(tx, policy):
        return wait_for_timeout(tx, policy)
    if not tx.query_prepared:  # dtm sends a message whose sender cannot be asked
        tx = changed(tx, status=Status.SUBMITTED, update_time=now)
        return _begin(tx, now, (), [])
    return call(tx, (Branch(QUERY_BRANCH_ID, Op.MSG, tx.query_prepared),))


def answered(tx: Transaction, event: Answered, policy: Policy) -> Step:
    """A branch, or the sender that was asked about a prepared message, answered."""
    assert tx.round is not None
    if event.key == (QUERY_BRANCH_ID, Op.MSG):
        return _query_answered(tx, event, policy)
    running = Round(tx.round.calling - {event.key}, tx.round.failed)
    if event.result is Result.SUCCESS:
        return _succeeded(tx, event, policy, running)
    return _did_not_succeed(tx, event, policy, running)


def _query_answered(tx: Transaction, event: Answered, policy: Policy) -> Step:
    match event.result:
        case Result.SUCCESS:
            tx = turned(tx, Status.SUBMITTED, event.now, policy)
            return _begin(tx, event.now, (), [])
        case Result.FAILURE:
            tx = changed(tx, rollback_reason=shortened(event.text))
            tx = ended(tx, Status.FAILED, event.now)
            return tx, [Save(tx, release=True)]
        case Result.ONGOING:
            return retry_later(tx, event.now, base_interval(tx, policy), jitter=event.jitter)
        case Result.UNKNOWN:
            alerts = unknown(event, policy, tx, tx.query_prepared)
            interval = interval_after(tx, event.result, policy)
            tx, commands = retry_later(tx, event.now, interval, jitter=event.jitter)
            return tx, [*commands, *alerts]


def _succeeded(tx: Transaction, event: Answered, policy: Policy, running: Round) -> Step:
    branches, rows = settled(tx.branches, event.key, BranchStatus.SUCCEED, event.now)
    pending = _pending(branches)
    if not pending:
        tx = ended(tx, Status.SUCCEED, event.now, branches)
        return tx, [Save(tx, rows, release=True), Answer(Outcome.SUCCESS)]
    if running.calling:
        tx = changed(tx, branches=branches, update_time=event.now, round=running)
        return tx, [Save(tx, rows, deferred=True)]
    if running.failed is not None:
        tx = changed(tx, branches=branches)
        tx, commands = _round_failed(tx, event, policy, running.failed, rows)
        return tx, [*commands, _WAITS]  # for who came after the first failure
    tx = changed(
        tx,
        branches=branches,
        update_time=event.now,
        next_cron_interval=base_interval(tx, policy),
        round=None,
    )
    save = Save(tx, rows, deferred=True)
    tx, calls = call(tx, pending[:1])
    return tx, [save, *calls]


def _did_not_succeed(tx: Transaction, event: Answered, policy: Policy, running: Round) -> Step:
    """Remember the failure; the client need not wait for the other calls of a concurrent round.

    Who came after the first failure hears of the last.
    """
    first_or_last = running.failed is None or not running.calling
    told: list[Command] = [answer_for(event, _WAITS)] if first_or_last else []
    url = next(b.url for b in tx.branches if b.key == event.key)
    told += unknown(event, policy, tx, url)
    failed = telling(running.failed, event.result)
    if running.calling:
        return changed(tx, round=changed(running, failed=failed)), told
    tx, commands = _round_failed(tx, event, policy, failed, ())
    return tx, [*commands, *told]


def _round_failed(
    tx: Transaction, event: Answered, policy: Policy, failed: Result, rows: tuple[Branch, ...]
) -> Step:
    """End a round with failures; however many there were, the interval doubles once."""
    interval = interval_after(tx, failed, policy)
    return retry_later(tx, event.now, interval, rows, jitter=event.jitter)


def _begin(tx: Transaction, now: int, rows: tuple[Branch, ...], replies: list[Command]) -> Step:
    """Save a message that just became submitted; carry it out, or wait when it is delayed."""
    if delay := delay_of(tx.custom_data):
        tx = changed(tx, next_cron_time=now + delay * 1000)
        return tx, [Save(tx, rows, release=True), *replies, wake(tx), _WAITS]
    tx, rows, done = _skip_empty(tx, rows, now)
    if done:
        return tx, [Save(tx, rows, release=True), *replies, Answer(Outcome.SUCCESS)]
    saved = Save(tx, rows)
    tx, calls = call(tx, _next_branches(tx))
    return tx, [saved, *replies, *calls]


def _resume(tx: Transaction, now: int) -> Step:
    """Go on with a submitted message: a retry, or a coordinator that took it over."""
    if delay := delay_of(tx.custom_data):
        # submitted again meanwhile, or made due by an operator, who cannot cut a delay short
        due = max(tx.create_time + delay * 1000, tx.next_cron_time or 0)
        if now < due:
            tx = changed(tx, next_cron_time=due)
            return tx, [Save(tx, release=True), wake(tx), _WAITS]
    tx, rows, done = _skip_empty(tx, (), now)
    if done:
        return tx, [Save(tx, rows, release=True), Answer(Outcome.SUCCESS)]
    return call(tx, _next_branches(tx))


def _skip_empty(
    tx: Transaction, rows: tuple[Branch, ...], now: int
) -> tuple[Transaction, tuple[Branch, ...], bool]:
    """Count branches without a URL as done; tell whether that was all there was to do."""
    pending = _pending(tx.branches)
    if empty := tuple([b for b in pending if not b.url]):
        empty = marked(empty, BranchStatus.SUCCEED, now)
        tx = changed(tx, branches=replaced(tx.branches, empty))
        rows = merged(rows, empty)
    if len(empty) == len(pending):
        return ended(tx, Status.SUCCEED, now), rows, True
    return tx, rows, False


def _next_branches(tx: Transaction) -> tuple[Branch, ...]:
    pending = _pending(tx.branches)
    return pending if is_concurrent(tx) else pending[:1]


def _pending(branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
    return tuple([b for b in branches if b.status is BranchStatus.PREPARED])


def _accepted(event: Submitted) -> list[Command]:
    return accepted(event.request.options.wait_result)


def delay_of(custom_data: str) -> int:
    """Seconds that a message is to be delayed; ``{"delay": 5}`` in its custom data.

    >>> delay_of('{"delay":5}'), delay_of("")
    (5, 0)
    """
    delay = custom(custom_data).get("delay")
    return delay if isinstance(delay, int) and delay > 0 else 0


def is_concurrent(tx: Transaction) -> bool:
    """Whether all branches are called at once.

    dtm's gRPC options have no such field, so ``{"concurrent": true}`` in the custom data is
    read as well; dtm ignores it there.
    """
    return tx.options.concurrent or custom(tx.custom_data).get("concurrent") is True
