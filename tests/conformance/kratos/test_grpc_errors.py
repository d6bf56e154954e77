"""What a peer reads when a call fails: texts of grpc-go, statuses, details, metadata."""

from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit import errors
from kit.dtm.errors import Ongoing
from kit.transport import current_call
from kit.transport.grpc import GrpcServer

IN = "/api.trans.v1.Trans/TransIn"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("/pkg.Svc/M", "unknown service pkg.Svc"),
        ("/api.trans.v1.Trans/Nope", "unknown method Nope for service api.trans.v1.Trans"),
        ("/api.trans.v1.Trans/TransOut", "method TransOut not implemented"),
        ("/nonsense", 'malformed method name: "/nonsense"'),
    ],
)
async def test_a_method_that_nobody_wrote_is_unimplemented_in_grpc_gos_words(
    serve: Any, failure: Any, method: str, text: str
) -> None:
    """kratos-wire §4.9; the Python runtime says "Method not found!" for all of them."""
    channel = await serve()
    error = await failure(channel.unary_unary(method)(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)


async def test_a_request_that_does_not_decode_is_internal(serve: Any, failure: Any) -> None:
    """kratos-wire §4.9, §22 row 2."""
    channel = await serve()
    error = await failure(channel.unary_unary(IN)(b"\xff\xff"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details().startswith("grpc: error unmarshalling request:")


async def test_a_message_over_4_mib_exhausts_the_resource(serve: Any, failure: Any) -> None:
    """kratos-wire §4.9; twice as much is refused as well, in other words."""
    channel = await serve()
    error = await failure(channel.unary_unary(IN)(bytes(5 * MIB)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "grpc: received message larger than max (5242880 vs. 4194304)"
    error = await failure(channel.unary_unary(IN)(bytes(9 * MIB)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_plain_exception_is_unknown_with_its_text(serve: Any, failure: Any) -> None:
    """kratos-wire §4.7, §22 row 3; the Python runtime wraps the text."""

    async def fail(_request: Any, _context: Any) -> trans_pb2.Response:
        raise ValueError("balance is negative")

    channel = await serve(fail)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "balance is negative")


async def test_a_kit_error_travels_with_its_reason_and_metadata(serve: Any, failure: Any) -> None:
    """kratos-wire §11.2: one ErrorInfo in grpc-status-details-bin, with an empty domain."""

    async def fail(_request: Any, _context: Any) -> trans_pb2.Response:
        raise errors.Conflict("NO_MONEY", "30 cents are missing", {"account": "1"})

    channel = await serve(fail)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "30 cents are missing")
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert (status.code, status.message) == (10, "30 cents are missing")
    assert [detail.Unpack(info) for detail in status.details] == [True]
    assert (info.reason, dict(info.metadata), info.domain) == ("NO_MONEY", {"account": "1"}, "")


async def test_ongoing_is_failed_precondition(serve: Any, failure: Any) -> None:
    """A branch that is not decided yet; the coordinator asks again at a steady pace."""

    async def fail(_request: Any, _context: Any) -> trans_pb2.Response:
        raise Ongoing

    channel = await serve(fail)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_abort_sends_its_code_details_and_trailers(serve: Any, failure: Any) -> None:
    """What services written for grpc.aio do."""

    async def fail(_request: Any, context: Any) -> trans_pb2.Response:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "twice", (("k-bin", b"\0"),))

    channel = await serve(fail)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "twice")
    assert ("k-bin", b"\0") in tuple(error.trailing_metadata())


async def test_set_code_ends_a_call_that_returns(serve: Any, failure: Any) -> None:
    """The other form of grpc.aio."""

    async def fail(_request: Any, context: Any) -> trans_pb2.Response:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("no account 7")
        return trans_pb2.Response()

    channel = await serve(fail)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no account 7")


async def test_the_status_of_a_call_further_on_passes_unchanged(serve: Any, failure: Any) -> None:
    """grpc-go reads the status of the error it is given, whoever made it."""

    async def refuse(_request: Any, context: Any) -> trans_pb2.Response:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "no such day")

    behind = await serve(refuse)

    async def forward(request: Any, _context: Any) -> trans_pb2.Response:
        return await trans_pb2_grpc.TransStub(behind).TransIn(request)

    channel = await serve(forward)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "no such day")


@pytest.mark.parametrize("fails", [False, True])
async def test_reply_headers_are_initial_metadata_also_of_failures(
    serve: Any, *, fails: bool
) -> None:
    """kratos-wire §4.4, §22 rows 6 and 20: every value of a key travels."""

    async def answer(_request: Any, context: Any) -> trans_pb2.Response:
        call = current_call()
        assert call is not None
        call.reply_headers.add("x-request", "1")
        call.reply_headers.add("x-request", "2")
        context.set_trailing_metadata((("x-after", "3"),))
        if fails:
            raise errors.NotFound("GONE")
        return trans_pb2.Response()

    channel = await serve(answer)
    call = trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
    code = await call.code()
    assert code is (grpc.StatusCode.NOT_FOUND if fails else grpc.StatusCode.OK)
    assert tuple(await call.initial_metadata()) == (("x-request", "1"), ("x-request", "2"))
    assert ("x-after", "3") in tuple(await call.trailing_metadata())


async def test_a_reply_header_that_cannot_be_sent_fails_the_call_by_its_name(
    serve: Any, failure: Any
) -> None:
    async def answer(request: trans_pb2.AdjustInfo, context: Any) -> trans_pb2.Response:
        call = current_call()
        assert call is not None
        call.reply_headers.set("x-city", "Zürich")
        if request.Amount:
            raise errors.Conflict("NO_MONEY", "no")
        return trans_pb2.Response()

    stub = trans_pb2_grpc.TransStub(await serve(answer))
    error = await failure(stub.TransIn(trans_pb2.AdjustInfo()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == (
        'header key "x-city" contains value with non-printable ASCII characters'
    )
    error = await failure(stub.TransIn(trans_pb2.AdjustInfo(Amount=1)))
    assert error.code() is grpc.StatusCode.ABORTED, "a failure keeps its status"


async def test_a_handler_that_gives_no_message_is_told_so(serve: Any, failure: Any) -> None:
    """A forgotten return is a fault of the service, named in the answer."""

    async def forget(_request: Any, _context: Any) -> Any:
        return None

    channel = await serve(forget)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == f"{IN} gave NoneType, not its reply type"


async def test_a_method_without_async_runs_beside_the_loop(serve: Any) -> None:
    """A blocking method must not stop the others."""

    class Blocking(trans_pb2_grpc.TransServicer):
        def TransIn(self, request: Any, context: Any) -> trans_pb2.Response:  # noqa: N802
            return trans_pb2.Response()

    server = GrpcServer(address="127.0.0.1:0")
    channel = await serve(server=server)
    trans_pb2_grpc.add_TransServicer_to_server(Blocking(), server.services)
    assert await trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()) is not None


async def test_raw_methods_take_and_give_bytes(serve: Any, failure: Any) -> None:
    """The coordinator's hot path: no message classes, no middleware, the same error rules."""

    async def echo(request: bytes, call: Any) -> bytes:
        if request == b"no":
            raise errors.Forbidden("NOT_YOU", "no")
        return request + str(dict(call.metadata)["k"]).encode()

    server = GrpcServer(address="127.0.0.1:0")
    server.register_unary("/dtmgimp.Dtm/Submit", echo)
    channel = await serve(server=server)
    submit = channel.unary_unary("/dtmgimp.Dtm/Submit")
    assert await submit(b"gid-", metadata=(("k", "1"),)) == b"gid-1"
    error = await failure(submit(b"no", metadata=(("k", "1"),)))
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "no")
    with pytest.raises(ValueError, match=r"not of the form /package\.Service/Method"):
        server.register_unary("Submit", echo)


async def test_code_from_before_registered_methods_is_served(serve: Any, failure: Any) -> None:
    """Older generated code only adds a generic handler."""

    async def answer(_request: bytes, _context: Any) -> bytes:
        return b"old"

    handler = grpc.method_handlers_generic_handler(
        "old.Svc", {"M": grpc.unary_unary_rpc_method_handler(answer)}
    )
    server = GrpcServer(address="127.0.0.1:0")
    server.add_generic_rpc_handlers((handler,))
    channel = await serve(server=server)
    assert await channel.unary_unary("/old.Svc/M")(b"") == b"old"
    error = await failure(channel.unary_unary("/old.Svc/N")(b""))
    assert error.details() == "unknown method N for service old.Svc"
