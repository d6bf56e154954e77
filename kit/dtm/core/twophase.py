"""Tcc and xa: once submitted every branch is confirmed, once aborted every branch is cancelled.

::

    prepared ──submit──► submitted ──all confirm / commit SUCCESS──► succeed
        └──abort, or timeout──► aborting ──all cancel / rollback SUCCESS──► failed

The client does the first phase itself and registers what the second phase calls. Rows are asked
one at a time, of tcc the one that was registered last first, of xa in the order of registration.
Confirm and cancel, commit and rollback are promises: FAILURE is one more reason to ask again.

Source: dtm-labs/dtm dtmsvr/trans_type_tcc.go, trans_type_xa.go, ProcessOnce.
"""

from kit.dtm.core.commands import Answer, Command, Outcome, Save
from kit.dtm.core.events import Aborted, Answered, Prepared, Submitted
from kit.dtm.core.model import Branch, Policy, Transaction
from kit.dtm.core.retry import base_interval, fails_at, interval_after
from kit.dtm.core.rounds import (
    Step,
    accepted,
    answer_for,
    behind_saves,
    call,
    ended,
    marked,
    merged,
    opened,
    replaced,
    retry_later,
    settled,
    shortened,
    stored,
    turned,
    unknown,
    wait_for_timeout,
)
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType
from kit.value import changed

_OPS = {
    (TransType.TCC, Status.SUBMITTED): Op.CONFIRM,
    (TransType.TCC, Status.ABORTING): Op.CANCEL,
    (TransType.XA, Status.SUBMITTED): Op.COMMIT,
    (TransType.XA, Status.ABORTING): Op.ROLLBACK,
}

_ENDS = {Status.SUBMITTED: Status.SUCCEED, Status.ABORTING: Status.FAILED}

_ONGOING = Answer(Outcome.ONGOING, Result.ONGOING.value)


def created(event: Prepared | Submitted, policy: Policy) -> Step:
    """The transaction that a first Prepare makes, or a Submit without one: it has no branches."""
    tx = opened(event, policy)
    if isinstance(event, Prepared):
        return stored(changed(tx, next_cron_time=fails_at(tx, policy)))
    return behind_saves(
        _begin(tx, event.now, tx.branches), accepted(event.request.options.wait_result)
    )


def submitted(tx: Transaction, event: Submitted, policy: Policy) -> Step:
    """A Submit for what is prepared, or submitted already and asked for once more."""
    return _decided(tx, Status.SUBMITTED, event, event.request.options.wait_result, policy)


def aborted(tx: Transaction, event: Aborted, policy: Policy) -> Step:
    """An Abort for what is prepared, or aborting already; the first reason is kept.

    Whether the client waits for the end was said when it was prepared, as in dtm.
    """
    if tx.status is Status.PREPARED:
        tx = changed(tx, rollback_reason=shortened(event.request.rollback_reason))
    return _decided(tx, Status.ABORTING, event, tx.options.wait_result, policy)


def woken(tx: Transaction, now: int, policy: Policy) -> Step:
    """Start a round, unless one is running; what is prepared for too long is undone."""
    if tx.round is not None:
        return tx, []
    if tx.status is not Status.PREPARED:
        return _resume(tx, now)
    if now < fails_at(tx, policy):
        return wait_for_timeout(tx, policy)
    # dtm names the option, which is 0 when the server's setting counts
    reason = f"Timeout after {tx.options.timeout_to_fail} seconds"
    tx = changed(tx, rollback_reason=reason)
    return _begin(turned(tx, Status.ABORTING, now, policy), now, ())


def answered(tx: Transaction, event: Answered, policy: Policy) -> Step:
    """A branch of the second phase answered."""
    if event.result is not Result.SUCCESS:
        url = next(b.url for b in tx.branches if b.key == event.key)
        alerts = unknown(event, policy, tx, url)
        interval = interval_after(tx, event.result, policy)
        tx, commands = retry_later(tx, event.now, interval, jitter=event.jitter)
        return tx, [*commands, answer_for(event, _ONGOING), *alerts]
    branches, rows = settled(tx.branches, event.key, BranchStatus.SUCCEED, event.now)
    tx = changed(
        tx,
        branches=branches,
        update_time=event.now,
        next_cron_interval=base_interval(tx, policy),
        round=None,
    )
    return _advance(tx, event.now, rows, [Save(tx, rows, deferred=True)])


def _decided(
    tx: Transaction, status: Status, event: Submitted | Aborted, wait: bool, policy: Policy
) -> Step:
    if tx.round is not None:
        return tx, accepted(wait)  # the running round answers who waits
    if tx.status is Status.PREPARED:
        result = _begin(turned(tx, status, event.now, policy), event.now, ())
    else:
        result = _resume(tx, event.now)
    return behind_saves(result, accepted(wait))


def _begin(tx: Transaction, now: int, rows: tuple[Branch, ...]) -> Step:
    """Start the second phase; that it was decided is durable before anybody is asked."""
    tx, rows = _skip_empty(tx, now, rows)
    return _advance(tx, now, rows, [Save(tx, rows)])


def _resume(tx: Transaction, now: int) -> Step:
    """Go on with the second phase: a retry, or a coordinator that took it over."""
    tx, rows = _skip_empty(tx, now, ())
    return _advance(tx, now, rows, [Save(tx, rows)] if rows else [])


def _advance(tx: Transaction, now: int, rows: tuple[Branch, ...], saved: list[Command]) -> Step:
    pending = _pending(tx)
    if not pending:
        tx = ended(tx, _ENDS[tx.status], now)
        return tx, [Save(tx, rows, release=True), Answer(Outcome.SUCCESS)]
    tx, calls = call(tx, pending[:1])
    return tx, [*saved, *calls]


def _skip_empty(
    tx: Transaction, now: int, rows: tuple[Branch, ...]
) -> tuple[Transaction, tuple[Branch, ...]]:
    """Count branches without a URL as done."""
    empty = marked(tuple(b for b in _pending(tx) if not b.url), BranchStatus.SUCCEED, now)
    if not empty:
        return tx, rows
    return changed(tx, branches=replaced(tx.branches, empty)), merged(rows, empty)


def _pending(tx: Transaction) -> tuple[Branch, ...]:
    """What is still to be asked, in order; rows of the other decision stay as they are."""
    op = _OPS[tx.trans_type, tx.status]
    pending = tuple(b for b in tx.branches if b.op == op and b.status is not BranchStatus.SUCCEED)
    return pending[::-1] if tx.trans_type is TransType.TCC else pending
