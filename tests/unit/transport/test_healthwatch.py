"""What a client believes of its nodes' health, over connections that the test plays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpc_health.v1 import health_pb2

from kit.errors.codes import GrpcCode
from kit.testing import ManualClock
from kit.transport.grpc.engine import RawMetadata, Reply, RpcFailed
from kit.transport.grpc.healthwatch import METHOD, HealthWatches

Status = health_pb2.HealthCheckResponse
GONE = RpcFailed(GrpcCode.UNAVAILABLE, "connection refused", unsent=True)


class Node:
    """Says what the test puts: a status, raw bytes, how the call fails, or its end."""

    def __init__(self) -> None:
        self.sayings: asyncio.Queue[int | bytes | RpcFailed | None] = asyncio.Queue()
        self.asked = 0
        self.closed = False

    async def unary(
        self, method: str, request: bytes, metadata: RawMetadata, deadline: float | None
    ) -> Reply:
        raise AssertionError("a watch makes no such call")

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> "Node":
        assert (method, deadline) == (METHOD, None)
        self.asked += 1
        return self

    async def write(self, message: bytes) -> None:
        assert health_pb2.HealthCheckRequest.FromString(message).service == ""

    async def done_writing(self) -> None:
        pass

    async def read(self) -> bytes | None:
        said = await self.sayings.get()
        if isinstance(said, RpcFailed):
            raise said
        if isinstance(said, int):
            return Status(status=said).SerializeToString()  # type: ignore[arg-type]
        return said

    async def headers(self) -> RawMetadata:
        return ()

    async def trailers(self) -> RawMetadata:
        return ()

    def cancel(self) -> None:
        pass

    def ready(self) -> bool:
        return True

    async def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[HealthWatches, Node, ManualClock]]:
    node, clock = Node(), ManualClock()
    watches = HealthWatches("direct:///a:1,b:1", lambda _address: node, clock)
    watches.follow("a:1")
    watches.follow("a:1")
    try:
        yield watches, node, clock
    finally:
        await watches.aclose()
        assert node.closed


async def until_unwell(watches: HealthWatches, *addresses: str) -> None:
    async with asyncio.timeout(10):
        while watches.unwell != set(addresses):
            await asyncio.sleep(0)


async def test_what_a_node_said_last_holds_until_it_says_something_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with watched() as (watches, node, _):
        assert watches.unwell == set(), "a node is believed until it says no"
        for said, unwell in (
            (Status.SERVING, ()),
            (Status.NOT_SERVING, ("a:1",)),
            (Status.SERVICE_UNKNOWN, ("a:1",)),
            (Status.SERVING, ()),
        ):
            node.sayings.put_nowait(said)
            await until_unwell(watches, *unwell)
    assert node.asked == 1
    assert capsys.readouterr().err.splitlines() == [
        "WARN msg=[gRPC] direct:///a:1,b:1: a:1 says NOT_SERVING; others are called",
        "INFO msg=[gRPC] direct:///a:1,b:1: a:1 serves again",
    ]


async def test_a_broken_watch_changes_nothing_and_is_made_again_after_a_pause() -> None:
    async with watched() as (watches, node, clock):
        node.sayings.put_nowait(Status.NOT_SERVING)
        await until_unwell(watches, "a:1")
        for ending in (GONE, None, GONE):
            node.sayings.put_nowait(ending)
            asked = node.asked
            async with asyncio.timeout(10):
                while clock.next_wake is None:
                    await asyncio.sleep(0)
            assert node.asked == asked
            assert watches.unwell == {"a:1"}
            clock.advance(clock.next_wake)
            async with asyncio.timeout(10):
                while node.asked == asked:
                    await asyncio.sleep(0)
        node.sayings.put_nowait(Status.SERVING)
        await until_unwell(watches)
    assert node.asked == 4


@pytest.mark.parametrize(
    "said", [RpcFailed(GrpcCode.UNIMPLEMENTED, "unknown service grpc.health.v1.Health"), b"\xff"]
)
async def test_a_node_without_a_usable_health_service_counts_as_healthy(
    said: RpcFailed | bytes,
) -> None:
    """It is not asked again."""
    async with watched() as (watches, node, _):
        node.sayings.put_nowait(Status.NOT_SERVING)
        await until_unwell(watches, "a:1")
        node.sayings.put_nowait(said)
        await until_unwell(watches)
        async with asyncio.timeout(10):
            while not node.closed:
                await asyncio.sleep(0)
        watches.follow("a:1")
        assert node.asked == 1


async def test_a_node_that_is_gone_is_forgotten() -> None:
    async with watched() as (watches, node, _):
        node.sayings.put_nowait(Status.NOT_SERVING)
        await until_unwell(watches, "a:1")
        watches.forget("a:1")
        assert watches.unwell == set()
        async with asyncio.timeout(10):
            while not node.closed:
                await asyncio.sleep(0)
        watches.forget("b:1")
