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

import json

from kit.dtm.core.commands import Answer, Call, Command, Outcome, Reply, Save, Wake
from kit.dtm.core.events import Answered, Prepared, Submitted
from kit.dtm.core.model import Branch, Policy, Round, Transaction, changed
from kit.dtm.core.retry import base_interval, doubled_interval, fails_at, retry_at
from kit.dtm.wire import QUERY_BRANCH_ID, BranchStatus, Op, Result, Status, with_result_word

Step = tuple[Transaction, list[Command]]

_RESULT_HINT = (
    "your http/grpc result should be specified as in:\n"
    "SUCCESS, FAILURE or ONGOING, by status. unkown result will be retried: "
)
"""dtm's words, its spelling included: clients show them."""

_NOT_SUCCESS = with_result_word("wait result not return success:", Result.FAILURE)


def created(event: Prepared | Submitted, policy: Policy) -> Step:
    """The transaction that a first Prepare or Submit makes."""
    request = event.request
    tx = Transaction(
        gid=request.gid,
        trans_type=request.trans_type,
        status=Status.PREPARED if isinstance(event, Prepared) else Status.SUBMITTED,
        protocol=request.protocol,
        query_prepared=request.query_prepared,
        custom_data=request.custom_data,
        options=request.options,
        branches=request.branches,
        create_time=event.now,
        update_time=event.now,
    )
    base = base_interval(tx, policy)
    if isinstance(event, Prepared):
        tx = changed(tx, next_cron_interval=base, next_cron_time=fails_at(tx, policy))
        return tx, [Save(tx, tx.branches, release=True), Reply(Outcome.SUCCESS), _wake(tx)]
    tx = changed(tx, next_cron_interval=base, next_cron_time=event.now + base * 1000)
    return _begin(tx, event.now, tx.branches, _accepted(event))


def submitted(tx: Transaction, event: Submitted, policy: Policy) -> Step:
    """A Submit for a message that is prepared, or submitted already and asked for once more."""
    if tx.status is Status.PREPARED:
        base = base_interval(tx, policy)
        tx = changed(
            tx,
            status=Status.SUBMITTED,
            update_time=event.now,
            next_cron_interval=base,
            next_cron_time=event.now + base * 1000,
            round=None,  # a query-prepared in flight has lost its question
        )
        return _begin(tx, event.now, (), _accepted(event))
    if tx.round is not None:
        return tx, _accepted(event)  # the running round answers who waits
    tx, commands = woken(tx, event.now, policy)
    saves = [command for command in commands if isinstance(command, Save)]
    return tx, [*saves, *_accepted(event), *commands[len(saves) :]]


def aborted(tx: Transaction, now: int) -> Step:
    """An Abort for a message that is still prepared."""
    tx = _ended(tx, Status.FAILED, now)
    return tx, [Save(tx, release=True), Reply(Outcome.SUCCESS)]


def woken(tx: Transaction, now: int, policy: Policy) -> Step:
    """Start a round, unless one is running or nothing is to be done yet."""
    if tx.round is not None:
        return tx, []
    if tx.status is Status.SUBMITTED:
        return _resume(tx, now)
    due = fails_at(tx, policy)
    if now < due:
        tx = changed(tx, next_cron_time=due)
        return tx, [Save(tx, release=True), _wake(tx)]
    if not tx.query_prepared:  # dtm sends a message whose sender cannot be asked
        tx = changed(tx, status=Status.SUBMITTED, update_time=now)
        return _begin(tx, now, (), [])
    query = Branch(QUERY_BRANCH_ID, Op.MSG, tx.query_prepared)
    return _call(tx, (query,))


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
    tx = changed(tx, round=None)
    match event.result:
        case Result.SUCCESS:
            base = base_interval(tx, policy)
            tx = changed(
                tx,
                status=Status.SUBMITTED,
                update_time=event.now,
                next_cron_interval=base,
                next_cron_time=event.now + base * 1000,
            )
            return _begin(tx, event.now, (), [])
        case Result.FAILURE:
            tx = _ended(
                changed(tx, rollback_reason=_shortened(event.text)), Status.FAILED, event.now
            )
            return tx, [Save(tx, release=True)]
        case Result.ONGOING:
            return _retry_later(tx, event, base_interval(tx, policy))
        case Result.UNKNOWN:
            return _retry_later(tx, event, doubled_interval(tx, policy))


