"""Clients that ask the health services of their nodes; kratos-wire §5."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError

Status = health_pb2.HealthCheckResponse


class Node:
    """A plain grpcio server that gives its name, with a health service that the test sets."""

    def __init__(self, name: str, *, health_service: bool = True) -> None:
        self.name = name
        self.address = ""
        self.watches = 0
        self.health = health.aio.HealthServicer() if health_service else None

    async def say(self, status: Any) -> None:
        assert self.health is not None
        await self.health.set("", status)

    def service(self, details: Any) -> Any:
        if details.method.startswith("/grpc.health"):
            return None
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, _request: bytes, _context: Any) -> bytes:
        return self.name.encode()


class Anything(grpc.GenericRpcHandler):
    def __init__(self, node: Node) -> None:
        self._node = node

    def service(self, details: Any) -> Any:
        return self._node.service(details)


@asynccontextmanager
async def nodes(*given: Node) -> AsyncIterator[str]:
    """Running servers; gives the target of them all."""
    async with AsyncExitStack() as stack:
        for node in given:
            server = grpc.aio.server()
            if node.health is not None:
                health_pb2_grpc.add_HealthServicer_to_server(node.health, server)
                await node.say(Status.SERVING)
            server.add_generic_rpc_handlers((Anything(node),))
            node.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            stack.push_async_callback(server.stop, 0)
        yield "direct:///" + ",".join(node.address for node in given)


async def called(client: GrpcClient) -> set[str]:
    """Who answers a few calls."""
    return {(await client.unary("/s.S/M", b"", timeout=10)).decode() for _ in range(6)}


async def until(client: GrpcClient, names: set[str]) -> None:
    """Wait for it; a call that meets a server just as it stops may fail."""
    found: set[str] = set()
    async with asyncio.timeout(20):
        while found != names:
            try:
                found = await called(client)
            except RpcError:
                found = set()
            await asyncio.sleep(0.02)


async def test_a_node_that_does_not_serve_gets_no_calls_until_it_serves_again() -> None:
    a, b = Node("a"), Node("b")
    async with nodes(a, b) as target, GrpcClient(target) as client:
        await until(client, {"a", "b"})
        await a.say(Status.NOT_SERVING)
        await until(client, {"b"})
        await a.say(Status.SERVING)
        await until(client, {"a", "b"})


async def test_a_node_without_a_health_service_is_healthy() -> None:
    a, b = Node("a"), Node("b", health_service=False)
    async with nodes(a, b) as target, GrpcClient(target) as client:
        await until(client, {"a", "b"})
        await a.say(Status.NOT_SERVING)
        await until(client, {"b"})


async def test_when_no_node_serves_all_are_called() -> None:
    """A health service that is wrong must not end everything."""
    a, b = Node("a"), Node("b")
    async with nodes(a, b) as target, GrpcClient(target) as client:
        await until(client, {"a", "b"})
        await a.say(Status.NOT_SERVING)
        await until(client, {"b"})
        await b.say(Status.NOT_SERVING)
        await until(client, {"a", "b"})


@pytest.mark.parametrize("checked", [True, False])
async def test_a_health_check_can_be_left_out_and_one_node_has_none(checked: bool) -> None:
    """With one node there is no choice; nobody asks it."""
    asked: list[str] = []
    a, b = Node("a"), Node("b")
    for node in (a, b):
        health_of = node.health
        assert health_of is not None
        watch = health_of.Watch

        async def noting(request: Any, context: Any, watch: Any = watch, node: Node = node) -> Any:
            asked.append(node.name)
            await watch(request, context)

        health_of.Watch = noting  # type: ignore[method-assign]
    async with nodes(a, b) as target:
        async with GrpcClient(a.address) as client:
            assert await called(client) == {"a"}
        assert asked == []
        async with GrpcClient(target, health_check=checked) as client:
            await until(client, {"a", "b"})
            async with asyncio.timeout(20):
                while checked and set(asked) != {"a", "b"}:
                    await asyncio.sleep(0.02)
        assert set(asked) == ({"a", "b"} if checked else set())


async def test_a_server_of_the_kit_that_stops_is_left_before_it_closes() -> None:
    """It says NOT_SERVING, waits for the call that runs, and gets no new ones."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_request: bytes, _call: Any) -> bytes:
        entered.set()
        await leave.wait()
        return b"slow"

    async def quick(_request: bytes, _call: Any) -> bytes:
        return b"kit"

    server = GrpcServer(address="127.0.0.1:0")
    server.register_unary("/s.S/Slow", slow)
    server.register_unary("/s.S/M", quick)
    b = Node("b")
    async with (
        running(server) as address,
        nodes(b),
        GrpcClient(f"direct:///{address},{b.address}") as client,
        GrpcClient(address) as direct,
    ):
        await until(client, {"kit", "b"})
        last = asyncio.create_task(direct.unary("/s.S/Slow", b"", timeout=30))
        await entered.wait()
        stopping = asyncio.create_task(server.stop(30))
        await until(client, {"b"})
        leave.set()
        assert await last == b"slow"
        await stopping
