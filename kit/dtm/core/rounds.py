"""What the rounds of several modes have in common.

Source: dtm-labs/dtm dtmsvr/trans_status.go, trans_process.go.
"""

import json
import math
from collections.abc import Mapping
from functools import lru_cache

from kit.dtm.core.commands import Alert, Answer, Call, Command, Outcome, Reply, Save, Wake
from kit.dtm.core.events import Answered, Prepared, Submitted
from kit.dtm.core.model import Branch, BranchKey, Policy, Round, Transaction
from kit.dtm.core.retry import base_interval, doubled_interval, fails_at, retry_at
from kit.dtm.wire import BranchStatus, Result, Status, with_result_word
from kit.value import changed

Step = tuple[Transaction, list[Command]]

MAX_REASON_CHARS = 1024
"""Of a rollback reason as it is stored."""

MAX_REMEMBERED_CHARS = 1024
"""Of custom data that need not be decoded for each event."""

_NOT_SUCCESS = with_result_word("wait result not return success:", Result.FAILURE)

_RESULT_HINT = (
    "your http/grpc result should be specified as in:\n"
    "SUCCESS, FAILURE or ONGOING, by status. unkown result will be retried: "
)
"""dtm's words, its spelling included: clients show them."""


def opened(event: Prepared | Submitted, policy: Policy) -> Transaction:
    """The transaction that a first Prepare or Submit makes, due after its base interval."""
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
    return changed(tx, next_cron_interval=base, next_cron_time=event.now + base * 1000)


def stored(tx: Transaction) -> Step:
    """Store a transaction that its client goes on with later."""
    return tx, [Save(tx, tx.branches, release=True), Reply(Outcome.SUCCESS), wake(tx)]


def turned(tx: Transaction, status: Status, now: int, policy: Policy) -> Transaction:
    """``tx`` in another status that is not the last: its intervals begin anew, no call counts."""
    base = base_interval(tx, policy)
    return changed(
        tx,
        status=status,
        update_time=now,
        next_cron_interval=base,
        next_cron_time=now + base * 1000,
        round=None,
    )


def ended(
    tx: Transaction, status: Status, now: int, branches: tuple[Branch, ...] | None = None
) -> Transaction:
    """``tx`` in its last status."""
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


def call(tx: Transaction, branches: tuple[Branch, ...]) -> Step:
    """Ask ``branches``, beside those that are being asked."""
    keys = frozenset([b.key for b in branches])
    running = tx.round
    if running is None:
        running = Round(keys)
    else:
        running = Round(running.calling | keys, running.failed, running.tried)
    tx = changed(tx, round=running)
    return tx, [Call(b, tx.options.request_timeout) for b in branches]


def retry_later(
    tx: Transaction,
    now: int,
    interval: int,
    rows: tuple[Branch, ...] = (),
    *,
    jitter: float = 0.0,
    latest: int | None = None,
) -> Step:
    """End the round; the next begins ``interval`` seconds from now, not after ``latest``."""
    due = retry_at(now, interval, jitter)
    tx = changed(
        tx,
        round=None,
        update_time=now,
        next_cron_interval=interval,
        next_cron_time=due if latest is None else min(due, latest),
    )
    return tx, [Save(tx, rows, release=True), wake(tx)]


def wait_for_timeout(tx: Transaction, policy: Policy) -> Step:
    """Leave a prepared transaction alone until it is timed out."""
    tx = changed(tx, next_cron_time=fails_at(tx, policy))
    return tx, [Save(tx, release=True), wake(tx)]


def wake(tx: Transaction) -> Wake:
    """Say when ``tx`` is due."""
    assert tx.next_cron_time is not None
    return Wake(tx.next_cron_time)


def accepted(wait: bool) -> list[Command]:
    """The immediate reply, unless the client wants to hear the end of the round."""
    return [] if wait else [Reply(Outcome.SUCCESS)]


