"""The engine on ``grpc.aio``: complete, and what the kit uses by default.

What had to be turned off or on, each found by trying:

- grpcio shares a port between processes (SO_REUSEPORT) unless told not to: a second server on a
  taken port would silently get half of the calls.
- Its own text for a taken port names no reason, and the core prints to stderr. The address is
  tried with a plain socket first, whose error says all.
- A keepalive timeout alone does not find a hung peer, ``grpc.http2.ping_timeout_ms`` does.
- A message over the limit ends the call inside the core, in the core's words. The core is given
  twice the limit, so that most of them can be answered in the words of grpc-go.
- A server that never started keeps its port bound after ``stop``.
- Retries stay on: without a policy they are only those of calls that a departing server certainly
  never began, which would fail at every restart of a peer.
- ``http_proxy`` of the environment would be used for calls between services.
- ``compression=`` of a server compresses for clients that cannot read it; a level does not.
- The core prints to stderr whenever a connection ends hard: see ``_quiet.py``.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc

from kit.cancellation import cancellation_kept
from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    RawMetadata,
    Reply,
    Route,
    Router,
    RpcFailed,
    StreamHandler,
    UnaryHandler,
    UnaryRoute,
)
from kit.transport.host import join_host_port
from kit.transport.tls import ClientTls, ServerTls

Options: TypeAlias = list[tuple[str, Any]]

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_FOREVER = 10 * 365 * 86400.0
_ROUTES_KEPT = 10_000
_RECONNECT_MS = (("initial", 200), ("min", 1000), ("max", 2000))
"""``min`` is in truth how long one attempt may take; 200 ms would be short for TLS on a busy
machine. A refused connection is tried again after ``initial`` in any case."""
_LEVEL = 2
_NOT_CONNECTED = ("failed to connect to all addresses", "DNS resolution failed", "errors resolving")
_NOT_TAKEN = (
    "Internal error from Core"  # what grpc.aio says when a call ended while it was written to
)


class GrpcioServer:
    """Serves with ``grpc.aio``; see :class:`~kit.transport.grpc.engine.ServerEngine`."""

    def __init__(
        self,
        router: Router,
        *,
        tls: ServerTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
    ) -> None:
        self._router = router
        self._tls = tls
        self._limits = limits
        self._options: Options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 2 * limits.receive_bytes),
            ("grpc.max_concurrent_streams", limits.streams_per_connection),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            *_keepalive_options(keepalive),
            ("grpc.keepalive_permit_without_calls", 1),
            *([("grpc.default_compression_level", _LEVEL)] if gzip else []),
            (
                "grpc.http2.min_ping_interval_without_data_ms",
                int(keepalive.accepted_interval * 1000),
            ),
        ]
        self._server: grpc.aio.Server | None = None
        self._started = False

    async def listen(self, host: str, port: int) -> int:
        """Bind ``host:port``."""
        address = join_host_port(host, port)
        _try_to_bind(host, port, address)
        self._server = server = grpc.aio.server(
            handlers=[_Handlers(self._router, self._limits.receive_bytes)],
            options=self._options,
            maximum_concurrent_rpcs=self._limits.concurrent_calls,
        )
        try:
            if self._tls is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, _server_credentials(self._tls))
        except RuntimeError as exc:
            # It was free a moment ago.
            raise OSError(errno.EADDRINUSE, f"cannot listen on {address}: {exc}") from exc

    async def start(self) -> None:
        """Accept calls."""
        assert self._server is not None, "listen() comes before start()"
        await self._server.start()
        self._started = True

    async def stop(self, grace: float | None) -> None:
        """Drain, then cut."""
        if self._server is None:
            return
        if not self._started:
            await self.start()
        await self._server.stop(_FOREVER if grace is None else grace)


def _try_to_bind(host: str, port: int, address: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            trial.bind((host, port))
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise OSError(exc.errno, f"cannot listen on {address}: {reason}") from exc


def _server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.private_key, tls.certificate)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )


def _keepalive_options(keepalive: Keepalive) -> Options:
    timeout_ms = int(keepalive.timeout * 1000)
    return [
        ("grpc.keepalive_time_ms", int(keepalive.interval * 1000)),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
    ]


class _Handlers(grpc.GenericRpcHandler):
    """Gives grpc.aio one of its handlers for each route; all of them take and give bytes."""

    def __init__(self, router: Router, limit: int) -> None:
        self._router = router
        self._limit = limit
        self._kept: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        method = handler_call_details.method
        kept = self._kept.get(method)
        if kept is not None:
            return kept
        route = self._router(method)
        if isinstance(route, RpcFailed):
            return grpc.stream_stream_rpc_method_handler(_failing(route))
        handler = self._handler(route)
        if len(self._kept) < _ROUTES_KEPT:
            self._kept[method] = handler
        return handler

    def _handler(self, route: Route) -> "grpc.RpcMethodHandler[bytes, bytes]":
        if isinstance(route, UnaryRoute):
            return grpc.unary_unary_rpc_method_handler(_unary(route.handler, self._limit))
        return grpc.stream_stream_rpc_method_handler(_streaming(route.handler, self._limit))


def _unary(handler: UnaryHandler, limit: int) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def serve(request: bytes, context: Any) -> bytes:
        try:
            if len(request) > limit:
                raise _too_large(request, limit)
            return await handler(request, _Call(context, limit))
        except RpcFailed as failure:
            await _abort(context, failure)
            raise AssertionError("abort raises") from failure

    return serve


def _streaming(handler: StreamHandler, limit: int) -> Callable[[Any, Any], Awaitable[None]]:
    async def serve(_requests: Any, context: Any) -> None:
        try:
            await handler(_Call(context, limit))
        except RpcFailed as failure:
            await _abort(context, failure)

    return serve


def _failing(failure: RpcFailed) -> Callable[[Any, Any], Awaitable[None]]:
    async def serve(_requests: Any, context: Any) -> None:
        await _abort(context, failure)

    return serve


async def _abort(context: Any, failure: RpcFailed) -> None:
    if failure.headers:
        await context.send_initial_metadata(tuple(failure.headers))
    await context.abort(_STATUS[failure.status], failure.message, tuple(failure.trailers))


def _too_large(message: bytes, limit: int) -> RpcFailed:
    return RpcFailed(
        GrpcCode.RESOURCE_EXHAUSTED,
        f"grpc: received message larger than max ({len(message)} vs. {limit})",
    )


class _Call:
    """One call being served; see :class:`~kit.transport.grpc.engine.ServerCall`."""

    __slots__ = ("_context", "_limit")

    def __init__(self, context: Any, limit: int) -> None:
        self._context = context
        self._limit = limit

    @property
    def peer(self) -> str:
        peer: str = self._context.peer()
        return (
            peer.removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[").replace("%5D", "]")
        )

    @property
    def deadline(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return None if remaining is None else time.monotonic() + remaining

    @property
    def metadata(self) -> RawMetadata:
        metadata: RawMetadata = self._context.invocation_metadata() or ()
        return metadata

    def cancelled(self) -> bool:
        return bool(self._context.cancelled())

    async def send_initial_metadata(self, metadata: RawMetadata) -> None:
        await self._context.send_initial_metadata(tuple(metadata))

    def set_trailing_metadata(self, metadata: RawMetadata) -> None:
        self._context.set_trailing_metadata(tuple(metadata))

    async def read(self) -> bytes | None:
        message: Any = await self._context.read()
        if message is grpc.aio.EOF:
            return None
        if len(message) > self._limit:
            raise _too_large(message, self._limit)
        return bytes(message)

    async def write(self, message: bytes) -> None:
        await self._context.write(message)


class GrpcioConnection:
    """One channel of ``grpc.aio``; see :class:`~kit.transport.grpc.engine.Connection`."""

    def __init__(
        self,
        address: str,
        *,
        authority: str | None,
        tls: ClientTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
    ) -> None:
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        options: Options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", limits.receive_bytes),
            *((f"grpc.{name}_reconnect_backoff_ms", value) for name, value in _RECONNECT_MS),
            *_keepalive_options(keepalive),
            ("grpc.keepalive_permit_without_calls", 0),
        ]
        if authority is not None:
            options.append(("grpc.default_authority", authority))
        if tls is None:
            self._channel = grpc.aio.insecure_channel(
                address, options=options, compression=compression
            )
        else:
            name = tls.server_name or authority
            if name is not None:
                options.append(("grpc.ssl_target_name_override", name))
            self._channel = grpc.aio.secure_channel(
                address,
                grpc.ssl_channel_credentials(tls.ca, tls.private_key, tls.certificate),
                options=options,
                compression=compression,
            )
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: RawMetadata,
        deadline: float | None,
        *,
        bare: bool = False,
    ) -> Reply:
        """Make one call."""
        callable_ = self._unary.get(method)
        if callable_ is None:
            callable_ = self._channel.unary_unary(method)
            if len(self._unary) < _ROUTES_KEPT:
                self._unary[method] = callable_
        call: Any = callable_(
            request,
            timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0),
            metadata=tuple(metadata),
        )
        try:
            message = await call
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc) from exc
        if bare:  # to await the two was 5 % of a branch call
            return Reply(message)
        return Reply(
            message,
            tuple(await call.initial_metadata() or ()),
            tuple(await call.trailing_metadata() or ()),
        )

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> "GrpcioStream":
        """Open a streaming call."""
        call: Any = self._channel.stream_stream(method)(
            timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0),
            metadata=tuple(metadata),
        )
        return GrpcioStream(call, self._failure, deadline)

    def ready(self) -> bool:
        """Whether the channel is connected."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Cut what is open."""
        await self._channel.close()

    def _failure(self, error: grpc.aio.AioRpcError) -> RpcFailed:
        status, message = GrpcCode(error.code().value[0]), error.details() or ""
        return RpcFailed(
            status,
            message,
            tuple(error.trailing_metadata() or ()),
            headers=tuple(error.initial_metadata() or ()),
            # The text alone would not do: a peer may hand on what its own client told it.
            unsent=status is GrpcCode.UNAVAILABLE
            and message.startswith(_NOT_CONNECTED)
            and self._channel.get_state() is not grpc.ChannelConnectivity.READY,
        )


