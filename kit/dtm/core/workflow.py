"""Workflow: its sender runs it and says how it ended; the coordinator calls back until it does.

::

    prepared ──submit with status succeed──► succeed
        └─────submit with status failed────► failed

Progress is registered while the workflow runs, also while the coordinator's own call makes it run.
A callback is asked with the workflow's name as operation and its data as payload. Whatever it
answers, the end comes by Submit: after SUCCESS and ONGOING it is asked again at the base interval,
after everything else at twice the last one up to the ceiling. (dtm repeats it at a fixed interval,
although its documentation promises the back-off.)

Source: dtm-labs/dtm dtmsvr/trans_type_workflow.go; api.go, svcSubmit and svcPrepareWorkflow.
"""

import base64

from kit.dtm.core.commands import Command, Outcome, Reply, Save
from kit.dtm.core.events import Answered, Prepared, Submitted
from kit.dtm.core.model import Branch, Policy, Transaction
from kit.dtm.core.retry import base_interval, doubled_interval
from kit.dtm.core.rounds import (
    Step,
    call,
    custom,
    ended,
    opened,
    retry_later,
    shortened,
    stored,
    unknown,
)
from kit.dtm.wire import QUERY_BRANCH_ID, Result, Status
from kit.value import changed

NOT_FOUND = Reply(Outcome.MISSING, "storage: NotFound")
"""dtm's words for the end of a workflow that is not prepared."""


def created(event: Prepared | Submitted, policy: Policy) -> Step:
    """The workflow that a first Prepare makes; its sender is asked after the base interval."""
    tx, commands = stored(opened(event, policy))
    return tx, [_told(tx) if isinstance(c, Reply) else c for c in commands]


def prepared_again(tx: Transaction) -> Step:
    """A Prepare for a workflow that is stored: its sender hears how far it is."""
    return tx, [_told(tx)]


def submitted(tx: Transaction, event: Submitted, _: Policy) -> Step:
    """The end of a workflow, as its sender says. A callback in flight is of no interest any more.

    Its sender may say so to another coordinator than the one that calls back.
    """
    request = event.request
    if tx.status is not Status.PREPARED:
        return tx, [NOT_FOUND]
    if request.final_status is None:
        text = "ReqExtra.status: it is missing; say how the workflow ended, succeed or failed"
        return tx, [Reply(Outcome.INVALID, text)]
    tx = changed(tx, rollback_reason=shortened(request.rollback_reason), result=request.result)
    tx = ended(tx, request.final_status, event.now)
    return tx, [Save(tx, release=True, force=True), Reply(Outcome.SUCCESS)]


def woken(tx: Transaction, now: int, policy: Policy) -> Step:
    """Ask the sender to go on, unless it is being asked; without a URL, only wait."""
    if tx.round is not None:
        return tx, []
    if not tx.query_prepared:
        return retry_later(tx, now, doubled_interval(tx, policy))
    return call(tx, (_callback(tx),))


def answered(tx: Transaction, event: Answered, policy: Policy) -> Step:
    """The sender answered; a FAILURE is not the end either, which only a Submit brings."""
    interval = base_interval(tx, policy)
    alerts: list[Command] = []
    if event.result not in (Result.SUCCESS, Result.ONGOING):
        alerts = unknown(event, policy, tx, tx.query_prepared)
        interval = doubled_interval(tx, policy)
    tx, commands = retry_later(tx, event.now, interval, jitter=event.jitter)
    return tx, [*commands, *alerts]


def _callback(tx: Transaction) -> Branch:
    data = custom(tx.custom_data)
    name, payload = data.get("name"), data.get("data")
    op = name if isinstance(name, str) else ""
    return Branch(QUERY_BRANCH_ID, op, tx.query_prepared, _decoded(payload))


def _decoded(payload: object) -> bytes:
    if not isinstance(payload, str):
        return b""
    try:
        return base64.b64decode(payload)
    except ValueError:  # never checked by our API
        return b""


def _told(tx: Transaction) -> Reply:
    return Reply(Outcome.SUCCESS, tx=tx)
