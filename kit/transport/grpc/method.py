"""From an engine's call to a service's method and back.

A unary call goes through: decode, call info, middleware, method, encode. A stream has no chain
around it; as in kratos each of its messages, received or sent, passes the middleware on its own.

The server's time limit is a deadline that the method can see, not one that cuts it off: a method
that does not look runs to its end, and its late success is sent. The timeout middleware cuts.

Source: go-kratos/kratos transport/grpc/interceptor.go.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias, cast

import grpc

from kit import log
from kit.encoding import families
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.metadata import Metadata
from kit.transport import CallInfo, Handler, Kind, Middleware, call_info
from kit.transport.grpc.context import ServerCallInfo, ServicerContext
from kit.transport.grpc.engine import RpcFailed, ServerCall, StreamHandler, UnaryHandler
from kit.transport.grpc.failure import RpcError, to_failure

_log = log.get_logger()

MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_NOT_WRITTEN = "Method not implemented!"  # what generated base classes say


def unary_method(
    method: str,
    handler: MethodHandler,
    wrap: Middleware,
    endpoint: Callable[[], str],
    timeout: float | None,
) -> UnaryHandler:
    """Serve one method of one request and one reply."""
    decode, encode = _decoder(handler, handler.unary_unary), handler.response_serializer
    behaviour = _asynchronous(handler.unary_unary)

    async def innermost(request: Any) -> Any:
        info = call_info.get()
        assert isinstance(info, ServerCallInfo), "middleware replaced the call info"
        assert info.context is not None
        try:
            reply = await behaviour(request, info.context)
            info.context.raise_for_code()
        except (NotImplementedError, TimeoutError, grpc.RpcError) as exc:
            translated = _in_grpc_words(exc, info.context)
            if translated is exc:
                raise
            raise translated from exc
        return reply

    compiled: Handler | None = None

    async def serve(request: bytes, call: ServerCall) -> bytes:
        nonlocal compiled
        if compiled is None:
            compiled = wrap(innermost)
        info = _info(method, call, endpoint(), timeout)
        context = info.context = ServicerContext(call, info, decode, encode)
        message = context.message(request)
        token = call_info.set(info)
        try:
            reply = context.data(await compiled(message))
            await context.send_headers()
            context.finish()
        except Exception as exc:
            raise _failure(exc, context) from exc
        finally:
            info.deadline = None
            call_info.reset(token)
        return reply

    return serve


def stream_method(
    method: str, handler: MethodHandler, wrap: Middleware, endpoint: Callable[[], str]
) -> StreamHandler:
    """Serve one method that reads, or writes, any number of messages."""
    behaviour: Any = handler.stream_stream or handler.stream_unary or handler.unary_stream
    decode, encode = _decoder(handler, behaviour), handler.response_serializer

    async def serve(call: ServerCall) -> None:
        info = _info(method, call, endpoint(), None)
        context = info.context = _StreamContext(call, info, decode, encode, wrap)
        token = call_info.set(info)
        try:
            await _run(handler, context)
            context.raise_for_code()
            await context.send_headers()
            context.finish()
        except Exception as exc:
            raise _failure(_in_grpc_words(exc, context), context) from exc
        finally:
            info.deadline = None
            call_info.reset(token)

    return serve


async def _run(handler: MethodHandler, context: "_StreamContext") -> None:
    """Call the method in its own form: iterators, or reading and writing the context."""
    behaviour: Any = handler.stream_stream or handler.stream_unary or handler.unary_stream
    if handler.request_streaming:
        result = behaviour(_messages(context), context)
    else:
        request = await context.read()
        if request is grpc.aio.EOF:
            raise RpcFailed(GrpcCode.INTERNAL, "grpc: the client sent no request message")
        result = behaviour(request, context)
    if inspect.isasyncgen(result):
        async with aclosing(result):
            async for reply in result:
                await context.write(reply)
        return
    if not inspect.isawaitable(result):
        raise TypeError(f"{context.info.operation} is not async; streams have to be")
    reply = await result
    if not handler.response_streaming:
        context.raise_for_code()
        await context.write(reply)


async def _messages(context: "_StreamContext") -> AsyncIterator[Any]:
    while (message := await context.read()) is not grpc.aio.EOF:
        yield message


class _StreamContext(ServicerContext):
    """A context whose messages pass the stream middleware."""

    __slots__ = ("_received", "_sent")

    def __init__(
        self, call: ServerCall, info: CallInfo, decode: Any, encode: Any, wrap: Middleware
    ) -> None:
        super().__init__(call, info, decode, encode)
        self._received = wrap(_as_it_is)
        self._sent = wrap(super().write)

    async def read(self) -> Any:
        message = await super().read()
        return message if message is grpc.aio.EOF else await self._received(message)

    async def write(self, message: Any) -> None:
        await self._sent(message)


async def _as_it_is(message: Any) -> Any:
    return message


def _decoder(handler: MethodHandler, behaviour: Any) -> Callable[[bytes], Any] | None:
    """What makes requests: of the class that the method's annotation names, else as generated."""
    kind = families.annotated(behaviour)
    if kind is None:
        return handler.request_deserializer
    return partial(families.from_bytes, kind)


def _asynchronous(behaviour: Any) -> Callable[[Any, Any], Awaitable[Any]]:
    """Methods written without ``async`` run in a thread, or they would stop all others."""
    if inspect.iscoroutinefunction(behaviour):
        return cast("Callable[[Any, Any], Awaitable[Any]]", behaviour)

    async def run(request: Any, context: ServicerContext) -> Any:
        result = await asyncio.to_thread(behaviour, request, context)
        return await result if inspect.isawaitable(result) else result

    return run


def _info(method: str, call: ServerCall, endpoint: str, timeout: float | None) -> ServerCallInfo:
    now = time.monotonic()
    deadline = call.deadline
    limit, side = (None, "") if deadline is None else (round(deadline - now, 3), "client")
    if timeout is not None and (deadline is None or deadline > now + timeout):
        deadline, limit, side = now + timeout, timeout, "server"
    return ServerCallInfo(
        Kind.GRPC,
        "server",
        method,
        endpoint,
        Metadata((key, value) for key, value in call.metadata if isinstance(value, str)),
        Metadata(),
        deadline,
        limit,
        side,
        call.peer,
    )


def _in_grpc_words(error: Exception, context: ServicerContext) -> Exception:
    """What grpc-go or its generated code say in the place of ``error``; else ``error`` itself."""
    match error:
        case NotImplementedError() if context.details() == _NOT_WRITTEN:
            name = context.info.operation.rpartition("/")[2]
            return RpcError(GrpcCode.UNIMPLEMENTED, f"method {name} not implemented")
        case grpc.aio.AioRpcError():
            code = GrpcCode(error.code().value[0])
            return RpcError(code, error.details() or "", tuple(error.trailing_metadata() or ()))
        case TimeoutError() if context.time_remaining() == 0.0:
            return RpcError(GrpcCode.DEADLINE_EXCEEDED, "context deadline exceeded")
        case _:
            return error


def _failure(error: Exception, context: ServicerContext) -> RpcFailed:
    if not isinstance(error, Error | RpcFailed):
        _log.error(f"[gRPC] {context.info.operation} failed", exc_info=error)
    failure = to_failure(error)
    context.finish(failure)
    return failure
