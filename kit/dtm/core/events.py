"""What can happen to a transaction. Every event brings the time: the core reads no clock."""

from dataclasses import dataclass, field
from typing import TypeAlias

from kit.dtm.core.model import Branch, BranchKey, Options
from kit.dtm.wire import Protocol, Result, TransType


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, checked for form but not yet for what is stored.

    Attributes:
        branches: made out of steps and payloads; empty when the client did not repeat them.
        rollback_reason: abort only.
    """

    gid: str
    trans_type: TransType
    protocol: Protocol = Protocol.GRPC
    branches: tuple[Branch, ...] = ()
    query_prepared: str = ""
    custom_data: str = ""
    options: Options = field(default_factory=Options)
    rollback_reason: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A client wants the transaction stored, to be submitted or aborted later."""

    now: int
    request: Request


@dataclass(frozen=True, slots=True)
class Submitted:
    """A client wants the transaction carried out."""

    now: int
    request: Request


@dataclass(frozen=True, slots=True)
class Aborted:
    """A client wants the transaction undone."""

    now: int
    request: Request


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Woken:
    """The transaction is due, or the coordinator is back from a crash."""

    now: int


Event: TypeAlias = Prepared | Submitted | Aborted | Answered | Woken
