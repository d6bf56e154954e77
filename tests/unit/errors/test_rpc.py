"""Errors on gRPC: both tables, the status and its detail."""

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from kit.dtm.errors import Failure, Ongoing
from kit.errors import Error, NotFound
from kit.errors.codes import GrpcCode, grpc_code, http_code
from kit.errors.rpc import STATUS_DETAILS_KEY, from_parts, from_status, to_status

TO_GRPC = {
    200: 0, 400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14,
    504: 4,
}  # fmt: skip
FROM_GRPC = {
    0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409,
    11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip


def test_a_code_travels_by_the_table() -> None:
    """Spec §11.3 (a), v2 form: 412 is UNKNOWN, and so is all that is not listed."""
    for code in [*range(1000), 10001, -1, 2**31 - 1]:
        assert grpc_code(code) == TO_GRPC.get(code, 2), code


def test_a_grpc_code_reads_by_the_table() -> None:
    """Spec §11.3 (b), v2 form: FAILED_PRECONDITION is 400; unknown numbers are 500."""
    for code in [*range(20), 99, -1]:
        assert http_code(code) == FROM_GRPC.get(code, 500), code


def test_the_codes_have_grpcs_names() -> None:
    """Compared with the library's own, which the table does without."""
    assert {code.name: code.value for code in GrpcCode} == {
        code.name: code.value[0] for code in grpc.StatusCode
    }


@given(
    st.sampled_from(sorted(TO_GRPC)),
    st.text(),
    st.text(),
    st.dictionaries(st.text(), st.text()),
)
def test_an_error_comes_back_as_it_went(
    code: int, reason: str, message: str, metadata: dict[str, str]
) -> None:
    """Through bytes, for every code of the table."""
    error = Error(code, reason, message, metadata)
    wire = to_status(error).SerializeToString()
    back = from_status(status_pb2.Status.FromString(wire))
    assert back == error
    assert (back.message, back.metadata) == (message, metadata)


def test_the_detail_is_there_even_when_it_is_empty() -> None:
    """Spec §11.2: one ErrorInfo, domain empty, whatever reason and metadata."""
    status = to_status(Error(404))
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/google.rpc.ErrorInfo"
    assert detail.value == b""
    status = to_status(NotFound("R", "m", {"k": "v"}))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == ("R", "", {"k": "v"})
    assert (status.code, status.message) == (5, "m")


def test_a_code_outside_of_the_table_arrives_as_500() -> None:
    """Spec §11.2, loss: a business code becomes UNKNOWN; reason and message arrive."""
    back = from_status(to_status(Error(10001, "BALANCE", "not enough")))
    assert (back.code, back.reason, back.message) == (500, "BALANCE", "not enough")


def test_a_class_may_choose_its_grpc_code() -> None:
    """425 is in no table, and dtm reads ONGOING from FAILED_PRECONDITION."""
    assert to_status(Ongoing()).code == GrpcCode.FAILED_PRECONDITION
    assert to_status(Ongoing().with_metadata({"a": "1"})).code == GrpcCode.FAILED_PRECONDITION
    assert to_status(Failure()).code == GrpcCode.ABORTED


def _packed(message: object) -> any_pb2.Any:
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


def test_the_first_error_info_counts() -> None:
    """Other details, before and after, are passed over."""
    status = status_pb2.Status(
        code=5,
        message="m",
        details=[
            _packed(duration_pb2.Duration(seconds=1)),
            _packed(error_details_pb2.ErrorInfo(reason="FIRST", metadata={"a": "1"})),
            _packed(error_details_pb2.ErrorInfo(reason="SECOND", metadata={"b": "2"})),
        ],
    )
    error = from_status(status)
    assert (error.reason, error.metadata) == ("FIRST", {"a": "1"})


def test_a_status_without_details_has_no_reason() -> None:
    """What servers of other frameworks send."""
    error = from_status(status_pb2.Status(code=14, message="down"))
    assert (error.code, error.reason, error.message, error.metadata) == (503, "", "down", {})


def test_the_parts_of_a_call_become_an_error() -> None:
    """The details in the trailers say more than the code beside them."""
    wire = to_status(NotFound("R", "m", {"k": "v"})).SerializeToString()
    trailers = [("x-other", "1"), (STATUS_DETAILS_KEY, wire)]
    error = from_parts(GrpcCode.NOT_FOUND, "m", trailers)
    assert (error.code, error.reason, error.message, error.metadata) == (404, "R", "m", {"k": "v"})
    plain = from_parts(GrpcCode.UNAVAILABLE, "down")
    assert (plain.code, plain.reason, plain.message) == (503, "", "down")
    assert from_parts(42, "odd").code == 500


@pytest.mark.parametrize("broken", [b"\xff\xff", b"\x0a", b"\x08"])
def test_broken_details_do_not_hide_the_status(broken: bytes) -> None:
    """A peer's fault in the extra must not cost what it said plainly."""
    error = from_parts(5, "no user", [(STATUS_DETAILS_KEY, broken)])
    assert (error.code, error.reason, error.message) == (404, "", "no user")


def test_a_broken_error_info_does_not_hide_the_status() -> None:
    """The status itself can be read."""
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    status = status_pb2.Status(code=5, message="no user", details=[detail])
    error = from_parts(5, "no user", [(STATUS_DETAILS_KEY, status.SerializeToString())])
    assert (error.code, error.reason, error.message) == (404, "", "no user")
