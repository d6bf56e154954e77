"""What a transaction does next, as a pure function.

:func:`step` takes a transaction and one event and gives the transaction after it and the commands
that the coordinator carries out, in order. It reads no clock, draws no random number and does no
I/O, so that every order of events can be tried in a test.
"""

from typing import assert_never

from kit.dtm.core import msg
from kit.dtm.core.commands import Answer, Call, Command, Outcome, Reply, Save, Wake
from kit.dtm.core.events import Aborted, Answered, Event, Prepared, Request, Submitted, Woken
from kit.dtm.core.model import Branch, BranchKey, Options, Policy, Round, Transaction, changed
from kit.dtm.wire import Result, Status, TransType, with_result_word

MODES = frozenset({TransType.MSG})
"""The transaction types that this coordinator carries out."""


def step(
    tx: Transaction | None, event: Event, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    """The transaction after ``event`` and what the coordinator does about it, in order.

    Any event may arrive twice, late or too early: what does not fit the state changes nothing.
    ``None`` stands for a gid that nobody has used.

    Source: dtm-labs/dtm dtmsvr/api.go, svcPrepare, svcSubmit, svcAbort.
    """
    match event:
        case Prepared():
            return _prepared(tx, event, policy)
        case Submitted():
            return _submitted(tx, event, policy)
        case Aborted():
            return _aborted(tx, event)
        case Answered():
            if tx is None or tx.round is None or event.key not in tx.round.calling:
                return tx, []
            return msg.answered(tx, event, policy)
        case Woken():
            if tx is None or tx.status.terminal:
                return tx, []
            return msg.woken(tx, event.now, policy)
        case _:
            assert_never(event)


def _prepared(
    tx: Transaction | None, event: Prepared, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    if tx is None:
        if not event.request.branches:
            return None, [_no_steps()]
        return msg.created(event, policy)
    if tx.status is not Status.PREPARED:
        return tx, [_refused(f"current status '{tx.status}', cannot prepare.")]
    if conflict := _conflict(tx, event.request):
        return tx, [conflict]
    return tx, [Reply(Outcome.SUCCESS)]


def _submitted(
    tx: Transaction | None, event: Submitted, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    if tx is None:
        if not event.request.branches:
            return None, [_no_steps()]
        return msg.created(event, policy)
    if tx.status not in (Status.PREPARED, Status.SUBMITTED):
        # dtm's own spelling: clients may look for it
        return tx, [_refused(f"current status '{tx.status}', cannot sumbmit.")]
    if conflict := _conflict(tx, event.request):
        return tx, [conflict]
    if tx.status is Status.PREPARED:
        tx = changed(
            tx,
            options=tx.options.overlaid(event.request.options),
            custom_data=event.request.custom_data or tx.custom_data,
            query_prepared=event.request.query_prepared or tx.query_prepared,
        )
    return msg.submitted(tx, event, policy)


def _aborted(tx: Transaction | None, event: Aborted) -> tuple[Transaction | None, list[Command]]:
    if tx is None:
        return None, [Reply(Outcome.MISSING, f"no TransGlobal with gid: {event.request.gid} found")]
    if tx.status is not Status.PREPARED:
        text = f"trans type: '{tx.trans_type}' current status '{tx.status}', cannot abort."
        return tx, [_refused(text)]
    return msg.aborted(tx, event.now)


def _conflict(tx: Transaction, request: Request) -> Reply | None:
    """Refuse a repeated request that means something else: stored steps never change."""
    if tx.trans_type is not request.trans_type:
        return _refused(f"gid '{tx.gid}' is used by a {tx.trans_type}; choose another gid.")
    if request.branches and [(b.key, b.url, b.payload) for b in request.branches] != [
        (b.key, b.url, b.payload) for b in tx.branches
    ]:
        return _refused(f"gid '{tx.gid}' is stored with other steps; choose another gid.")
    return None


def _refused(text: str) -> Reply:
    return Reply(Outcome.FAILURE, with_result_word(text, Result.FAILURE))


def _no_steps() -> Reply:
    return Reply(Outcome.INVALID, "Steps: there are none; add at least one step to the transaction")


__all__ = [
    "MODES",
    "Aborted",
    "Answer",
    "Answered",
    "Branch",
    "BranchKey",
    "Call",
    "Command",
    "Event",
    "Options",
    "Outcome",
    "Policy",
    "Prepared",
    "Reply",
    "Request",
    "Round",
    "Save",
    "Submitted",
    "Transaction",
    "Wake",
    "Woken",
    "step",
]
