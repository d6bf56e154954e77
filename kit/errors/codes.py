"""HTTP-like codes and gRPC codes, each way, as tables.

Codes outside the tables do not survive gRPC: a business code such as 10001 travels as UNKNOWN. So
does 412 under ``v2``, where FAILED_PRECONDITION reads as 400; under ``v3`` the two are a pair.

Source: go-kratos/kratos transport/http/status/status.go.
"""

from enum import IntEnum

from kit.compat import Compat, chosen


class GrpcCode(IntEnum):
    """The status codes of gRPC by number, without importing grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_PRECONDITION = 412

_TO_GRPC = {
    200: GrpcCode.OK,
    400: GrpcCode.INVALID_ARGUMENT,
    401: GrpcCode.UNAUTHENTICATED,
    403: GrpcCode.PERMISSION_DENIED,
    404: GrpcCode.NOT_FOUND,
    409: GrpcCode.ABORTED,
    429: GrpcCode.RESOURCE_EXHAUSTED,
    499: GrpcCode.CANCELLED,
    500: GrpcCode.INTERNAL,
    501: GrpcCode.UNIMPLEMENTED,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}

_FROM_GRPC = {
    GrpcCode.OK: 200,
    GrpcCode.CANCELLED: 499,
    GrpcCode.UNKNOWN: 500,
    GrpcCode.INVALID_ARGUMENT: 400,
    GrpcCode.DEADLINE_EXCEEDED: 504,
    GrpcCode.NOT_FOUND: 404,
    GrpcCode.ALREADY_EXISTS: 409,
    GrpcCode.PERMISSION_DENIED: 403,
    GrpcCode.RESOURCE_EXHAUSTED: 429,
    GrpcCode.FAILED_PRECONDITION: 400,
    GrpcCode.ABORTED: 409,
    GrpcCode.OUT_OF_RANGE: 400,
    GrpcCode.UNIMPLEMENTED: 501,
    GrpcCode.INTERNAL: 500,
    GrpcCode.UNAVAILABLE: 503,
    GrpcCode.DATA_LOSS: 500,
    GrpcCode.UNAUTHENTICATED: 401,
}


def grpc_code(code: int) -> GrpcCode:
    """The gRPC code that an HTTP-like ``code`` travels as; UNKNOWN outside the table.

    >>> grpc_code(409).name, grpc_code(10001).name
    ('ABORTED', 'UNKNOWN')
    """
    if code == _PRECONDITION and chosen() is Compat.V3:
        return GrpcCode.FAILED_PRECONDITION
    return _TO_GRPC.get(code, GrpcCode.UNKNOWN)


def http_code(code: int) -> int:
    """The HTTP-like code that a gRPC status ``code`` reads as; 500 for a number unknown to gRPC.

    >>> http_code(GrpcCode.ABORTED), http_code(99)
    (409, 500)
    """
    if code == GrpcCode.FAILED_PRECONDITION and chosen() is Compat.V3:
        return _PRECONDITION
    try:
        return _FROM_GRPC[GrpcCode(code)]
    except ValueError:
        return 500
