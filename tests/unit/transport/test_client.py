"""The client over an engine that the test plays; kratos-wire §5."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.errors.codes import GrpcCode
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.selector import Done, NoAvailableNode, Node
from kit.selector.filter import version
from kit.transport import CallInfo, Kind, call_info
from kit.transport.grpc import (
    ClientTls,
    GrpcClient,
    Keepalive,
    Limits,
    RawMetadata,
    Reply,
    RpcError,
    RpcFailed,
)
from kit.transport.grpc.engine import ClientStream
from kit.transport.grpc.healthwatch import QUIET
from kit.transport.grpc.pool import MOST_NODES_TRIED

AWAY = RpcFailed(GrpcCode.UNAVAILABLE, "connection refused", unsent=True)
HALF_SENT = RpcFailed(GrpcCode.UNAVAILABLE, "connection reset")


class Network:
    """An engine whose connections answer as the test says, with their own address by default."""

    def __init__(self) -> None:
        self.answers: dict[str, RpcFailed | Callable[[], Any]] = {}
        self.calls: list[str] = []
        self.sent: list[tuple[RawMetadata, float | None]] = []
        self.made: list[tuple[str, str | None, ClientTls | None]] = []
        self.closed: list[str] = []
        self.standing: set[str] = set()

    def __call__(
        self,
        address: str,
        *,
        authority: str | None,
        tls: ClientTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
    ) -> "Wire":
        if keepalive is QUIET:
            return WithoutHealth(Network(), address)
        self.made.append((address, authority, tls))
        return Wire(self, address)


class Wire:
    def __init__(self, network: Network, address: str) -> None:
        self._network = network
        self._address = address

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: RawMetadata,
        deadline: float | None,
        *,
        bare: bool = False,
    ) -> Reply:
        await asyncio.sleep(0)  # as a real one would, let others run
        self._network.calls.append(self._address)
        self._network.sent.append((metadata, deadline))
        answer = self._network.answers.get(self._address)
        if isinstance(answer, RpcFailed):
            raise answer
        if answer is not None:
            await answer()
        return Reply(self._address.encode())

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> ClientStream:
        raise AssertionError

    def ready(self) -> bool:
        return self._address in self._network.standing

    async def close(self) -> None:
        self._network.closed.append(self._address)


class WithoutHealth(Wire):
    """A node that has no health service."""

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> ClientStream:
        raise RpcFailed(GrpcCode.UNIMPLEMENTED, "unknown service grpc.health.v1.Health")


class Registry:
    """Says what the test puts, nothing before."""

    def __init__(self) -> None:
        self.lists: asyncio.Queue[list[ServiceInstance]] = asyncio.Queue()

    def put(self, *addresses: str) -> None:
        self.lists.put_nowait(
            [ServiceInstance(a, "trans", "v1", endpoints=(f"grpc://{a}",)) for a in addresses]
        )

    async def get_service(self, name: str) -> list[ServiceInstance]:
        raise AssertionError

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[AsyncIterator[list[ServiceInstance]]]:
        async def changes() -> AsyncIterator[list[ServiceInstance]]:
            while True:
                yield await self.lists.get()

        yield changes()


@pytest.fixture
def network() -> Network:
    return Network()


async def ask(client: GrpcClient, count: int = 1) -> list[str]:
    return [(await client.unary("/s.S/M", b"")).decode() for _ in range(count)]


async def test_a_call_that_never_left_goes_to_another_node(network: Network) -> None:
    network.answers["a:1"] = AWAY
    async with GrpcClient("direct:///a:1,b:1", engine=network) as client:
        assert await ask(client, 3) == ["b:1", "b:1", "b:1"]
    assert network.calls == ["a:1", "b:1", "b:1", "b:1"], "a:1 gets no further call"


async def test_a_node_comes_back_when_its_connection_stands(
    network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    network.answers["a:1"] = AWAY
    async with GrpcClient("direct:///a:1,b:1", engine=network) as client:
        await ask(client, 2)
        del network.answers["a:1"]
        assert await ask(client, 2) == ["b:1", "b:1"]
        network.standing.add("a:1")
        assert set(await ask(client, 2)) == {"a:1", "b:1"}
    assert capsys.readouterr().err.splitlines() == [
        "WARN msg=[gRPC] direct:///a:1,b:1: a:1 is away: connection refused",
        "INFO msg=[gRPC] direct:///a:1,b:1: a:1 is back",
    ]


async def test_a_call_that_may_have_arrived_is_not_made_again(network: Network) -> None:
    network.answers["a:1"] = HALF_SENT
    async with GrpcClient("direct:///a:1,b:1", engine=network) as client:
        with pytest.raises(RpcError, match="connection reset"):
            await ask(client)
        assert network.calls == ["a:1"]
        assert await ask(client, 2) == ["b:1", "b:1"], "but the node is left out"


async def test_with_all_nodes_away_the_error_names_target_and_address(network: Network) -> None:
    network.answers = {"a:1": AWAY, "b:1": AWAY}
    async with GrpcClient("direct:///a:1,b:1", engine=network) as client:
        for _ in range(2):  # the second time both are known to be away, and are tried anyway
            with pytest.raises(RpcError) as caught:
                await ask(client)
            assert caught.value.status is GrpcCode.UNAVAILABLE
            assert caught.value.message in {
                f"direct:///a:1,b:1: no connection to {address}: connection refused"
                for address in ("a:1", "b:1")
            }
    assert len(network.calls) == 4


async def test_a_call_tries_a_few_nodes_at_most(network: Network) -> None:
    addresses = [f"n{number}:1" for number in range(20)]
    network.answers = dict.fromkeys(addresses, AWAY)
    async with GrpcClient("direct:///" + ",".join(addresses), engine=network) as client:
        with pytest.raises(RpcError):
            await ask(client)
    assert len(network.calls) == len(set(network.calls)) == MOST_NODES_TRIED


async def test_no_node_is_tried_after_the_deadline(network: Network) -> None:
    async def late() -> None:
        await asyncio.sleep(0.02)
        raise AWAY

    network.answers = {"a:1": late, "b:1": late}
    async with GrpcClient("direct:///a:1,b:1", engine=network, timeout=0.01) as client:
        with pytest.raises(RpcError, match="connection refused"):
            await ask(client)
    assert network.calls == ["a:1"]


async def test_an_instance_that_went_is_closed_once_its_calls_have_ended(
    network: Network,
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await leave.wait()

    registry = Registry()
    registry.put("a:1")
    async with GrpcClient("discovery:///trans", discovery=registry, engine=network) as client:
        network.answers["a:1"] = wait
        running = asyncio.create_task(ask(client))
        await entered.wait()
        network.answers.clear()
        registry.put("b:1")
        async with asyncio.timeout(5):
            while await ask(client) != ["b:1"]:
                pass
        assert network.closed == []
        leave.set()
        assert await running == ["a:1"]
        registry.put("c:1")  # b:1 is idle: closed at once
        async with asyncio.timeout(5):
            while await ask(client) != ["c:1"]:
                pass
        assert network.closed == ["a:1", "b:1"]
    assert network.closed == ["a:1", "b:1", "c:1"]


async def test_connections_are_made_once_on_the_first_call_with_the_service_as_authority(
    network: Network,
) -> None:
    registry = Registry()
    registry.put("a:1", "b:1")
    async with GrpcClient("discovery:///trans", discovery=registry, engine=network) as client:
        await ask(client, 5)
    async with GrpcClient("h:1", engine=network, tls=ClientTls()) as client:
        await ask(client)
    assert network.made == [
        ("a:1", "trans", None),
        ("b:1", "trans", None),
        ("h:1", None, ClientTls()),
    ]


async def test_a_silent_registry_is_named_when_the_time_is_over(network: Network) -> None:
    discovery = Registry()
    async with GrpcClient(
        "discovery:///trans", discovery=discovery, engine=network, timeout=0.5
    ) as client:
        with pytest.raises(RegistryUnavailable) as caught:
            await ask(client)
        assert re.fullmatch(  # what was left of the half second when the wait began
            r"discovery create watcher overtime: Registry did not list trans in (4\d\d|500)ms",
            caught.value.message,
        )
        discovery.put("a:1")
        assert await ask(client) == ["a:1"], "the watch went on"


async def test_a_service_without_instances_fails_at_once(network: Network) -> None:
    registry = Registry()
    registry.put()
    async with GrpcClient("discovery:///trans", discovery=registry, engine=network) as client:
        with pytest.raises(NoAvailableNode) as caught:
            await ask(client)
    assert caught.value.message == "discovery:///trans: no instance of trans is registered"
    assert (caught.value.code, caught.value.reason) == (503, "no_available_node")


async def test_filters_that_leave_nobody_are_said(network: Network) -> None:
    async with GrpcClient("h:1", engine=network, filters=[version("v2")]) as client:
        with pytest.raises(NoAvailableNode, match="the node filters left none of 1"):
            await ask(client)


def test_a_registry_named_by_the_target_is_made_by_the_factory(network: Network) -> None:
    asked: list[list[str]] = []

    def make(endpoints: list[str]) -> Registry:
        asked.append(endpoints)
        return Registry()

    GrpcClient("etcd://h1:1,h2:2/trans", discovery_factory=make, engine=network)
    GrpcClient("etcd://h1:1/trans", discovery=Registry(), discovery_factory=make, engine=network)
    assert asked == [["h1:1", "h2:2"]], "a registry at hand is preferred, as in kratos"


@pytest.mark.parametrize("target", ["discovery:///trans", "discovery://h:1/trans"])
def test_a_target_that_needs_a_registry_says_how_to_give_one(target: str) -> None:
    with pytest.raises(ValueError, match=r"needs a registry; pass discovery=, .*host:port"):
        GrpcClient(target)


async def test_the_balancer_hears_what_became_of_each_call(network: Network) -> None:
    heard: list[BaseException | None] = []

    class First:
        def pick(self, nodes: Sequence[Node]) -> tuple[Node, Done]:
            return nodes[0], heard.append

    async with GrpcClient("direct:///a:1,b:1", engine=network, balancer=First()) as client:
        await ask(client)
        network.answers["a:1"] = AWAY
        await ask(client)
        network.answers["b:1"] = HALF_SENT
        with pytest.raises(RpcError):
            await ask(client)
    assert [None if error is None else str(error.__class__.__name__) for error in heard] == [
        None,
        "RpcError",
        None,
        "RpcError",
    ]


async def test_a_call_inside_a_servers_call_is_bound_by_it(network: Network) -> None:
    now = time.monotonic()
    outer = CallInfo(Kind.GRPC, "server", "/o.O/M", deadline=now + 0.5, limit=1.0)
    outer.limit_side = "server"
    async with GrpcClient("h:1", engine=network) as client:
        token = call_info.set(outer)
        try:
            await ask(client)
            outer.deadline = None  # the call has ended, what it left behind is free
            await ask(client)
        finally:
            call_info.reset(token)
    (_, inherited), (_, own) = network.sent
    assert inherited == now + 0.5
    assert own is not None
    assert own > now + 1.9


@pytest.mark.parametrize(
    ("pair", "wrong"),
    [
        (("x", "Zürich"), 'header key "x" contains value with non-printable ASCII characters'),
        (("x", "a\nb"), 'header key "x" contains value with non-printable ASCII characters'),
        (("a b", "1"), 'header key "a b" contains illegal characters not in [0-9a-z-_.]'),
        (("x-bin", "text"), 'header key "x-bin" needs a value of bytes'),
        (("x", b"bytes"), 'header key "x" needs a value of text; keys of bytes end in -bin'),
    ],
)
async def test_metadata_that_cannot_be_sent_is_named(
    network: Network, pair: tuple[str, str | bytes], wrong: str
) -> None:
    """In grpc-go's words; grpcio fails with the addresses of its operations."""
    async with GrpcClient("h:1", engine=network) as client:
        with pytest.raises(RpcError) as caught:
            await client.unary("/s.S/M", b"", metadata=[pair])
    assert (caught.value.status, caught.value.message) == (GrpcCode.INTERNAL, wrong)
    assert network.calls == []


async def test_a_closed_client_says_so(network: Network) -> None:
    client = GrpcClient("h:1", engine=network)
    await ask(client)
    await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="the client of h:1 is closed"):
        await ask(client)
    assert network.closed == ["h:1"]
