"""What a transaction does next, as a pure function.

:func:`step` takes a transaction and one event and gives the transaction after it and the commands
that the coordinator carries out, in order. It reads no clock, draws no random number and does no
I/O, so that every order of events can be tried in a test.
"""

from typing import Protocol, assert_never

from kit.dtm.core import msg, saga, twophase, workflow
from kit.dtm.core.commands import Alert, Answer, Call, Command, Outcome, Reply, Save, Wake
from kit.dtm.core.events import (
    Aborted,
    Answered,
    ApiEvent,
    Event,
    Prepared,
    Registered,
    Request,
    Stopped,
    Submitted,
    Woken,
)
from kit.dtm.core.model import Branch, BranchKey, Options, Policy, Round, Transaction
from kit.dtm.core.rounds import ended, failure, marked, shortened
from kit.dtm.wire import (
    MAX_BRANCHES,
    BranchStatus,
    Result,
    Status,
    TransType,
    with_result_word,
)
from kit.value import changed


class _Mode(Protocol):
    """What the module of a transaction type decides."""

    def created(
        self, event: Prepared | Submitted, policy: Policy
    ) -> tuple[Transaction, list[Command]]: ...

    def submitted(
        self, tx: Transaction, event: Submitted, policy: Policy, /
    ) -> tuple[Transaction, list[Command]]: ...

    def woken(
        self, tx: Transaction, now: int, policy: Policy
    ) -> tuple[Transaction, list[Command]]: ...

    def answered(
        self, tx: Transaction, event: Answered, policy: Policy
    ) -> tuple[Transaction, list[Command]]: ...


_MODES: dict[TransType, _Mode] = {
    TransType.MSG: msg,
    TransType.SAGA: saga,
    TransType.TCC: twophase,
    TransType.XA: twophase,
    TransType.WORKFLOW: workflow,
}

MODES = frozenset(_MODES)
"""The transaction types that this coordinator carries out."""

_WITH_STEPS = frozenset({TransType.MSG, TransType.SAGA})
"""Types whose branches come with the first request; those of the others are registered."""


