"""A server of the kit and a plain grpcio channel to it, which knows nothing of the kit."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer

Behaviour = Callable[[trans_pb2.AdjustInfo, Any], Awaitable[trans_pb2.Response]]
Serve = Callable[..., Awaitable[grpc.aio.Channel]]


class Trans(trans_pb2_grpc.TransServicer):
    """TransIn does what the test says, TransOut is not written."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def TransIn(self, request: Any, context: Any) -> trans_pb2.Response:  # noqa: N802
        return await self._behaviour(request, context)


async def _done(_request: trans_pb2.AdjustInfo, _context: Any) -> trans_pb2.Response:
    return trans_pb2.Response()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``await serve(behaviour, server=…)`` gives a channel to a running server."""
    async with AsyncExitStack() as stack:

        async def start(
            behaviour: Behaviour = _done, server: GrpcServer | None = None
        ) -> grpc.aio.Channel:
            server = server or GrpcServer(address="127.0.0.1:0")
            trans_pb2_grpc.add_TransServicer_to_server(Trans(behaviour), server.services)
            address = await stack.enter_async_context(running(server))
            return await stack.enter_async_context(grpc.aio.insecure_channel(address))

        yield start


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """How ``call`` failed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.fixture(name="failure")
def failure_fixture() -> Callable[[Awaitable[Any]], Awaitable[grpc.aio.AioRpcError]]:
    return failure
