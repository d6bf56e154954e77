"""Servers and connections of both engines at the seam, for the length of a test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from kit.transport.grpc.engine import (
    ClientTls,
    Connection,
    Keepalive,
    Limits,
    Route,
    ServerCall,
    ServerEngine,
    ServerTls,
    StreamRoute,
    UnaryRoute,
)
from kit.transport.grpc.engines import EngineName, client_engine, server_engine
from kit.transport.lean import Guard, LeanConnection, LeanServer

Unary = Callable[[bytes, ServerCall], Awaitable[bytes]]


@asynccontextmanager
async def serving(
    handler: Unary | None = None,
    *,
    stream: Callable[[ServerCall], Awaitable[None]] | None = None,
    engine: EngineName = "lean",
    limits: Limits | None = None,
    keepalive: Keepalive | None = None,
    guard: Guard | None = None,
    tls: ServerTls | None = None,
    port: int = 0,
) -> AsyncIterator[tuple[str, ServerEngine]]:
    """A server whose every method is ``handler``, or ``stream``; gives its address.

    With both, ``stream`` is for methods whose name ends in ``Stream``.
    """

    def route(method: str) -> Route:
        if stream is not None and (handler is None or method.endswith("Stream")):
            return StreamRoute(stream)
        assert handler is not None
        return UnaryRoute(handler)

    common: dict[str, Any] = {
        "tls": tls,
        "limits": limits or Limits(),
        "keepalive": keepalive or Keepalive(),
    }
    server: ServerEngine
    if engine == "lean":
        server = LeanServer(route, guard=guard, **common)
    else:
        server = server_engine(engine)(route, **common)
    bound = await server.listen("127.0.0.1", port)
    await server.start()
    try:
        yield f"127.0.0.1:{bound}", server
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(
    address: str,
    *,
    engine: EngineName = "lean",
    limits: Limits | None = None,
    keepalive: Keepalive | None = None,
    tls: ClientTls | None = None,
    guard: Guard | None = None,
) -> AsyncIterator[Connection]:
    """A connection to ``address``."""
    common: dict[str, Any] = {
        "authority": None,
        "tls": tls,
        "limits": limits or Limits(),
        "keepalive": keepalive or Keepalive(),
    }
    connection: Connection
    if engine == "lean":
        connection = LeanConnection(address, guard=guard, **common)
    else:
        connection = client_engine(engine)(address, **common)
    try:
        yield connection
    finally:
        await connection.close()


async def echo(request: bytes, _call: ServerCall) -> bytes:
    """The request."""
    return request
