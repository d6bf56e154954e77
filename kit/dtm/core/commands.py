"""What the coordinator does about an event.

The engine runs commands in order; it contains no rule of any mode.
"""

from enum import StrEnum
from typing import TypeAlias

from kit.dtm.core.model import Branch, Transaction
from kit.value import value


class Outcome(StrEnum):
    """How an API call ends."""

    SUCCESS = "success"
    FAILURE = "failure"
    """A definite no, gRPC ABORTED, HTTP 409."""
    ONGOING = "ongoing"
    """Not decided yet, gRPC FAILED_PRECONDITION, HTTP 425."""
    INVALID = "invalid"
    """The request can never work, gRPC INVALID_ARGUMENT, HTTP 400."""
    MISSING = "missing"
    """There is no such transaction, gRPC INTERNAL, HTTP 500, as dtm answers."""
    UNKNOWN = "unknown"
    """A branch could not be asked; the coordinator goes on trying."""


@value
class Save:
    """Write ``tx`` and these rows; durable before what follows leaves.

    Attributes:
        branches: exactly the rows that change.
        deferred: may ride with the next save of this transaction: a crash in between repeats one
            branch call, and changes no outcome. The engine bounds the wait.
        release: nothing is going on any more: the lease is given back.
        force: the end of the transaction, which another coordinator's round cannot hold up: a
            workflow's own Submit, an operator's stop.
        append: the rows are new and nothing else changes, so no lease is needed: progress of a
            workflow, which its sender may report to another coordinator than the one that called.
    """

    tx: Transaction
    branches: tuple[Branch, ...] = ()
    deferred: bool = False
    release: bool = False
    force: bool = False
    append: bool = False


@value
class Call:
    """Ask a branch; its answer comes back as :class:`~kit.dtm.core.events.Answered`.

    Attributes:
        timeout: seconds; 0 means the server's setting.
    """

    branch: Branch
    timeout: int = 0


@value
class Reply:
    """Answer the API call that brought this event.

    Attributes:
        tx: the stored transaction, for whom prepares a workflow that is known already.
    """

    outcome: Outcome
    text: str = ""
    tx: Transaction | None = None


@value
class Answer:
    """Answer every client that waits for the round.

    Attributes:
        code: the gRPC code of the branch that made the round fail, when there was one.
    """

    outcome: Outcome
    text: str = ""
    code: int | None = None


@value
class Wake:
    """The transaction is due at this instant (milliseconds)."""

    at: int


@value
class Alert:
    """Tell whoever watches that a branch gives no usable answer again and again.

    Attributes:
        branch: its URL.
        error: what it said last, or why it could not be asked.
        retry_count: doublings of the interval since the first try.
    """

    branch: str
    error: str
    retry_count: int


Command: TypeAlias = Save | Call | Reply | Answer | Wake | Alert
