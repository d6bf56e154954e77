"""Errors on their way to a status and back; kratos-wire §4.7, §11.2."""

import pytest

from kit import errors
from kit.dtm.errors import Failure, Ongoing
from kit.errors.codes import GrpcCode
from kit.transport.grpc import RpcError, RpcFailed, status_of
from kit.transport.grpc.failure import to_failure


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.NotFound("GONE", "no account 7"), GrpcCode.NOT_FOUND, "no account 7"),
        (errors.Error(10001, "OWN", "own"), GrpcCode.UNKNOWN, "own"),
        (Failure("no"), GrpcCode.ABORTED, "no"),
        (Ongoing("wait"), GrpcCode.FAILED_PRECONDITION, "wait"),
        (RpcError(GrpcCode.ALREADY_EXISTS, "twice"), GrpcCode.ALREADY_EXISTS, "twice"),
        (RpcFailed(GrpcCode.DATA_LOSS, "half"), GrpcCode.DATA_LOSS, "half"),
        (ValueError("plain"), GrpcCode.UNKNOWN, "plain"),
        (KeyError(), GrpcCode.UNKNOWN, "KeyError"),
    ],
)
def test_every_error_has_a_status_and_a_message(
    error: Exception, status: GrpcCode, message: str
) -> None:
    failure = to_failure(error)
    assert (failure.status, failure.message) == (status, message)
    assert status_of(error) is status


def test_a_kit_error_survives_the_way_there_and_back() -> None:
    sent = errors.Conflict("NO_MONEY", "30 cents are missing", {"account": "1"})
    failure = to_failure(sent)
    back = RpcError(failure.status, failure.message, failure.trailers)
    assert back == sent
    assert (back.message, back.metadata) == (sent.message, sent.metadata)


def test_an_error_that_is_handed_on_keeps_its_details_but_no_other_trailers() -> None:
    failure = to_failure(errors.Conflict("NO_MONEY", "no"))
    trailers = [*failure.trailers, ("x-hop", "1")]
    again = to_failure(RpcError(failure.status, failure.message, trailers))
    assert list(again.trailers) == list(failure.trailers)


def test_details_that_do_not_parse_leave_code_and_message() -> None:
    error = RpcError(GrpcCode.ABORTED, "no", [("grpc-status-details-bin", b"\xff\xff")])
    assert (error.code, error.reason, error.message) == (409, "", "no")
