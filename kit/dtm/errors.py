"""What branches and clients of a global transaction raise.

::

    kit.errors.Error
    └── DtmError
        ├── Failure       the business says no  HTTP 409 · gRPC ABORTED · JSON-RPC -32901
        ├── Ongoing       not yet, ask again    HTTP 425 · gRPC FAILED_PRECONDITION · -32902
        └── Duplicated    the barrier saw this call before

A branch has three answers; everything else that leaves a handler is *unknown* and is asked again.
An unexpected exception is therefore never read as FAILURE.

Source: dtm-labs/dtm client/dtmcli/consts.go (ErrFailure, ErrOngoing, ErrDuplicated).
"""

from kit.errors import Error
from kit.errors.codes import GrpcCode


class DtmError(Error):
    """Base of the errors that dtm gives a meaning."""


class Failure(DtmError):
    """The business says no: roll back, never ask again."""

    def __init__(self, message: str = "FAILURE") -> None:
        super().__init__(409, "FAILURE", message)


class Ongoing(DtmError):
    """Not decided yet: ask again at a steady pace."""

    GRPC_CODE = GrpcCode.FAILED_PRECONDITION

    def __init__(self, message: str = "ONGOING") -> None:
        super().__init__(425, "ONGOING", message)


class Duplicated(DtmError):
    """The barrier saw this call before; local to a process, never sent."""

    def __init__(self, message: str = "DUPLICATED") -> None:
        super().__init__(409, "DUPLICATED", message)
