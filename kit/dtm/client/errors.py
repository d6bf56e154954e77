"""What the client raises beside the answers of :mod:`kit.dtm.errors`.

::

    DtmError
    ├── Failure                    the coordinator or a branch says no
    ├── Ongoing                    not yet
    ├── DtmUnavailable             503  what became of the request is unknown
    │   └── Refused                503  the coordinator says that it can never work
    ├── InvalidCall (ValueError)   400  the caller's mistake; nothing was sent
    │   └── PayloadError (TypeError)    a payload cannot be encoded
    ├── UnknownTransaction         404  the coordinator has no such gid
    ├── UnknownWorkflow            404  nobody registered this name
    ├── WorkflowChanged            500  what is recorded does not fit the code any more
    └── CallbackFailed             500  a phase-2 callback said no, which it must not
"""

from kit.dtm.errors import DtmError
from kit.errors.codes import GrpcCode


class DtmUnavailable(DtmError):
    """What became of the request is unknown: 503 DTM_UNAVAILABLE.

    The coordinator could not be asked, did not answer in time, or had an unexpected answer from a
    branch while it was waited for.

    Attributes:
        status: the gRPC code of the answer, or the one that comes nearest to it; UNAVAILABLE when
            there was none.
    """

    def __init__(self, message: str, status: GrpcCode = GrpcCode.UNAVAILABLE) -> None:
        super().__init__(503, "DTM_UNAVAILABLE", message)
        self.status = status


class Refused(DtmUnavailable):
    """The coordinator stored nothing and never will: the message names what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(message, GrpcCode.INVALID_ARGUMENT)


class InvalidCall(DtmError, ValueError):
    """The caller's mistake, noticed before anything was sent: 400 DTM_INVALID_CALL."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "DTM_INVALID_CALL", message)


class PayloadError(InvalidCall, TypeError):
    """A payload cannot be encoded for where it is to go."""


class UnknownTransaction(DtmError):
    """The coordinator has no transaction with this gid: 404 DTM_UNKNOWN_TRANSACTION."""

    def __init__(self, gid: str) -> None:
        text = f"gid {gid!r} is not stored; it was never submitted, or is kept no longer"
        super().__init__(404, "DTM_UNKNOWN_TRANSACTION", text)


class UnknownWorkflow(DtmError):
    """No workflow is registered under this name: 404 DTM_UNKNOWN_WORKFLOW."""

    def __init__(self, name: str) -> None:
        # dtm's words, which people search for
        text = f"workflow '{name}' not registered. please register at startup"
        super().__init__(404, "DTM_UNKNOWN_WORKFLOW", text)


class WorkflowChanged(DtmError):
    """Recorded progress does not fit the workflow's code: 500 DTM_WORKFLOW_CHANGED."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "DTM_WORKFLOW_CHANGED", message)


class CallbackFailed(DtmError):
    """A commit or rollback callback raised Failure: 500 DTM_CALLBACK_FAILED."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "DTM_CALLBACK_FAILED", message)