def step(
    tx: Transaction | None, event: Event, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    """The transaction after ``event`` and what the coordinator does about it, in order.

    Any event may arrive twice, late or too early: what does not fit the state changes nothing.
    ``None`` stands for a gid that nobody has used.

    Source: dtm-labs/dtm dtmsvr/api.go.
    """
    match event:  # the most frequent ones first
        case Answered():
            if tx is None or tx.round is None or event.key not in tx.round.calling:
                return tx, []
            return _MODES[tx.trans_type].answered(tx, event, policy)
        case Submitted():
            return _submitted(tx, event, policy)
        case Prepared():
            return _prepared(tx, event, policy)
        case Aborted():
            return _aborted(tx, event, policy)
        case Registered():
            return _registered(tx, event)
        case Stopped():
            return _stopped(tx, event)
        case Woken():
            if tx is None or tx.status.terminal:
                return tx, []
            return _MODES[tx.trans_type].woken(tx, event.now, policy)
        case _:
            assert_never(event)


def _prepared(
    tx: Transaction | None, event: Prepared, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    """Source: dtm-labs/dtm dtmsvr/api.go, svcPrepare, svcPrepareWorkflow."""
    if tx is None:
        return _created(event, policy)
    is_workflow = event.request.trans_type is TransType.WORKFLOW
    if tx.status is not Status.PREPARED and not is_workflow:
        return tx, [_refused(f"current status '{tx.status}', cannot prepare.")]
    if conflict := _conflict(tx, event.request):
        return tx, [conflict]
    if is_workflow:
        return workflow.prepared_again(tx)
    return tx, [Reply(Outcome.SUCCESS)]


def _submitted(
    tx: Transaction | None, event: Submitted, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    """Source: dtm-labs/dtm dtmsvr/api.go, svcSubmit."""
    is_workflow = event.request.trans_type is TransType.WORKFLOW
    if tx is None:
        return (None, [workflow.NOT_FOUND]) if is_workflow else _created(event, policy)
    if tx.status not in (Status.PREPARED, Status.SUBMITTED) and not is_workflow:
        # dtm's own spelling: clients may look for it
        return tx, [_refused(f"current status '{tx.status}', cannot sumbmit.")]
    if conflict := _conflict(tx, event.request):
        return tx, [conflict]
    if tx.status is Status.PREPARED and not is_workflow:
        tx = changed(
            tx,
            options=tx.options.overlaid(event.request.options),
            custom_data=event.request.custom_data or tx.custom_data,
            query_prepared=event.request.query_prepared or tx.query_prepared,
        )
    return _MODES[tx.trans_type].submitted(tx, event, policy)


def _created(
    event: Prepared | Submitted, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    request = event.request
    if request.trans_type in _WITH_STEPS and not request.branches:
        text = "Steps: there are none; add at least one step to the transaction"
        return None, [Reply(Outcome.INVALID, text)]
    return _MODES[request.trans_type].created(event, policy)


def _aborted(
    tx: Transaction | None, event: Aborted, policy: Policy
) -> tuple[Transaction | None, list[Command]]:
    """Source: dtm-labs/dtm dtmsvr/api.go, svcAbort."""
    if tx is None:
        return None, [_nobody(event.request.gid)]
    match tx.trans_type, tx.status:
        case TransType.MSG, Status.PREPARED:
            return msg.aborted(tx, event)
        case (TransType.TCC | TransType.XA) as stored, Status.PREPARED | Status.ABORTING:
            if event.request.trans_type is stored:
                return twophase.aborted(tx, event, policy)
    text = f"trans type: '{tx.trans_type}' current status '{tx.status}', cannot abort."
    return tx, [_refused(text)]


def _registered(
    tx: Transaction | None, event: Registered
) -> tuple[Transaction | None, list[Command]]:
    """Add branches to a prepared transaction.

    Progress of a workflow arrives while it is being called back, by this coordinator or another:
    it is added whoever holds the lease. Branches of tcc and xa need the lease: no abort that is
    about to begin may miss them.

    Source: dtm-labs/dtm dtmsvr/api.go, svcRegisterBranch.
    """
    request = event.request
    if tx is None or tx.status is not Status.PREPARED:
        return tx, [_refused(f"no trans with gid: {request.gid} status: prepared found")]
    if tx.trans_type is not request.trans_type:
        return tx, [_used(tx)]
    if tx.trans_type in _WITH_STEPS:
        text = f"TransType: branches of a {tx.trans_type} come with its steps, none are registered"
        return tx, [Reply(Outcome.INVALID, text)]
    rows = tuple(
        b if b.status is BranchStatus.PREPARED else marked((b,), b.status, event.now)[0]
        for b in request.branches
    )
    branches = (*tx.branches, *rows)
    if len({b.key for b in branches}) < len(branches):
        return tx, [Reply(Outcome.UNKNOWN, "storage: UniqueKeyConflict")]
    if len(branches) > MAX_BRANCHES:
        text = f"BranchID: {len(branches)} operations are too many; at most {MAX_BRANCHES} are kept"
        return tx, [Reply(Outcome.INVALID, text)]
    tx = changed(tx, branches=branches)
    if tx.trans_type is TransType.WORKFLOW:
        return tx, [Save(tx, rows, append=True), Reply(Outcome.SUCCESS)]
    return tx, [Save(tx, rows, release=True), Reply(Outcome.SUCCESS)]


def _stopped(tx: Transaction | None, event: Stopped) -> tuple[Transaction | None, list[Command]]:
    """End a transaction as failed, whatever is going on; answers that come later are ignored.

    Source: dtm-labs/dtm dtmsvr/api.go, svcForceStop.
    """
    if tx is None:
        return None, [_nobody(event.gid)]
    if tx.status.terminal:
        text = f"global transaction force stop error. status: {tx.status}. error:"
        return tx, [_refused(text)]
    told = [] if tx.round is None else [failure(event.reason or tx.rollback_reason)]
    tx = changed(tx, rollback_reason=shortened(event.reason) or tx.rollback_reason)
    tx = ended(tx, Status.FAILED, event.now)
    return tx, [Save(tx, release=True, force=True), Reply(Outcome.SUCCESS), *told]


def _conflict(tx: Transaction, request: Request) -> Reply | None:
    """Refuse a repeated request that means something else: stored steps never change."""
    if tx.trans_type is not request.trans_type:
        return _used(tx)
    if request.branches and [(b.key, b.url, b.payload) for b in request.branches] != [
        (b.key, b.url, b.payload) for b in tx.branches
    ]:
        return _refused(f"gid '{tx.gid}' is stored with other steps; choose another gid.")
    return None


def _used(tx: Transaction) -> Reply:
    return _refused(f"gid '{tx.gid}' is used by a {tx.trans_type}; choose another gid.")


def _nobody(gid: str) -> Reply:
    return Reply(Outcome.MISSING, f"no TransGlobal with gid: {gid} found")


def _refused(text: str) -> Reply:
    return Reply(Outcome.FAILURE, with_result_word(text, Result.FAILURE))


__all__ = [
    "MODES",
    "Aborted",
    "Alert",
    "Answer",
    "Answered",
    "ApiEvent",
    "Branch",
    "BranchKey",
    "Call",
    "Command",
    "Event",
    "Options",
    "Outcome",
    "Policy",
    "Prepared",
    "Registered",
    "Reply",
    "Request",
    "Round",
    "Save",
    "Stopped",
    "Submitted",
    "Transaction",
    "Wake",
    "Woken",
    "step",
]
