"""Errors on their way to and from a gRPC status.

Out, on a server: a :class:`~kit.errors.Error` by its code, with reason and metadata as ErrorInfo; a
status that another server gave, or ``context.abort``, as it was; everything else as UNKNOWN with
the text of the exception. In, on a client: always an :class:`RpcError`.

Source: go-kratos/kratos errors/errors.go, grpc-go server.go processUnaryRPC.
"""

from kit.errors import Error
from kit.errors.codes import GrpcCode, grpc_code
from kit.errors.rpc import STATUS_DETAILS_KEY, from_parts, to_status
from kit.transport.grpc.engine import RawMetadata, RpcFailed


class RpcError(Error):
    """A call ended with a status other than OK.

    Code, reason and metadata are what the peer's kit error said; for a plain gRPC status the code
    is that of the table and the reason is empty.

    Attributes:
        status: the gRPC code as it came, finer than ``code``.
        headers: initial metadata of the answer.
        trailers: trailing metadata of the answer.
    """

    def __init__(
        self,
        status: GrpcCode,
        message: str = "",
        trailers: RawMetadata = (),
        headers: RawMetadata = (),
    ) -> None:
        said = from_parts(status, message, trailers)
        super().__init__(said.code, said.reason, said.message, said.metadata)
        self.status = status
        self.trailers = trailers
        self.headers = headers


def status_of(error: BaseException) -> GrpcCode:
    """The gRPC code that ``error`` came with or travels as; UNKNOWN for any other exception."""
    match error:
        case RpcError() | RpcFailed():
            return error.status
        case Error():
            return grpc_code(error.code) if error.GRPC_CODE is None else error.GRPC_CODE
        case _:
            return GrpcCode.UNKNOWN


def to_failure(error: Exception) -> RpcFailed:
    """How a handler's ``error`` ends its call."""
    match error:
        case RpcFailed():
            return error
        case RpcError():
            details = [pair for pair in error.trailers if pair[0] == STATUS_DETAILS_KEY]
            return RpcFailed(error.status, error.message, details)
        case Error():
            status = to_status(error)
            details = [(STATUS_DETAILS_KEY, status.SerializeToString())]
            return RpcFailed(GrpcCode(status.code), error.message, details)
        case _:
            return RpcFailed(GrpcCode.UNKNOWN, str(error) or type(error).__name__)
