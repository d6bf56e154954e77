"""A gRPC client that finds its peers itself and survives the loss of some of them.

Source: go-kratos/kratos transport/grpc/client.go.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import grpc

from kit.errors.codes import GrpcCode
from kit.registry import Discovery
from kit.selector import Balancer, NodeFilter, Selector
from kit.selector.wrr import WeightedRoundRobin
from kit.transport import Middleware, call_info, chain
from kit.transport.dns import DnsDiscovery
from kit.transport.grpc.callinfo import ClientCallInfo, new_call, received
from kit.transport.grpc.engine import (
    ClientEngine,
    Connection,
    Keepalive,
    Limits,
)
from kit.transport.grpc.engines import EngineName, client_engine
from kit.transport.grpc.failure import RpcError
from kit.transport.grpc.healthwatch import QUIET, HealthWatches
from kit.transport.grpc.legal import checked
from kit.transport.grpc.pool import Pool
from kit.transport.grpc.resolver import SUBSET, Resolver
from kit.transport.grpc.stream import Requests, StreamCall
from kit.transport.grpc.target import parse_target
from kit.transport.operations import TimeLimits
from kit.transport.tls import ClientTls

DiscoveryFactory: TypeAlias = Callable[[list[str]], Discovery]
"""Takes ``host:port`` of a registry's servers, or ``consul://host:port``; who supplies it closes
what it made."""

Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[[bytes], Any]
MetadataArgument: TypeAlias = Iterable[tuple[str, str | bytes]] | None

FIRST_ANSWER_S = 10.0
_METHODS_KEPT = 10_000


class GrpcClient:
    """Calls the methods of one target.

    Generated stubs take it for a ``grpc.aio.Channel``; what a unary method of a stub gives is a
    coroutine of the reply::

        async with GrpcClient("discovery:///trans", discovery=registry) as client:
            await TransStub(client).TransOut(AdjustInfo(Amount=30, UserID=1))

    Args:
        target: what to call, see :mod:`kit.transport.grpc.target`.
        discovery: the registry of ``discovery:``, ``etcd:`` and ``consul:`` targets.
        discovery_factory: makes the registry that a target names when ``discovery`` is not given.
        timeout: seconds for a unary call, over the whole chain; 0 or less for no limit. A call made
            while a server's method runs is bound by that call's deadline as well.
        timeouts: in place of ``timeout`` for operations, or prefixes that end in ``*``.
        tls: ``None`` for plain text.
        middleware: around every unary call, first listed outermost.
        stream_middleware: around every message of a stream, sent or received.
        balancer: weighted round robin by default.
        filters: which nodes may be picked.
        subset: how many instances of a service to use at most; 0 for all.
        limits: only ``receive_bytes`` concerns a client.
        keepalive: when silent connections are asked whether they live.
        engine: what speaks HTTP/2, ``grpcio`` (the default) or ``lean``; see :mod:`.engines`.
        gzip: compress what is sent; what comes compressed is always read.
        health_check: of several nodes, call only those whose health service says SERVING or does
            not exist; see :mod:`.healthwatch`.

    Raises:
        ValueError: ``target``, ``engine`` or a selector cannot be understood, or the target needs
            a registry and none was given.
    """

    def __init__(
        self,
        target: str,
        *,
        discovery: Discovery | None = None,
        discovery_factory: DiscoveryFactory | None = None,
        timeout: float = 2.0,
        timeouts: Mapping[str, float] | None = None,
        tls: ClientTls | None = None,
        middleware: Sequence[Middleware] = (),
        stream_middleware: Sequence[Middleware] = (),
        balancer: Balancer | None = None,
        filters: Sequence[NodeFilter] = (),
        subset: int = SUBSET,
        limits: Limits | None = None,
        keepalive: Keepalive | None = None,
        engine: ClientEngine | EngineName | None = None,
        gzip: bool = False,
        health_check: bool = True,
    ) -> None:
        self._target = parse_target(target)
        self.target = target
        self.time_limits = TimeLimits(timeout, timeouts)
        self._plain = not middleware
        self.middleware = chain(middleware)
        self.stream_middleware = chain(stream_middleware)
        limits, keepalive = limits or Limits(), keepalive or Keepalive()
        make = client_engine(engine)

        def connect(address: str, asked: Keepalive = keepalive) -> Connection:
            return make(
                address,
                authority=self._target.service or self._target.name or None,
                tls=tls,
                limits=limits,
                keepalive=asked,
                gzip=gzip,
            )

        def connect_quietly(address: str) -> Connection:
            return connect(address, QUIET)

        self.pool = Pool(
            self._target,
            connect=connect,
            health=HealthWatches(target, connect_quietly) if health_check else None,
            selector=Selector(balancer or WeightedRoundRobin(), filters),
            first_answer=self.time_limits.default or FIRST_ANSWER_S,
        )
        scheme = "grpc" if tls is None else "grpcs"
        if self._target.name:
            discovery = DnsDiscovery(scheme)
        elif self._target.service:
            discovery = discovery or self._made_by(discovery_factory)
        if discovery is not None and not self._target.addresses:
            self.pool.resolve_with(
                Resolver(
                    self._target.service or self._target.name,
                    discovery,
                    scheme=scheme,
                    size=subset,
                    push=self.pool.push,
                )
            )
        self._raw: dict[str, UnaryMethod] = {}

    def _made_by(self, factory: DiscoveryFactory | None) -> Discovery:
        if factory is not None and self._target.registry:
            return factory(list(self._target.registry))
        raise ValueError(
            f"target {self._target.text!r} needs a registry; pass discovery=, name its servers "
            "with discovery_factory=, or call host:port directly"
        )

    async def __aenter__(self) -> "GrpcClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut every connection; may be called twice."""
        await self.pool.aclose()

    @property
    def channel(self) -> grpc.aio.Channel:
        """This client, typed as generated stubs ask for it."""
        return cast("grpc.aio.Channel", self)

    async def unary(
        self,
        method: str,
        request: bytes,
        *,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        timeout: float | None = None,  # noqa: ASYNC109  (travels as the gRPC deadline)
    ) -> bytes:
        """Call ``method`` by bytes, through the middleware.

        Args:
            method: ``/package.Service/Method``.
            request: an encoded message.
            metadata: pairs to send along; keys in lower case.
            timeout: seconds, in place of the client's.

        Raises:
            RpcError: the call failed, or its time was over.
            NoAvailableNode: nobody is there to be called.
            RegistryUnavailable: the registry has not said yet who is there.
        """
        if self._plain:  # nobody looks at the call, so nothing is kept for a look at it
            limit = self.time_limits.of(method) if timeout is None else timeout
            info = new_call(self.target, method, limit, None)
            sent = checked(tuple(metadata))
            return (await self.pool.unary(method, request, sent, info, bare=True)).message
        call = self._raw.get(method)
        if call is None:
            call = self.unary_unary(method)
            if len(self._raw) < _METHODS_KEPT:
                self._raw[method] = call
        reply: bytes = await call(request, metadata=metadata, timeout=timeout)
        return reply

    def unary_unary(
        self,
        method: str,
        request_serializer: Encode | None = None,
        response_deserializer: Decode | None = None,
        _registered_method: bool | None = None,
    ) -> "UnaryMethod":
        """One method of a stub: one message out, one in."""
        return UnaryMethod(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Encode | None = None,
        response_deserializer: Decode | None = None,
        _registered_method: bool | None = None,
    ) -> "UnaryStreamMethod":
        """One method of a stub: one message out, many in."""
        return UnaryStreamMethod(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Encode | None = None,
        response_deserializer: Decode | None = None,
        _registered_method: bool | None = None,
    ) -> "StreamUnaryMethod":
        """One method of a stub: many messages out, one in."""
        return StreamUnaryMethod(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Encode | None = None,
        response_deserializer: Decode | None = None,
        _registered_method: bool | None = None,
    ) -> "StreamStreamMethod":
        """One method of a stub: many messages each way."""
        return StreamStreamMethod(self, method, request_serializer, response_deserializer)


