"""gzip both ways with peers that have it: grpc-go under kratos, and @grpc/grpc-js."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.middleware import metadata
from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer
from kit.transport.grpc.engines import EngineName
from tests.interop import peer_pb2 as pb
from tests.interop import peer_pb2_grpc as peer_grpc
from tests.interop import testing_pb2_grpc as testing_grpc
from tests.interop.build import BUILD_WITHIN
from tests.interop.callers import calling, go_peer
from tests.interop.cases import CASES
from tests.interop.interop_service import InteropService
from tests.interop.kratos_service import Address, PeerService
from tests.interop.test_grpc_node import node_server, play

pytestmark = pytest.mark.timeout(BUILD_WITHIN + 120)

ENGINES: tuple[EngineName, ...] = ("lean", "grpcio")
LARGE = pb.LookRequest(tags=["a" * 10_000] * 20)


@asynccontextmanager
async def zipping(engine: EngineName) -> AsyncIterator[str]:
    """A server that compresses; gives its address."""
    server = GrpcServer(
        address="127.0.0.1:0", engine=engine, gzip=True, timeout=0, middleware=[metadata.server()]
    )
    testing_grpc.add_TestServiceServicer_to_server(InteropService(), server.services)
    peer_grpc.add_PeerServicer_to_server(PeerService(), server.services)
    async with running(server) as address:
        yield address


@pytest.mark.parametrize("engine", ENGINES)
async def test_go_reads_compressed_requests_and_the_kit_what_it_answers(engine: EngineName) -> None:
    """Unary and streaming; grpc-go compresses its answers to compressed requests."""
    async with (
        go_peer() as (address, _),
        GrpcClient(address.grpc, engine=engine, gzip=True) as client,
        GrpcClient(address.grpc, engine=engine) as plain,
    ):
        stub: Any = peer_grpc.PeerStub(client.channel)
        reply = await stub.Look(LARGE)
        assert (reply.seen, reply.encoding) == (LARGE, "compressed")
        assert [number.value async for number in stub.Count(pb.Number(value=100))] == [
            *range(1, 101)
        ]
        numbers = [pb.Number(value=value) for value in range(100)]
        assert (await stub.Sum(numbers)).value == sum(range(100))
        reply = await peer_grpc.PeerStub(plain.channel).Look(LARGE)
        assert (reply.seen, reply.encoding) == (LARGE, "")


@pytest.mark.parametrize("engine", ENGINES)
async def test_go_reads_compressed_answers(engine: EngineName) -> None:
    """server_compressed_unary and server_compressed_streaming."""
    async with zipping(engine) as address, calling("go", Address(address, "")) as client:
        for gzip in (False, True):
            answer = await client.call("grpc", "Look", LARGE, gzip=gzip)
            assert answer.error is None
            assert (answer.reply.seen, answer.encoding) == (LARGE, "compressed")
        assert (await client.stream("Count", 100)).values == [*range(1, 101)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["large_unary", "client_streaming", "server_streaming"])
async def test_the_node_server_is_content_with_compressed_calls(
    case: str, engine: EngineName
) -> None:
    async with (
        node_server() as address,
        GrpcClient(address, engine=engine, timeout=30.0, gzip=True) as client,
    ):
        await CASES[case](client)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "case",
    [
        *("empty_unary", "large_unary", "server_streaming", "ping_pong", "large_messages"),
        *("status_code_and_message", "custom_metadata"),
        *("client_compressed_unary", "client_compressed_streaming"),
    ],
)
async def test_the_node_client_is_content_with_compressed_answers(
    case: str, engine: EngineName
) -> None:
    async with zipping(engine) as address:
        await play(address, case)


@pytest.mark.parametrize("server", ENGINES)
async def test_go_calls_in_json_over_grpc(server: EngineName) -> None:
    """kratos' codec of that name, as ``application/grpc+json``."""
    async with zipping(server) as address, calling("go", Address(address, "")) as client:
        request = pb.LookRequest(id=7, shelf=pb.Shelf(name="a"), tags=["b"], colour="COLOUR_RED")
        answer = await client.call("grpc", "Look", request, codec="json")
        assert answer.error is None
        assert answer.reply.seen == request
