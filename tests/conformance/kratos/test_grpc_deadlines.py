"""Deadlines and cancellation as a service and its peers see them; kratos-wire §4.5, §22 row 5."""

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.middleware.timeout import timeout
from kit.transport import current_call
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError
from kit.transport.grpc.context import ServicerContext


async def test_a_handler_sees_the_servers_own_deadline(serve: Any) -> None:
    """1 s after arrival by default; it is not sent by anybody."""
    seen: list[Any] = []

    async def look(_request: Any, context: ServicerContext) -> trans_pb2.Response:
        seen.append((current_call(), context.time_remaining()))
        return trans_pb2.Response()

    channel = await serve(look)
    await trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo(), timeout=30)
    [(call, remaining)] = seen
    assert (call.limit, call.limit_side) == (1.0, "server")
    assert 0.0 < remaining <= 1.0
    assert call.deadline is None, "work that a call leaves behind is not bound by it"


async def test_the_clients_deadline_counts_when_it_is_earlier(serve: Any) -> None:
    seen: list[Any] = []

    async def look(_request: Any, context: ServicerContext) -> trans_pb2.Response:
        seen.append((current_call(), context.time_remaining()))
        return trans_pb2.Response()

    channel = await serve(look)
    await channel.channel_ready()
    await trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo(), timeout=0.9)
    [(call, remaining)] = seen
    assert call.limit_side == "client"
    assert 0.0 < remaining <= 0.91


async def test_a_late_success_is_sent(serve: Any) -> None:
    """The deadline is one of the context: a handler that ignores it runs to its end."""

    async def late(_request: Any, context: ServicerContext) -> trans_pb2.Response:
        await asyncio.sleep((context.time_remaining() or 0.0) + 0.05)
        return trans_pb2.Response()

    channel = await serve(late, GrpcServer(address="127.0.0.1:0", timeout=0.1))
    started = time.monotonic()
    await trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
    assert time.monotonic() - started > 0.14


async def test_a_timeout_after_the_deadline_is_deadline_exceeded(serve: Any, failure: Any) -> None:
    """A handler that gives up by the context's error, in Go's words."""

    async def give_up(_request: Any, context: ServicerContext) -> trans_pb2.Response:
        async with asyncio.timeout(context.time_remaining()):
            await asyncio.Event().wait()
        raise AssertionError

    channel = await serve(give_up, GrpcServer(address="127.0.0.1:0", timeout=0.1))
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "context deadline exceeded"


async def test_the_timeout_middleware_cuts_a_handler_off_and_says_whose_limit_it_was(
    serve: Any, failure: Any
) -> None:
    async def hang(_request: Any, _context: Any) -> trans_pb2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    server = GrpcServer(address="127.0.0.1:0", timeout=0.1, middleware=[timeout()])
    channel = await serve(hang, server)
    error = await failure(trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo()))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details() == "server timeout of 100ms for /api.trans.v1.Trans/TransIn"


async def test_a_handler_is_cancelled_when_its_client_goes(serve: Any, failure: Any) -> None:
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_request: Any, _context: Any) -> trans_pb2.Response:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    channel = await serve(hang)
    call = trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
    await running.wait()
    call.cancel()
    await cancelled.wait()


async def test_a_handler_that_swallows_its_cancellation_harms_nobody(serve: Any) -> None:
    running, over = asyncio.Event(), asyncio.Event()

    async def stubborn(request: trans_pb2.AdjustInfo, _context: Any) -> trans_pb2.Response:
        if request.Amount:
            return trans_pb2.Response()
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            over.set()
            raise ValueError("not now") from None
        raise AssertionError

    channel = await serve(stubborn)
    stub = trans_pb2_grpc.TransStub(channel)
    call = stub.TransIn(trans_pb2.AdjustInfo())
    await running.wait()
    call.cancel()
    await over.wait()
    await stub.TransIn(trans_pb2.AdjustInfo(Amount=1))


async def test_calls_of_a_handler_are_bound_by_its_deadline(serve: Any, failure: Any) -> None:
    """Go's context does this by itself: nobody waits longer than the first caller."""
    remaining: list[float] = []

    async def look(_request: Any, context: ServicerContext) -> trans_pb2.Response:
        remaining.append(context.time_remaining() or 0.0)
        return trans_pb2.Response()

    behind = GrpcServer(address="127.0.0.1:0", timeout=0)
    await serve(look, behind)
    target = (behind.endpoint or "").removeprefix("grpc://")
    async with GrpcClient(target, timeout=60) as client:

        async def forward(request: Any, _context: Any) -> Any:
            return await trans_pb2_grpc.TransStub(client.channel).TransIn(request)

        await client.unary("/grpc.health.v1.Health/Check", b"")  # it is connected
        front = await serve(forward, GrpcServer(address="127.0.0.1:0", timeout=1.0))
        await trans_pb2_grpc.TransStub(front).TransIn(trans_pb2.AdjustInfo())
        assert 0.0 < remaining[0] <= 1.01


async def test_a_client_says_which_limit_ended_its_wait(serve: Any) -> None:
    async def hang(_request: Any, _context: Any) -> trans_pb2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    server = GrpcServer(address="127.0.0.1:0")
    await serve(hang, server)
    target = (server.endpoint or "").removeprefix("grpc://")
    async with GrpcClient(target) as client:
        with pytest.raises(RpcError) as caught:
            await client.unary("/api.trans.v1.Trans/TransIn", b"", timeout=0.1)
    assert caught.value.code == 504
    assert caught.value.message == (
        f"client timeout of 100ms for /api.trans.v1.Trans/TransIn: {target} at {target} "
        "did not answer"
    )