class GrpcioStream:
    """A streaming call; see :class:`~kit.transport.grpc.engine.ClientStream`."""

    def __init__(
        self,
        call: Any,
        failure: Callable[[grpc.aio.AioRpcError], RpcFailed],
        deadline: float | None,
    ) -> None:
        self._call = call
        self._failure = failure
        self._deadline = deadline
        self._begun = False

    async def write(self, message: bytes) -> None:
        """Send one message."""
        try:
            with cancellation_kept():
                if not self._begun:
                    await self._begin()
                await self._call.write(message)
        except grpc.aio.AioRpcError as exc:
            if (
                exc.details() == _NOT_TAKEN
                and self._deadline is not None
                and self._deadline <= time.monotonic()
            ):
                raise RpcFailed(GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from exc
            raise self._failure(exc) from exc

    async def _begin(self) -> None:
        """Wait until messages may be sent.

        ``grpc.aio`` lets a writer wait for ever when somebody else cancels a call before that.
        """
        ended = asyncio.Event()
        self._call.add_done_callback(lambda _: ended.set())
        begins = asyncio.ensure_future(self._call.wait_for_connection())
        ends = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait({begins, ends}, return_when=asyncio.FIRST_COMPLETED)
            if begins.done():
                begins.result()
            else:
                await self._call.read()  # raises why it has ended
        finally:
            begins.cancel()
            ends.cancel()
        self._begun = True

    async def done_writing(self) -> None:
        """Half-close."""
        with cancellation_kept():
            await self._call.done_writing()

    async def read(self) -> bytes | None:
        """The next message."""
        try:
            with cancellation_kept():
                message: Any = await self._call.read()
        except grpc.aio.AioRpcError as exc:
            raise self._failure(exc) from exc
        return None if message is grpc.aio.EOF else bytes(message)

    async def headers(self) -> RawMetadata:
        """Initial metadata."""
        return tuple(await self._call.initial_metadata() or ())

    async def trailers(self) -> RawMetadata:
        """Trailing metadata."""
        return tuple(await self._call.trailing_metadata() or ())

    def cancel(self) -> None:
        """Give the call up."""
        self._call.cancel()


__all__: Sequence[str] = ["GrpcioConnection", "GrpcioServer"]