def behind_saves(result: Step, replies: list[Command]) -> Step:
    """``result`` with the reply of the API call that brought it about, once it is durable."""
    tx, commands = result
    saves = [command for command in commands if isinstance(command, Save)]
    return tx, [*saves, *replies, *commands[len(saves) :]]


def unknown(event: Answered, policy: Policy, tx: Transaction, url: str) -> list[Command]:
    """The alert that an answer without a usable result gives rise to, if any.

    Source: dtm-labs/dtm dtmsvr/trans_process.go and trans_status.go (execBranch, alerts).
    """
    if event.result is Result.ONGOING:
        return []
    interval, base = doubled_interval(tx, policy), base_interval(tx, policy)
    doublings = int(math.log2(interval / base))
    if doublings < policy.alert_retry_limit and interval < policy.retry_max_interval:
        return []
    return [Alert(url, event.text, doublings)]


def answer_for(event: Answered, ongoing: Answer) -> Answer:
    """What waiting clients hear about a branch that did not succeed.

    Args:
        event: the answer of the branch.
        ongoing: what they hear when it goes on.
    """
    match event.result:
        case Result.ONGOING:
            return ongoing
        case Result.FAILURE:
            text = with_result_word(_RESULT_HINT + event.text, Result.FAILURE)
            return Answer(Outcome.FAILURE, text)
        case _:
            return Answer(Outcome.UNKNOWN, event.text, event.code)


def failure(reason: str) -> Answer:
    """What waiting clients hear when a round did not end in success, though no branch is to blame.

    Args:
        reason: why the transaction fails; empty while it does not.
    """
    text = with_result_word(reason, Result.FAILURE) if reason else _NOT_SUCCESS
    return Answer(Outcome.FAILURE, text)


def telling(before: Result | None, answer: Result) -> Result:
    """What is kept of two answers that were no success: ONGOING says least."""
    return answer if before is None or before is Result.ONGOING else before


def marked(branches: tuple[Branch, ...], status: BranchStatus, now: int) -> tuple[Branch, ...]:
    """``branches`` with their end."""
    return tuple(changed(b, status=status, finish_time=now) for b in branches)


def settled(
    branches: tuple[Branch, ...], key: BranchKey, status: BranchStatus, now: int
) -> tuple[tuple[Branch, ...], tuple[Branch, ...]]:
    """``branches`` with the end of the one that has ``key``, and its row alone."""
    branch_id, op = key
    for index, branch in enumerate(branches):
        if branch.branch_id == branch_id and branch.op == op:
            row = changed(branch, status=status, finish_time=now)
            return (*branches[:index], row, *branches[index + 1 :]), (row,)
    return branches, ()


def replaced(branches: tuple[Branch, ...], rows: tuple[Branch, ...]) -> tuple[Branch, ...]:
    """``branches`` with those that have a successor in ``rows`` replaced, in the same order."""
    new = {b.key: b for b in rows}
    return tuple(new.get(b.key, b) for b in branches)


def merged(rows: tuple[Branch, ...], later: tuple[Branch, ...]) -> tuple[Branch, ...]:
    """Rows to be written, with later versions in place of earlier ones."""
    return tuple({b.key: b for b in (*rows, *later)}.values())


def shortened(text: str) -> str:
    """``text`` as it can be stored: without NUL, and not longer than a reason may be."""
    text = text.replace("\0", "\ufffd")
    return text if len(text) <= MAX_REASON_CHARS else text[: MAX_REASON_CHARS - 1] + "…"


def custom(custom_data: str) -> Mapping[str, object]:
    """Custom data as a mapping; what is not one was never checked by our API and says nothing."""
    if not custom_data:
        return {}
    return (
        _short(custom_data) if len(custom_data) <= MAX_REMEMBERED_CHARS else _decoded(custom_data)
    )


def _decoded(custom_data: str) -> Mapping[str, object]:
    try:
        decoded = json.loads(custom_data)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


_short = lru_cache(maxsize=256)(_decoded)
"""A saga looks at its custom data in each of its steps."""
