"""The interoperability cases of gRPC, played by a client of the kit.

Source: the published interop-test-descriptions.md of gRPC; its names and figures.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcClient, RpcError
from tests.interop import testing_pb2 as pb
from tests.interop import testing_pb2_grpc as pb_grpc
from tests.interop.interop_service import ECHO_INITIAL, ECHO_TRAILING

Case = Callable[[GrpcClient], Awaitable[None]]

CASES: dict[str, Case] = {}
"""By their published names."""

REQUESTED, ANSWERED = (27_182, 8, 1_828, 45_904), (31_415, 9, 2_653, 58_979)
ECHOED = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP \U0001f608\t\n"


def _case(case: Case) -> Case:
    CASES[case.__name__] = case
    return case


def _stub(client: GrpcClient) -> Any:
    return pb_grpc.TestServiceStub(client.channel)


def _asking(*sizes: int, body: int = 0, **more: Any) -> pb.StreamingOutputCallRequest:
    wanted = [pb.ResponseParameters(size=size) for size in sizes]
    payload = pb.Payload(body=bytes(body))
    return pb.StreamingOutputCallRequest(response_parameters=wanted, payload=payload, **more)


async def _status(call: Awaitable[Any], status: GrpcCode, message: str | None = None) -> None:
    with pytest.raises(RpcError) as caught:
        await call
    assert caught.value.status is status, str(caught.value)
    if message is not None:
        assert caught.value.message == message


@_case
async def empty_unary(client: GrpcClient) -> None:
    assert await _stub(client).EmptyCall(pb.Empty()) == pb.Empty()


@_case
async def large_unary(client: GrpcClient) -> None:
    request = pb.SimpleRequest(response_size=314_159, payload=pb.Payload(body=bytes(271_828)))
    reply = await _stub(client).UnaryCall(request)
    assert reply.payload.body == bytes(314_159)


@_case
async def client_streaming(client: GrpcClient) -> None:
    requests = [
        pb.StreamingInputCallRequest(payload=pb.Payload(body=bytes(size))) for size in REQUESTED
    ]
    reply = await _stub(client).StreamingInputCall(requests)
    assert reply.aggregated_payload_size == 74_922


@_case
async def server_streaming(client: GrpcClient) -> None:
    answers = [answer async for answer in _stub(client).StreamingOutputCall(_asking(*ANSWERED))]
    assert [len(answer.payload.body) for answer in answers] == [*ANSWERED]


@_case
async def ping_pong(client: GrpcClient) -> None:
    async with _stub(client).FullDuplexCall() as call:
        for requested, answered in zip(REQUESTED, ANSWERED, strict=True):
            await call.write(_asking(answered, body=requested))
            assert len((await call.read()).payload.body) == answered
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@_case
async def empty_stream(client: GrpcClient) -> None:
    async with _stub(client).FullDuplexCall() as call:
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@_case
async def timeout_on_sleeping_server(client: GrpcClient) -> None:
    async def one() -> None:
        async with _stub(client).FullDuplexCall(timeout=0.001) as call:
            await call.write(_asking(body=27_182))
            await call.read()

    await _status(one(), GrpcCode.DEADLINE_EXCEEDED)


@_case
async def cancel_after_begin(client: GrpcClient) -> None:
    async def never() -> AsyncIterator[pb.StreamingInputCallRequest]:
        await asyncio.Event().wait()
        yield pb.StreamingInputCallRequest()

    call = asyncio.ensure_future(_stub(client).StreamingInputCall(never()))
    await _stub(client).EmptyCall(pb.Empty())  # the call before it has begun by now
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await _stub(client).EmptyCall(pb.Empty())


@_case
async def cancel_after_first_response(client: GrpcClient) -> None:
    async with _stub(client).FullDuplexCall() as call:
        await call.write(_asking(31_415, body=27_182))
        assert len((await call.read()).payload.body) == 31_415
    await _stub(client).EmptyCall(pb.Empty())


@_case
async def status_code_and_message(client: GrpcClient) -> None:
    await _fails_with(client, "test status message")


@_case
async def special_status_message(client: GrpcClient) -> None:
    await _fails_with(client, SPECIAL)


async def _fails_with(client: GrpcClient, message: str) -> None:
    wanted = pb.EchoStatus(code=2, message=message)
    call = _stub(client).UnaryCall(pb.SimpleRequest(response_status=wanted))
    await _status(call, GrpcCode.UNKNOWN, message)
    async with _stub(client).FullDuplexCall() as stream:
        await stream.write(_asking(response_status=wanted))
        await stream.done_writing()
        await _status(stream.read(), GrpcCode.UNKNOWN, message)


@_case
async def custom_metadata(client: GrpcClient) -> None:
    """As a stream of one message, whose metadata the kit shows; then both ways at once."""
    call = client.stream_stream(
        "/grpc.testing.TestService/UnaryCall",
        pb.SimpleRequest.SerializeToString,
        pb.SimpleResponse.FromString,
    )(metadata=ECHOED)
    async with call as stream:
        await stream.write(pb.SimpleRequest(response_size=314_159))
        await stream.done_writing()
        assert len((await stream.read()).payload.body) == 314_159
        await _echoed(stream)
    async with _stub(client).FullDuplexCall(metadata=ECHOED) as stream:
        await stream.write(_asking(314_159, body=271_828))
        await stream.done_writing()
        assert len((await stream.read()).payload.body) == 314_159
        await _echoed(stream)


async def _echoed(stream: Any) -> None:
    assert await stream.read() is grpc.aio.EOF
    assert ECHOED[0] in tuple(await stream.initial_metadata())
    assert ECHOED[1] in tuple(await stream.trailing_metadata())


@_case
async def unimplemented_method(client: GrpcClient) -> None:
    await _status(_stub(client).UnimplementedCall(pb.Empty()), GrpcCode.UNIMPLEMENTED)


@_case
async def unimplemented_service(client: GrpcClient) -> None:
    stub = pb_grpc.UnimplementedServiceStub(client.channel)
    await _status(stub.UnimplementedCall(pb.Empty()), GrpcCode.UNIMPLEMENTED)


@_case
async def message_over_the_limit(client: GrpcClient) -> None:
    """Not of the published list: 4 MiB and more of an answer are refused, and nothing breaks."""
    call = _stub(client).UnaryCall(pb.SimpleRequest(response_size=4 << 20))
    await _status(call, GrpcCode.RESOURCE_EXHAUSTED)
    almost = pb.SimpleRequest(response_size=(4 << 20) - 100)
    assert len((await _stub(client).UnaryCall(almost)).payload.body) == (4 << 20) - 100


@_case
async def calls_at_once(client: GrpcClient) -> None:
    """Not of the published list: 300 calls, more than a peer may take at a time."""
    requests = [pb.SimpleRequest(response_size=1_000 + number) for number in range(300)]
    replies = await asyncio.gather(*(_stub(client).UnaryCall(request) for request in requests))
    assert [len(reply.payload.body) - 1_000 for reply in replies] == [*range(300)]
