"""Streaming services through the server; kratos-wire §4.6."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from kit import errors
from kit.transport import Handler, current_call
from kit.transport.grpc import GrpcServer
from kit.transport.grpc.context import ServicerContext


class Letters:
    """One method of each kind, in bytes."""

    async def Spell(self, request: bytes, context: ServicerContext) -> AsyncIterator[bytes]:  # noqa: N802
        for letter in request.decode():
            yield letter.encode()

    async def Join(self, requests: AsyncIterator[bytes], context: ServicerContext) -> bytes:  # noqa: N802
        return b"".join([request async for request in requests])

    async def Echo(  # noqa: N802
        self, requests: AsyncIterator[bytes], context: ServicerContext
    ) -> AsyncIterator[bytes]:
        call = current_call()
        assert call is not None
        call.reply_headers.set("x-limit", str(call.limit))
        async for request in requests:
            if request == b"stop":
                raise errors.Conflict("STOPPED", "as you wish")
            yield request

    async def Write(self, _requests: Any, context: ServicerContext) -> None:  # noqa: N802
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message * 2)


def letters(*, server: GrpcServer) -> GrpcServer:
    own = Letters()
    server.add_registered_method_handlers(
        "t.Letters",
        {
            "Spell": grpc.unary_stream_rpc_method_handler(own.Spell),
            "Join": grpc.stream_unary_rpc_method_handler(own.Join),
            "Echo": grpc.stream_stream_rpc_method_handler(own.Echo),
            "Write": grpc.stream_stream_rpc_method_handler(own.Write),
        },
    )
    return server


async def words(*texts: bytes) -> AsyncIterator[bytes]:
    for text in texts:
        yield text


async def test_all_kinds_of_methods_are_served(serve: Any) -> None:
    channel = await serve(server=letters(server=GrpcServer(address="127.0.0.1:0")))
    spelled = channel.unary_stream("/t.Letters/Spell")(b"abc")
    assert [letter async for letter in spelled] == [b"a", b"b", b"c"]
    assert await channel.stream_unary("/t.Letters/Join")(words(b"a", b"b")) == b"ab"
    doubled = channel.stream_stream("/t.Letters/Write")(words(b"a", b"b"))
    assert [word async for word in doubled] == [b"aa", b"bb"]


async def test_a_stream_has_no_time_limit_and_sends_its_reply_headers_first(serve: Any) -> None:
    channel = await serve(server=letters(server=GrpcServer(address="127.0.0.1:0")))
    call = channel.stream_stream("/t.Letters/Echo")(words(b"a"))
    assert tuple(await call.initial_metadata()) == (("x-limit", "None"),)
    assert [word async for word in call] == [b"a"]


async def test_an_error_ends_a_stream_with_its_status(serve: Any) -> None:
    channel = await serve(server=letters(server=GrpcServer(address="127.0.0.1:0")))
    call = channel.stream_stream("/t.Letters/Echo")(words(b"a", b"stop"))
    assert await call.read() == b"a"
    with pytest.raises(grpc.aio.AioRpcError, match="as you wish") as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.ABORTED


async def test_stream_middleware_wraps_each_message_both_ways(serve: Any) -> None:
    """A logging middleware writes one line a message."""
    seen: list[tuple[bytes, str]] = []

    def note(handler: Handler) -> Handler:
        async def call(message: bytes) -> Any:
            info = current_call()
            assert info is not None
            seen.append((message, info.operation))
            return await handler(message)

        return call

    server = GrpcServer(address="127.0.0.1:0", stream_middleware=[note])
    channel = await serve(server=letters(server=server))
    assert [letter async for letter in channel.unary_stream("/t.Letters/Spell")(b"ab")]
    assert seen == [(text, "/t.Letters/Spell") for text in (b"ab", b"a", b"b")]


async def test_middleware_can_be_added_for_some_operations(serve: Any) -> None:
    """kratos-wire §4.4: the exact operation, else the longest prefix; one group at most."""
    ran: list[str] = []

    def named(name: str) -> Any:
        def wrap(handler: Handler) -> Handler:
            async def call(request: Any) -> Any:
                ran.append(name)
                return await handler(request)

            return call

        return wrap

    server = GrpcServer(address="127.0.0.1:0", middleware=[named("all")])
    server.use("/api.trans.v1.Trans/TransIn", named("exact"))
    server.use("/api.trans.v1.Trans/*", named("longer"))
    server.use("/api.*", named("shorter"))
    channel = await serve(server=server)
    await channel.unary_unary("/api.trans.v1.Trans/TransIn")(b"")
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary("/api.trans.v1.Trans/TransOut")(b"")
    assert ran == ["all", "exact", "all", "longer"]
    with pytest.raises(ValueError, match="neither an operation nor a prefix"):
        server.use("/api.*.v1/*", named("no"))


async def test_a_client_that_leaves_ends_the_stream(serve: Any) -> None:
    ended = asyncio.Event()

    async def forever(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"0"
            await asyncio.Event().wait()
        finally:
            ended.set()

    server = GrpcServer(address="127.0.0.1:0")
    server.add_registered_method_handlers(
        "t.T", {"M": grpc.unary_stream_rpc_method_handler(forever)}
    )
    channel = await serve(server=server)
    call = channel.unary_stream("/t.T/M")(b"")
    assert await call.read() == b"0"
    call.cancel()
    await ended.wait()