def _succeeded(tx: Transaction, event: Answered, policy: Policy, running: Round) -> Step:
    rows = tuple(
        changed(b, status=BranchStatus.SUCCEED, finish_time=event.now)
        for b in tx.branches
        if b.key == event.key
    )
    branches = _with(tx.branches, rows)
    pending = _pending(branches)
    if not pending:
        tx = _ended(tx, Status.SUCCEED, event.now, branches)
        return tx, [Save(tx, rows, release=True), Answer(Outcome.SUCCESS)]
    if running.calling:
        tx = changed(tx, branches=branches, update_time=event.now, round=running)
        return tx, [Save(tx, rows, deferred=True)]
    if running.failed is not None:
        tx = changed(tx, branches=branches, round=running)
        return _round_failed(tx, event, policy, rows)
    following = pending[0]
    tx = changed(
        tx,
        branches=branches,
        update_time=event.now,
        next_cron_interval=base_interval(tx, policy),
        round=Round(frozenset((following.key,))),
    )
    return tx, [Save(tx, rows, deferred=True), Call(following, tx.options.request_timeout)]


def _did_not_succeed(tx: Transaction, event: Answered, policy: Policy, running: Round) -> Step:
    """Remember the failure; the client need not wait for the other calls of a concurrent round."""
    answers: list[Command] = [_answer_for(event)] if running.failed is None else []
    if running.failed in (None, Result.ONGOING):
        running = Round(running.calling, event.result)
    tx = changed(tx, round=running)
    if running.calling:
        return tx, answers
    tx, commands = _round_failed(tx, event, policy, ())
    return tx, [*commands, *answers]


def _round_failed(
    tx: Transaction, event: Answered, policy: Policy, rows: tuple[Branch, ...]
) -> Step:
    """End a round with failures; however many there were, the interval doubles once."""
    assert tx.round is not None
    if tx.round.failed is Result.ONGOING:
        interval = max(tx.next_cron_interval, base_interval(tx, policy))
    else:
        interval = doubled_interval(tx, policy)
    return _retry_later(tx, event, interval, rows)


def _retry_later(
    tx: Transaction, event: Answered, interval: int, rows: tuple[Branch, ...] = ()
) -> Step:
    tx = changed(
        tx,
        round=None,
        update_time=event.now,
        next_cron_interval=interval,
        next_cron_time=retry_at(event.now, interval, event.jitter),
    )
    return tx, [Save(tx, rows, release=True), _wake(tx)]


def _begin(tx: Transaction, now: int, rows: tuple[Branch, ...], accepted: list[Command]) -> Step:
    """Save a message that just became submitted; carry it out, or wait when it is delayed."""
    if delay := delay_of(tx.custom_data):
        tx = changed(tx, next_cron_time=now + delay * 1000)
        save = Save(tx, rows, release=True)
        return tx, [save, *accepted, _wake(tx), Answer(Outcome.FAILURE, _NOT_SUCCESS)]
    tx, rows, ended = _skip_empty(tx, rows, now)
    if ended:
        return tx, [Save(tx, rows, release=True), *accepted, Answer(Outcome.SUCCESS)]
    saved = Save(tx, rows)
    tx, calls = _call(tx, _next_branches(tx))
    return tx, [saved, *accepted, *calls]


