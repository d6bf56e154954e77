"""From bytes in a real etcd to the instance that is called; kratos-wire §2.2, §3.1, §5, §6."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from kit.errors import Error
from kit.etcd import EtcdClient, EtcdOptions
from kit.registry import ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.registry.memory import MemoryRegistry
from kit.selector import Balancer, Node
from kit.selector.filter import version
from kit.selector.p2c import P2C
from kit.selector.random import RandomBalancer
from kit.selector.wrr import WeightedRoundRobin
from kit.testing.etcd import EtcdServer, etcd_server
from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer
from kit.transport.grpc.resolver import SUBSET, Resolver

RECORDED = {
    # kratos 2.2, the transfer service
    "/microservices/trans/host-1": b'{"id":"host-1","name":"trans","version":"v1.0","metadata":{},'
    b'"endpoints":["grpc://10.0.0.5:9000"]}',
    # kratos 2.9 with both servers and a weight; HTML characters as Go escapes them
    "/microservices/trans/2b": b'{"id":"2b","name":"trans","version":"v2 \\u003cb\\u003e",'
    b'"metadata":{"weight":"30"},"endpoints":["http://10.0.0.6:8000","grpc://10.0.0.6:9000"]}',
    # kratos 2.2 with TLS, kratos 2.5 with TLS
    "/microservices/trans/tls-old": b'{"id":"tls-old","name":"trans","version":"","metadata":null,'
    b'"endpoints":["grpc://10.0.0.7:9000?isSecure=true"]}',
    "/microservices/trans/tls": b'{"id":"tls","name":"trans","version":"","metadata":null,'
    b'"endpoints":["grpcs://10.0.0.8:9000"]}',
    # dtm's driver: no version, metadata null
    "/microservices/trans/dtm": b'{"id":"9d3c1b3e-6c2f-11ec-90d6-0242ac120003","name":"trans",'
    b'"version":"","metadata":null,"endpoints":["grpc://localhost:36790"]}',
    # not announced by a kratos application: no endpoints at all, one that is no URL, none of ours
    "/microservices/trans/none": b'{"id":"none","name":"trans","version":"","metadata":{},'
    b'"endpoints":null}',
    "/microservices/trans/bad": b'{"id":"bad","name":"trans","version":"","metadata":{},'
    b'"endpoints":["grpc://[::1"]}',
    "/microservices/trans/queue": b'{"id":"queue","name":"trans","version":"","metadata":{},'
    b'"endpoints":["tcp://10.0.0.9:1"]}',
    # a neighbour with a longer name
    "/microservices/trans-admin/1": b'{"id":"1","name":"trans-admin","version":"","metadata":{},'
    b'"endpoints":["grpc://10.0.1.1:9000"]}',
}


@pytest.fixture
async def etcd() -> AsyncIterator[EtcdServer]:
    async with etcd_server() as server:
        yield server


async def resolved(registry: EtcdRegistry, scheme: str) -> dict[str, float]:
    """Addresses and weights, as a client would have them."""
    pushed: asyncio.Queue[tuple[Node, ...]] = asyncio.Queue()
    resolver = Resolver(
        "trans", registry, scheme=scheme, size=SUBSET, push=pushed.put_nowait, key="k"
    )
    task = asyncio.create_task(resolver.run())
    try:
        async with asyncio.timeout(20):
            return {node.address: node.weight for node in await pushed.get()}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_recorded_bytes_become_the_nodes_that_kratos_would_call(
    etcd: EtcdServer, capsys: pytest.CaptureFixture[str]
) -> None:
    options = EtcdOptions((etcd.endpoint,))
    async with EtcdClient(options) as client, EtcdRegistry(options) as registry:
        for key, value in RECORDED.items():
            await client.put(key, value.decode())
        assert await resolved(registry, "grpc") == {
            "10.0.0.5:9000": 100.0,
            "10.0.0.6:9000": 30.0,
            "localhost:36790": 100.0,
        }
        assert await resolved(registry, "grpcs") == {"10.0.0.7:9000": 100.0, "10.0.0.8:9000": 100.0}
        assert await resolved(registry, "http") == {"10.0.0.6:8000": 30.0}
    lines = capsys.readouterr().err
    assert "ERROR msg=[resolver] Failed to parse discovery endpoint: " in lines
    assert 'INFO msg=[resolver] update instances: [{"id":"2b","name":"trans",' in lines


async def test_a_client_keeps_twenty_five_of_many_and_others_choose_differently() -> None:
    registry = MemoryRegistry()
    for number in range(60):
        await registry.register(
            ServiceInstance(f"i{number}", "trans", endpoints=(f"grpc://10.0.0.{number}:9000",))
        )
    chosen: list[set[str]] = []
    for key in ("one", "two", "one"):
        pushed: asyncio.Queue[tuple[Node, ...]] = asyncio.Queue()
        resolver = Resolver(
            "trans", registry, scheme="grpc", size=SUBSET, push=pushed.put_nowait, key=key
        )
        task = asyncio.create_task(resolver.run())
        async with asyncio.timeout(20):
            chosen.append({node.address for node in await pushed.get()})
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    first, second, again = chosen
    assert len(first) == len(second) == 25
    assert first != second
    assert first == again


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("balancer", [WeightedRoundRobin, RandomBalancer, P2C])
async def test_every_balancer_reaches_every_instance_and_the_filter_holds(
    balancer: type[Balancer],
) -> None:
    """Three real servers, two of version v1."""
    registry = MemoryRegistry()

    def serving(name: str) -> GrpcServer:
        async def who(_request: bytes, _call: Any) -> bytes:
            return name.encode()

        server = GrpcServer(address="127.0.0.1:0")
        server.register_unary("/s.S/Who", who)
        return server

    async with AsyncExitStack() as stack:
        for name, text in (("a", "v1"), ("b", "v1"), ("c", "v2")):
            address = await stack.enter_async_context(running(serving(name)))
            await registry.register(
                ServiceInstance(name, "demo", text, endpoints=(f"grpc://{address}",))
            )
        target = "discovery:///demo"
        for filters, wanted in (([], {b"a", b"b", b"c"}), ([version("v1")], {b"a", b"b"})):
            client = GrpcClient(target, discovery=registry, balancer=balancer(), filters=filters)
            async with client:
                seen: Counter[bytes] = Counter()
                async with asyncio.timeout(30):
                    while set(seen) != wanted:
                        seen[await client.unary("/s.S/Who", b"", timeout=10)] += 1
        nobody = GrpcClient(target, discovery=registry, filters=[version("v3")])
        async with nobody:
            with pytest.raises(Error) as caught:
                await nobody.unary("/s.S/Who", b"", timeout=10)
            assert (caught.value.code, caught.value.reason) == (503, "no_available_node")
