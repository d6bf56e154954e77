"""A gRPC server with kratos' defaults: health, reflection, a deadline of 1 s, a graceful stop.

Source: go-kratos/kratos transport/grpc/server.go.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import grpc
from google.protobuf.descriptor_pool import DescriptorPool

from kit import log
from kit.compat import Compat, chosen
from kit.errors import Error
from kit.transport import Middleware
from kit.transport.grpc import channels, health, metadata, reflection
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    RpcFailed,
    ServerCall,
    ServerEngine,
    ServerEngineFactory,
    UnaryHandler,
    UnaryRoute,
)
from kit.transport.grpc.engines import EngineName, server_engine
from kit.transport.grpc.failure import to_failure
from kit.transport.grpc.method import MethodHandler
from kit.transport.grpc.services import Services
from kit.transport.host import ListenAddress, announced_host, join_host_port
from kit.transport.lines import say
from kit.transport.operations import TimeLimits
from kit.transport.tls import ServerTls

_log = log.get_logger()


class GrpcServer:
    """Serves generated services and raw methods; a :class:`kit.transport.Server`.

    Generated code registers with it as with a ``grpc.aio.Server``::

        add_TransServicer_to_server(TransService(), server)

    A method may raise a :class:`kit.errors.Error`; any other exception answers UNKNOWN with its
    text. A method is cancelled when its client goes away or the server is cut short.

    Args:
        network: only ``tcp``.
        address: ``host:port``; a wildcard host takes IPv4 and IPv6, port 0 lets the system choose.
        timeout: seconds a unary call is given, as the deadline of its ``CallInfo`` and of the calls
            it makes; it does not cut the method off. 0 or less for no limit.
        timeouts: in place of ``timeout`` for operations, or prefixes that end in ``*``.
        tls: the server's identity; without it plain text.
        endpoint: the URL to announce in place of the one found out.
        middleware: around every unary method of generated services, first listed outermost; health
            and reflection have none, so that probes neither fill the log nor need to log in.
        stream_middleware: around every message of a stream, received or sent.
        disable_reflection: do not tell peers what is served; ``kratos.api.Metadata`` goes with it.
        channelz: tell peers about servers, channels and sockets of this process; only with the
            engine ``grpcio`` and ``pip install kit[channelz]``.
        custom_health: leave the health service to the caller.
        descriptor_pools: where reflection looks before the default pool.
        limits: what peers may take.
        keepalive: when silent connections are asked whether they still live.
        engine: what speaks HTTP/2, ``grpcio`` (the default) or ``lean``; see :mod:`.engines`.
        gzip: compress what is sent to clients that take it; what comes compressed is always read.
        compat: ``v2`` serves ``kratos.api.Metadata``; that of the process by default.

    Raises:
        ModuleNotFoundError: ``channelz`` without its package.
        ValueError: ``network``, ``address``, ``engine`` or a selector cannot be understood.
    """

    def __init__(
        self,
        *,
        network: str = "tcp",
        address: str = ":0",
        timeout: float = 1.0,
        timeouts: Mapping[str, float] | None = None,
        tls: ServerTls | None = None,
        endpoint: str | None = None,
        middleware: Sequence[Middleware] = (),
        stream_middleware: Sequence[Middleware] = (),
        disable_reflection: bool = False,
        channelz: bool = False,
        custom_health: bool = False,
        descriptor_pools: Sequence[DescriptorPool] = (),
        limits: Limits | None = None,
        keepalive: Keepalive | None = None,
        engine: ServerEngineFactory | EngineName | None = None,
        gzip: bool = False,
        compat: Compat | None = None,
    ) -> None:
        if network != "tcp":
            raise ValueError(f"network {network!r} is not supported; write tcp")
        self._address = ListenAddress.parse(address)
        self._tls = tls
        self._given_endpoint = endpoint
        self._endpoint: str | None = None
        self._listening_on = ""
        self._services = Services(
            limits=TimeLimits(timeout, timeouts),
            middleware=middleware,
            stream_middleware=stream_middleware,
            endpoint=lambda: self._endpoint or "",
        )
        self._health = None if custom_health else health.Health()
        if self._health is not None:
            self._services.add_routes(health.SERVICE, self._health.routes())
        self._reflection = None
        if not disable_reflection:
            pools = (*descriptor_pools, *reflection.own_pools(), metadata.POOL)
            self._reflection = reflection.Reflection(self._services.names, pools)
            for service in reflection.SERVICES:
                self._services.add_routes(service, self._reflection.routes())
            if chosen(compat) is Compat.V2:
                described = metadata.Metadata(self._services, pools)
                self._services.add_routes(metadata.SERVICE, described.routes())
        make_engine = server_engine(engine)
        if channelz:
            self._services.add_routes(channels.SERVICE, channels.routes(make_engine))
        self._engine: ServerEngine = make_engine(
            self._services.find,
            tls=tls,
            limits=limits or Limits(),
            keepalive=keepalive or Keepalive(),
            gzip=gzip,
        )
        self._stopping = False
        self._stopped = asyncio.Event()

    @property
    def endpoint(self) -> str | None:
        """``grpc://host:port``, ``grpcs://`` with TLS; ``None`` before :meth:`listen`."""
        return self._endpoint

    @property
    def services(self) -> grpc.aio.Server:
        """This server, typed as generated ``add_…_to_server`` functions ask for it."""
        return cast("grpc.aio.Server", self)

    def use(self, selector: str, *middleware: Middleware) -> None:
        """Add middleware for operations that ``selector`` matches; see :meth:`Services.use`."""
        self._services.use(selector, middleware)

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        """Serve what ``generic_rpc_handlers`` know; called by generated code."""
        self._services.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, MethodHandler]
    ) -> None:
        """Serve the methods of a service; called by generated code."""
        self._services.add_registered_method_handlers(service_name, method_handlers)

    def register_unary(self, method: str, handler: UnaryHandler) -> None:
        """Serve one method by bytes, with nothing in between: no middleware, no call info.

        Args:
            method: ``/package.Service/Method``.
            handler: ``async (request: bytes, call: ServerCall) -> bytes``; may raise what any
                method may raise.

        Raises:
            ValueError: ``method`` has another form.
        """
        service, separator, name = method.removeprefix("/").rpartition("/")
        if not method.startswith("/") or not separator or not service or not name:
            raise ValueError(f"method {method!r} is not of the form /package.Service/Method")
        self._services.add_routes(service, {name: UnaryRoute(_translating(method, handler))})

    async def listen(self) -> None:
        """Bind the address; calls wait in the kernel until :meth:`serve`.

        Raises:
            OSError: the address is taken, is not ours, or needs rights.
        """
        if self._listening_on:
            return
        try:
            host = self._address.resolve()
            port = await self._engine.listen(host, self._address.port)
        except OSError as exc:
            raise OSError(exc.errno, f"[gRPC] server {exc.strerror or exc}") from exc
        self._listening_on = join_host_port(host, port)
        self._endpoint = self._given_endpoint or self._own_endpoint(port)

    async def serve(self) -> None:
        """Accept calls until :meth:`stop`; return when the last one has ended."""
        await self.listen()
        if self._stopping:
            return
        await self._engine.start()
        where = self._listening_on
        say(
            _log.info,
            f"[gRPC] server listening on: {where}",
            "[gRPC] server listening",
            addr=where,
        )
        try:
            await self._stopped.wait()
        except asyncio.CancelledError:
            await self._engine.stop(0)
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Say NOT_SERVING, refuse new calls, let running ones finish, then cut the rest.

        May be called again, with less grace, while it waits.
        """
        if not self._stopping:
            self._stopping = True
            _log.info("[gRPC] server stopping")
            if self._health is not None:
                self._health.shutdown()
            if self._reflection is not None:
                self._reflection.shutdown()
        draining = asyncio.ensure_future(self._engine.stop(grace if grace == 0 else None))
        try:
            await asyncio.wait({draining}, timeout=grace or None)
            if not draining.done():
                _log.warning("[gRPC] server couldn't stop gracefully in time, doing force stop")
                await self._engine.stop(0)
            await draining
        except asyncio.CancelledError:
            await self._engine.stop(0)
            raise
        finally:
            draining.cancel()
            self._stopped.set()

    def _own_endpoint(self, port: int) -> str:
        host = announced_host(self._address.host)
        if host is None:
            _log.warning("[gRPC] no address of this machine can be reached; announcing 127.0.0.1")
            host = "127.0.0.1"
        address = join_host_port(host, port)
        return f"grpc://{address}" if self._tls is None else self._tls.endpoint("grpc", address)


def _translating(method: str, handler: UnaryHandler) -> UnaryHandler:
    async def serve(request: bytes, call: ServerCall) -> bytes:
        try:
            return await handler(request, call)
        except RpcFailed:
            raise
        except Exception as exc:
            if not isinstance(exc, Error):
                _log.error(f"[gRPC] {method} failed", exc_info=exc)
            raise to_failure(exc) from exc

    return serve
