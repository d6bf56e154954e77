"""An :class:`~kit.errors.Error` as a gRPC status, and back.

Out: the status code by table, the message, and one ``google.rpc.ErrorInfo`` with reason and
metadata, present even when both are empty. In: code by table, reason and metadata of the first
ErrorInfo.

Source: go-kratos/kratos errors/errors.go, GRPCStatus and FromError.
"""

from collections.abc import Iterable
from contextlib import suppress

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from kit.errors import Error
from kit.errors.codes import GrpcCode, grpc_code, http_code

STATUS_DETAILS_KEY = "grpc-status-details-bin"


def to_status(error: Error) -> status_pb2.Status:
    """The status that ``error`` travels as."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, metadata=error.metadata))
    code = grpc_code(error.code) if error.GRPC_CODE is None else error.GRPC_CODE
    return status_pb2.Status(code=code, message=error.message, details=[detail])


def from_status(status: status_pb2.Status) -> Error:
    """The error that a peer's ``status`` says."""
    error = Error(http_code(status.code), "", status.message)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            with suppress(DecodeError):  # a peer's broken detail does not hide its status
                detail.Unpack(info)
                error.reason = info.reason
                error.metadata = dict(info.metadata)
            break
    return error


def from_parts(
    code: GrpcCode | int, message: str, trailers: Iterable[tuple[str, str | bytes]] = ()
) -> Error:
    """The error that a status code, its message and the trailing metadata of a call say."""
    for key, value in trailers:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:  # a peer's broken details do not hide its status
                break
    return Error(http_code(code), "", message)