class _Method:
    """One method of a client, as generated stubs hold it."""

    def __init__(
        self, client: GrpcClient, method: str, encode: Encode | None, decode: Decode | None
    ) -> None:
        self._client = client
        self._method = method
        self._encode = encode
        self._decode = decode

    def _open(
        self, requests: Requests | None, timeout: float | None, metadata: MetadataArgument
    ) -> StreamCall:
        client = self._client
        return StreamCall(
            client.pool,
            new_call(client.target, self._method, timeout, metadata),
            encode=self._encode,
            decode=self._decode,
            wrap=client.stream_middleware,
            requests=requests,
        )


class UnaryMethod(_Method):
    """Makes a call per call."""

    def __init__(
        self, client: GrpcClient, method: str, encode: Encode | None, decode: Decode | None
    ) -> None:
        super().__init__(client, method, encode, decode)
        self._handler = client.middleware(self._exchange)

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (what stubs are called with)
        metadata: MetadataArgument = None,
        **_ignored: object,
    ) -> Any:
        """The reply to ``request``; ``timeout`` in seconds takes the place of the client's."""
        client = self._client
        limit = client.time_limits.of(self._method) if timeout is None else timeout
        token = call_info.set(new_call(client.target, self._method, limit, metadata))
        try:
            return await self._handler(request)
        finally:
            call_info.reset(token)

    async def _exchange(self, request: Any) -> Any:
        info = call_info.get()
        assert isinstance(info, ClientCallInfo), "middleware replaced the call info"
        data = request if self._encode is None else self._encode(request)
        try:
            reply = await self._client.pool.unary(self._method, data, info.sent(), info)
        except RpcError as error:
            info.take_answer(error.headers, error.trailers)
            raise
        info.take_answer(reply.headers, reply.trailers)
        return received(reply.message, self._decode)


class UnaryStreamMethod(_Method):
    """Opens a call per call; streams have no limit but ``timeout``."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: MetadataArgument = None,
        **_ignored: object,
    ) -> StreamCall:
        """The messages that answer ``request``."""
        return self._open([request], timeout, metadata)


class StreamUnaryMethod(_Method):
    """Makes a call per call out of an iterator of messages."""

    async def __call__(
        self,
        request_iterator: Requests,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  (what stubs are called with)
        metadata: MetadataArgument = None,
        **_ignored: object,
    ) -> Any:
        """The reply to all the messages."""
        async with self._open(request_iterator, timeout, metadata) as stream:
            reply = await stream.read()
            if reply is grpc.aio.EOF:
                raise RpcError(GrpcCode.INTERNAL, f"{self._method} ended without a reply")
            await stream.read()  # the status comes after the message
            return reply


class StreamStreamMethod(_Method):
    """Opens a call per call; streams have no limit but ``timeout``."""

    def __call__(
        self,
        request_iterator: Requests | None = None,
        *,
        timeout: float | None = None,
        metadata: MetadataArgument = None,
        **_ignored: object,
    ) -> StreamCall:
        """A call that sends the messages; without an iterator its ``write`` sends them."""
        return self._open(request_iterator, timeout, metadata)
