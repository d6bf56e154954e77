"""What every transport shares: servers, handlers, middleware, and what a call knows about itself.

Source: go-kratos/kratos transport/transport.go, middleware/middleware.go.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from kit.metadata import Metadata


class Kind(StrEnum):
    """Which transport carries a call."""

    GRPC = "grpc"
    HTTP = "http"


class Server(Protocol):
    """Something that serves until it is stopped; the application starts, announces and stops it.

    The order is ``listen`` (the socket is bound, an error ends the start), ``serve`` (returns
    after ``stop``), and only then announcement in the registry: peers never hear of a port that
    nobody listens on.
    """

    async def listen(self) -> None:
        """Bind the socket.

        Raises:
            OSError: the address is taken or does not exist.
        """
        ...

    async def serve(self) -> None:
        """Accept calls until ``stop``; return when the last one has ended.

        Raises:
            Exception: the server failed; the application stops all others and ends with this error.
        """
        ...

    async def stop(self, grace: float | None = None) -> None:
        """Refuse new calls and let running ones finish.

        At most ``grace`` seconds; ``None`` sets no limit.
        """
        ...

    @property
    def endpoint(self) -> str | None:
        """The URL to announce, such as ``grpc://10.0.0.5:9000``.

        ``None`` before ``listen``, and for a server that nobody calls, such as cron.
        """
        ...


@dataclass(slots=True)
class CallInfo:
    """What a handler and its middleware may know about the call.

    Attributes:
        kind: the transport.
        side: ``server`` or ``client``.
        operation: ``/package.Service/Method``.
        endpoint: on a server its own URL, on a client the target as configured.
        request_headers: what the peer sent (server) or will be sent (client).
        reply_headers: what will be sent back (server) or came back (client).
        deadline: on ``time.monotonic``'s clock; ``None`` when nobody set one, and once the call of
            a server has ended: work it left behind is not bound by it.
        limit: how many seconds the call was given, and ``limit_side`` by whom: ``server`` or
            ``client``.
        peer: the other side's address; on a client that of the picked node, once picked.
    """

    kind: Kind
    side: str
    operation: str
    endpoint: str = ""
    request_headers: Metadata = field(default_factory=Metadata)
    reply_headers: Metadata = field(default_factory=Metadata)
    deadline: float | None = None
    limit: float | None = None
    limit_side: str = ""
    peer: str = ""


Handler: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Takes a request message, gives the reply; :func:`current_call` has what else a call carries."""

Middleware: TypeAlias = Callable[[Handler], Handler]
"""Wraps a handler; the same on servers and clients, gRPC and HTTP."""

call_info: ContextVar[CallInfo | None] = ContextVar("kit_call_info", default=None)


def current_call() -> CallInfo | None:
    """The call that this task is handling or making; ``None`` outside of one."""
    return call_info.get()


def chain(middleware: Iterable[Middleware]) -> Middleware:
    """One middleware out of many; the first listed is the outermost.

    Source: go-kratos/kratos middleware/middleware.go, Chain.
    """
    layers = tuple(middleware)

    def wrap(handler: Handler) -> Handler:
        for layer in reversed(layers):
            handler = layer(handler)
        return handler

    return wrap
