"""What can happen to a transaction. Every event brings the time: the core reads no clock."""

from dataclasses import field
from typing import TypeAlias

from kit.dtm.core.model import Branch, BranchKey, Options
from kit.dtm.wire import Protocol, Result, Status, TransType
from kit.value import value


@value
class Request:
    """What a client asks for, checked for form but not yet for what is stored.

    Attributes:
        branches: made out of steps and payloads, or to be registered; empty when the client did not
            repeat them.
        rollback_reason: abort, and the submit of a workflow.
        final_status: the submit of a workflow: what became of it, succeed or failed.
        result: the submit of a workflow: what it gave.
    """

    gid: str
    trans_type: TransType
    protocol: Protocol = Protocol.GRPC
    branches: tuple[Branch, ...] = ()
    query_prepared: str = ""
    custom_data: str = ""
    options: Options = field(default_factory=Options)
    rollback_reason: str = ""
    final_status: Status | None = None
    result: str = ""


@value
class Prepared:
    """A client wants the transaction stored, to be submitted or aborted later."""

    now: int
    request: Request


@value
class Submitted:
    """A client wants the transaction carried out."""

    now: int
    request: Request


@value
class Aborted:
    """A client wants the transaction undone."""

    now: int
    request: Request


@value
class Registered:
    """A client brings branches of a prepared transaction: tcc, xa; or progress of a workflow."""

    now: int
    request: Request


@value
class Stopped:
    """An operator ends the transaction as failed; no branch is called any more (dtm's forceStop).

    Attributes:
        reason: kept as the rollback reason when it is given.
    """

    now: int
    gid: str
    reason: str = ""


@value
class Answered:
    """A branch was called, and this became of it.

    Attributes:
        text: what it said, or why the call failed.
        code: the gRPC code of the answer, when there was one.
        jitter: a random number in [0, 1) that spreads retries.
    """

    now: int
    key: BranchKey
    result: Result
    text: str = ""
    code: int | None = None
    jitter: float = 0.0


@value
class Woken:
    """The transaction is due, or the coordinator is back from a crash."""

    now: int


ApiEvent: TypeAlias = Prepared | Submitted | Aborted | Registered | Stopped
"""What comes from outside and is replied to."""

Event: TypeAlias = ApiEvent | Answered | Woken
