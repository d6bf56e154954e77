"""Real gRPC servers for the length of a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from kit.transport.grpc import GrpcServer


@asynccontextmanager
async def running(server: GrpcServer) -> AsyncIterator[str]:
    """Serve until the block ends, then cut what still runs; gives ``host:port`` to dial.

    >>> async def example() -> None:
    ...     async with running(GrpcServer(address="127.0.0.1:0")) as address:
    ...         ...
    """
    await server.listen()
    serving = asyncio.create_task(server.serve())
    try:
        yield urlsplit(server.endpoint or "").netloc
    finally:
        await server.stop(0)
        await serving