def _resume(tx: Transaction, now: int) -> Step:
    """Go on with a submitted message: a retry, or a coordinator that took it over."""
    due = tx.next_cron_time
    if delay_of(tx.custom_data) and due is not None and now < due:  # submitted again meanwhile
        return tx, [
            Save(tx, release=True),
            _wake(tx),
            Answer(Outcome.FAILURE, _NOT_SUCCESS),
        ]
    tx, rows, ended = _skip_empty(tx, (), now)
    if ended:
        return tx, [Save(tx, rows, release=True), Answer(Outcome.SUCCESS)]
    return _call(tx, _next_branches(tx))


def _skip_empty(
    tx: Transaction, rows: tuple[Branch, ...], now: int
) -> tuple[Transaction, tuple[Branch, ...], bool]:
    """Count branches without a URL as done; tell whether that was all there was to do."""
    empty = tuple(
        changed(b, status=BranchStatus.SUCCEED, finish_time=now)
        for b in tx.branches
        if not b.url and b.status is BranchStatus.PREPARED
    )
    if empty:
        tx = changed(tx, branches=_with(tx.branches, empty))
        rows = tuple({b.key: b for b in (*rows, *empty)}.values())
    if not _pending(tx.branches):
        return _ended(tx, Status.SUCCEED, now), rows, True
    return tx, rows, False


def _call(tx: Transaction, branches: tuple[Branch, ...]) -> Step:
    running = Round() if tx.round is None else tx.round
    calling = running.calling | {b.key for b in branches}
    tx = changed(tx, round=changed(running, calling=calling))
    return tx, [Call(b, tx.options.request_timeout) for b in branches]


def _next_branches(tx: Transaction) -> tuple[Branch, ...]:
    pending = _pending(tx.branches)
    return pending if is_concurrent(tx) else pending[:1]


def _pending(branches: tuple[Branch, ...]) -> tuple[Branch, ...]:
    return tuple(b for b in branches if b.status is BranchStatus.PREPARED)


def _with(branches: tuple[Branch, ...], rows: tuple[Branch, ...]) -> tuple[Branch, ...]:
    new = {b.key: b for b in rows}
    return tuple(new.get(b.key, b) for b in branches)


def _ended(
    tx: Transaction, status: Status, now: int, branches: tuple[Branch, ...] | None = None
) -> Transaction:
    return changed(
        tx,
        status=status,
        branches=tx.branches if branches is None else branches,
        update_time=now,
        finish_time=now if status is Status.SUCCEED else None,
        rollback_time=now if status is Status.FAILED else None,
        next_cron_time=None,
        round=None,
    )


def _accepted(event: Submitted) -> list[Command]:
    """The immediate reply, unless the client wants to hear the end of the round."""
    return [] if event.request.options.wait_result else [Reply(Outcome.SUCCESS)]


def _answer_for(event: Answered) -> Answer:
    match event.result:
        case Result.ONGOING:
            return Answer(Outcome.FAILURE, _NOT_SUCCESS)
        case Result.FAILURE:
            text = with_result_word(_RESULT_HINT + event.text, Result.FAILURE)
            return Answer(Outcome.FAILURE, text)
        case _:
            return Answer(Outcome.UNKNOWN, event.text, event.code)


def _wake(tx: Transaction) -> Wake:
    assert tx.next_cron_time is not None
    return Wake(tx.next_cron_time)


def _shortened(text: str, limit: int = 1024) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def delay_of(custom_data: str) -> int:
    """Seconds that a message is to be delayed; ``{"delay": 5}`` in its custom data.

    >>> delay_of('{"delay":5}'), delay_of("")
    (5, 0)
    """
    delay = _custom(custom_data).get("delay")
    return delay if isinstance(delay, int) and delay > 0 else 0


def is_concurrent(tx: Transaction) -> bool:
    """Whether all branches are called at once.

    dtm's gRPC options have no such field, so ``{"concurrent": true}`` in the custom data is
    read as well; dtm ignores it there.
    """
    return tx.options.concurrent or _custom(tx.custom_data).get("concurrent") is True


def _custom(custom_data: str) -> dict[str, object]:
    """Custom data as a mapping; what is not one was never checked by our API and says nothing."""
    try:
        decoded = json.loads(custom_data or "{}")
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}
