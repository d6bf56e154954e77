"""The seam between the kit's gRPC and the code that speaks HTTP/2.

Below it there are only bytes in, bytes out, metadata, a deadline and a status; no messages, no
middleware, no names of services. :mod:`kit.transport.grpc.grpcio` implements it on ``grpc.aio``.
Nothing above knows which engine runs.

Server: the engine is given a :data:`Router` and asks it for the :data:`Route` of each method it
hears of, or how to fail. A handler runs in a task of its own and raises nothing but
:class:`RpcFailed` and ``CancelledError``; it is cancelled when the client has gone.

Client: a :class:`Connection` leads to one address. A call that fails raises :class:`RpcFailed`,
and the engine says whether the request certainly never left.

Deadlines are instants of ``time.monotonic``; ``None`` means that there is none.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from kit.errors.codes import GrpcCode
from kit.transport.tls import ClientTls, ServerTls
from kit.value import value

RawMetadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""Keys in lower case; keys that end in ``-bin`` have bytes, all others text."""

MESSAGE_LIMIT = 4 * 1024 * 1024
"""What a peer may send in one message, in bytes: the default of gRPC."""


class RpcFailed(Exception):
    """A call ended with a status other than OK.

    Args:
        status: the gRPC code, never OK.
        message: the status message.
        trailers: trailing metadata, ``grpc-status-details-bin`` among it.
        headers: initial metadata, when the peer sent some before it failed.
        unsent: the request certainly never reached the peer's code: the call may go to another
            node.
    """

    def __init__(
        self,
        status: GrpcCode,
        message: str = "",
        trailers: RawMetadata = (),
        *,
        headers: RawMetadata = (),
        unsent: bool = False,
    ) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message
        self.trailers = trailers
        self.headers = headers
        self.unsent = unsent


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer, or all together, may take.

    Attributes:
        receive_bytes: one message; larger ones are RESOURCE_EXHAUSTED.
        concurrent_calls: calls that a server runs at once; more are RESOURCE_EXHAUSTED.
        streams_per_connection: calls on one connection at once; the client waits with further ones.
        connections: open connections of a server; further ones are closed.
    """

    receive_bytes: int = MESSAGE_LIMIT
    concurrent_calls: int = 10_000
    streams_per_connection: int = 1_000
    connections: int = 10_000


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When a silent connection is asked whether it still lives; seconds.

    Attributes:
        interval: between pings while calls are open. Servers punish less than 10 s, and Go's
            default server allows a ping every 300 s on a connection that carries no answers: raise
            it for long silent streams to such peers.
        timeout: without an answer for so long the connection is given up.
        accepted_interval: what this side, as a server, lets its clients do.
    """

    interval: float = 10.0
    timeout: float = 5.0
    accepted_interval: float = 5.0


class ServerCall(Protocol):
    """One call that a server is handling."""

    @property
    def peer(self) -> str:
        """The other side's address, such as ``10.0.0.7:51234``."""
        ...

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting."""
        ...

    @property
    def metadata(self) -> RawMetadata:
        """What the client sent along."""
        ...

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        ...

    async def send_initial_metadata(self, metadata: RawMetadata) -> None:
        """Send ``metadata`` ahead of the first message; at most once."""
        ...

    def set_trailing_metadata(self, metadata: RawMetadata) -> None:
        """Send ``metadata`` with an OK status; a failure brings its own."""
        ...

    async def read(self) -> bytes | None:
        """Streams: the next message, ``None`` when the client has sent its last."""
        ...

    async def write(self, message: bytes) -> None:
        """Streams: send one message; waits while the client's window is full."""
        ...


UnaryHandler: TypeAlias = Callable[[bytes, ServerCall], Awaitable[bytes]]
StreamHandler: TypeAlias = Callable[[ServerCall], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class UnaryRoute:
    """One message in, one out."""

    handler: UnaryHandler


@dataclass(frozen=True, slots=True)
class StreamRoute:
    """Any number of messages, each way; the handler reads and writes the call."""

    handler: StreamHandler


Route: TypeAlias = UnaryRoute | StreamRoute
Router: TypeAlias = Callable[[str], Route | RpcFailed]
"""What serves a method, ``/package.Service/Method`` as the peer wrote it, or why nothing does.

A :data:`Route` holds for good, so an engine may keep it; a failure does not.
"""


class ServerEngine(Protocol):
    """Accepts calls and hands them to a router."""

    async def listen(self, host: str, port: int) -> int:
        """Bind ``host`` and return the port, which is chosen when 0.

        ``host`` is an IP address; ``::`` takes IPv4 as well.

        Raises:
            OSError: the address is taken, is not ours, or needs rights.
        """
        ...

    async def start(self) -> None:
        """Accept calls; returns at once."""
        ...

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, wait for running ones, cut those that need more than ``grace`` seconds.

        ``None`` waits without limit, 0 cuts at once. May be called again with less grace, also
        while a call of it waits; returns when no handler runs any more.
        """
        ...


class ServerEngineFactory(Protocol):
    """Makes the engine of one server."""

    def __call__(
        self,
        router: Router,
        *,
        tls: ServerTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
    ) -> ServerEngine:
        """An engine that has not bound anything; ``gzip`` compresses for clients that take it."""
        ...


@value
class Reply:
    """What a unary call brought back."""

    message: bytes
    headers: RawMetadata = ()
    trailers: RawMetadata = ()


class ClientStream(Protocol):
    """A call with any number of messages, each way."""

    async def write(self, message: bytes) -> None:
        """Send one message; waits while the peer's window is full.

        Raises:
            RpcFailed: the call has ended.
        """
        ...

    async def done_writing(self) -> None:
        """Say that no more messages follow."""
        ...

    async def read(self) -> bytes | None:
        """The next message, ``None`` at the end of a call that succeeded.

        Raises:
            RpcFailed: the call ended otherwise.
        """
        ...

    async def headers(self) -> RawMetadata:
        """The initial metadata, as soon as it is there."""
        ...

    async def trailers(self) -> RawMetadata:
        """The trailing metadata, once the call has ended."""
        ...

    def cancel(self) -> None:
        """Give the call up; who reads it gets ``CancelledError``."""
        ...


class Connection(Protocol):
    """The way to one address; it connects by itself, on the first call and again after a loss."""

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: RawMetadata,
        deadline: float | None,
        *,
        bare: bool = False,
    ) -> Reply:
        """Make one call. Cancelling the caller cancels the call.

        Args:
            method: ``/package.Service/Method``.
            request: an encoded message.
            metadata: what to send along.
            deadline: when the caller stops waiting.
            bare: nobody looks at the metadata of a reply, so it need not be fetched.

        Raises:
            RpcFailed: the status was not OK, or the deadline passed (DEADLINE_EXCEEDED).
        """
        ...

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> ClientStream:
        """Open a streaming call."""
        ...

    def ready(self) -> bool:
        """Whether the connection stands; when it does not, it starts to connect."""
        ...

    async def close(self) -> None:
        """Cut what is open; may be called twice."""
        ...


class ClientEngine(Protocol):
    """Makes connections."""

    def __call__(
        self,
        address: str,
        *,
        authority: str | None,
        tls: ClientTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
    ) -> Connection:
        """A connection to ``address``; it does not dial yet.

        Args:
            address: ``host:port``, or a form only this engine knows.
            authority: the ``:authority`` of calls and the name to verify; ``None`` for that of the
                address.
            tls: ``None`` for plain text.
            limits: only ``receive_bytes`` concerns a client.
            keepalive: see there.
            gzip: compress what is sent; what comes compressed is always read.
        """
        ...
