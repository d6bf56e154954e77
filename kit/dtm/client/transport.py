"""The coordinator's API as the client needs it, whichever protocol carries it."""

from dataclasses import dataclass
from typing import Protocol as TypingProtocol

from kit.dtm.client.errors import DtmUnavailable, Refused
from kit.dtm.client.messages import BranchRequest, Operation, TransRequest
from kit.dtm.errors import DtmError, Failure, Ongoing
from kit.dtm.wire import Protocol, Result
from kit.errors.codes import GrpcCode

REPEATABLE = "; the result is unknown, and the same may be asked again with the same gid"
UNREPEATABLE = "; the result is unknown; repeating it is an error when it was done"


@dataclass(frozen=True, slots=True)
class Step:
    """A recorded step of a workflow.

    Attributes:
        status: ``succeed`` or ``failed``.
        data: what it gave, or the text of its failure.
    """

    branch_id: str
    op: str
    status: str
    data: bytes


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """How far a workflow is.

    Attributes:
        status: of the transaction.
        result: base64 of what a finished one gave; dtm says it over HTTP only.
    """

    status: str
    rollback_reason: str
    result: str
    steps: tuple[Step, ...]


class Transport(TypingProtocol):
    """One of the coordinator's APIs.

    Every method raises Failure or Ongoing when the coordinator says so, Refused when the request
    can never work, and DtmUnavailable for all else.
    """

    protocol: Protocol
    server: str

    async def new_gid(self) -> str:
        """An id that is unique among those of the coordinator."""
        ...

    async def send(self, operation: Operation, request: TransRequest) -> None:
        """Prepare, submit or abort."""
        ...

    async def register_branch(self, request: BranchRequest) -> None:
        """Add a branch."""
        ...

    async def prepare_workflow(self, request: TransRequest) -> WorkflowState:
        """Create a workflow, or find the one that is there."""
        ...

    async def aclose(self) -> None:
        """Cut the connection; may be called twice."""
        ...


def outcome(what: str, status: GrpcCode, text: str, advice: str = "") -> DtmError:
    """The error that an answer other than OK is; ``what`` was asked.

    ABORTED with exactly ``ONGOING`` as its text is how dtm below 1.10 said ONGOING.
    """
    match status:
        case GrpcCode.ABORTED if text == Result.ONGOING:
            return Ongoing(text)
        case GrpcCode.ABORTED:
            return Failure(text)
        case GrpcCode.FAILED_PRECONDITION:
            return Ongoing(text)
        case GrpcCode.INVALID_ARGUMENT:
            return Refused(f"{what}: {status.name}: {text}")
        case _:
            return DtmUnavailable(f"{what}: {status.name}: {text}{advice}", status)
