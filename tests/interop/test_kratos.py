"""A Go kratos service and client against the kit, in both directions, both engines.

Every case runs with the Go program calling the kit, and with the kit calling the Go program: what
holds one way has to hold the other.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kit.etcd import EtcdClient
from kit.registry.etcd import EtcdRegistry
from kit.registry.record import decode, encode
from kit.testing.etcd import etcd_server
from tests.interop import peer_pb2 as pb
from tests.interop.build import BUILD_WITHIN
from tests.interop.callers import Via, Who, calling, go_peer
from tests.interop.kratos_service import Address, Identity, PeerService, kit_peer

pytestmark = pytest.mark.timeout(BUILD_WITHIN + 120)

PAIRS: tuple[tuple[Who, Who], ...] = (
    ("go", "lean"),
    ("go", "grpcio"),
    ("lean", "go"),
    ("grpcio", "go"),
)
"""Who calls, and who serves."""
HTTP_PAIRS: tuple[tuple[Who, Who], ...] = (("go", "grpcio"), ("grpcio", "go"))
"""Over HTTP there are no engines."""
WAYS = [(*pair, "grpc") for pair in PAIRS] + [(*pair, "http") for pair in HTTP_PAIRS]

FULL = pb.LookRequest(
    id=(1 << 53) + 1,
    shelf=pb.Shelf(name="upper", height=7),
    tags=["a", "b c", "d,e", "ä=&?"],
    colour="COLOUR_RED",
    data=b"\x00\xff\xfe?>",
    weight=0.1,
    fresh=False,
    labels={"k": "v"},
)


@asynccontextmanager
async def serving(
    who: Who, *, next_address: str = "", tls: Identity | None = None, etcd: str = ""
) -> AsyncIterator[Address]:
    """The peer, written in Go or on the kit."""
    if who == "go":
        async with go_peer(next_address=next_address, tls=tls, etcd=etcd) as (address, _):
            yield address
        return
    if not etcd:
        async with kit_peer(who, next_address=next_address, tls=tls) as address:
            yield address
        return
    async with EtcdRegistry(etcd) as registry, kit_peer(who, registrar=registry) as address:
        yield address


def _in_http(who: Who) -> str:
    return "go" if who == "go" else "kit"


@pytest.mark.parametrize(("caller", "server", "via"), WAYS)
async def test_a_call_arrives_as_it_was_made(caller: Who, server: Who, via: Via) -> None:
    async with serving(server) as address, calling(caller, address) as client:
        for request in (FULL, pb.LookRequest()):
            answer = await client.call(via, "Look", request)
            assert answer.error is None
            assert answer.reply.seen == request
            assert answer.reply.operation == "/interop.v1.Peer/Look"
            assert answer.headers["x-peer"] == _in_http(server)


@pytest.mark.parametrize(("caller", "server"), HTTP_PAIRS)
async def test_path_query_and_body_fill_the_request(caller: Who, server: Who) -> None:
    sent = pb.LookRequest()
    sent.CopyFrom(FULL)
    sent.ClearField("labels")  # kratos' client writes no maps into a query
    async with serving(server) as address, calling(caller, address) as client:
        for method in ("LookUp", "LookAt"):
            answer = await client.call("http", method, sent)
            assert answer.error is None
            assert answer.reply.seen == sent
            assert answer.reply.operation == f"/interop.v1.Peer/{method}"


@pytest.mark.parametrize(("caller", "server"), HTTP_PAIRS)
async def test_messages_travel_in_binary_when_both_ask_for_it(caller: Who, server: Who) -> None:
    async with serving(server) as address, calling(caller, address) as client:
        answer = await client.call("http", "Look", FULL, codec="proto")
        assert answer.reply.seen == FULL
        assert answer.headers["content-type"] == "application/proto"


@pytest.mark.parametrize("kind", ["json", "proto"])
async def test_both_answer_the_same_bytes_for_what_is_asked(kind: str) -> None:
    """Content negotiation and errors, byte by byte: the same request to either server."""
    asked: list[tuple[str, str, dict[str, str], bytes]] = [
        ("POST", "/v1/look", {"content-type": f"application/{kind}"}, _encoded(kind)),
        ("POST", "/v1/look", {"content-type": "application/json"}, b"{"),
        ("POST", "/v1/look", {"content-type": "application/nothing"}, b"{}"),
        ("POST", "/v1/look", {"content-type": "application/x-www-form-urlencoded"}, b"id=7"),
        ("GET", "/v1/shelves/s/items/7?tags=a&tags=b&colour=1&nothing=1", {}, b""),
        ("GET", "/v1/shelves/s/items/x", {}, b""),
        ("GET", "/v1/shelves/s/items/7?weight=x", {}, b""),
        ("POST", "/v1/fail", {"content-type": "application/json"}, b'{"code":404,"reason":"A"}'),
        ("GET", "/v1/look", {}, b""),
        ("GET", "/nothing", {}, b""),
        ("GET", "/v1//look", {}, b""),
    ]
    found = []
    for who in ("go", "grpcio"):
        async with serving(who) as address, aiohttp.ClientSession() as session:
            answers = []
            for verb, path, headers, body in asked:
                headers = {"accept": f"application/{kind}", **headers}
                url = f"http://{address.http}{path}"
                async with session.request(
                    verb, url, headers=headers, data=body, allow_redirects=False
                ) as reply:
                    content = await reply.read()
                    kind_of = reply.headers.get("content-type", "")
                    answers.append((reply.status, kind_of, _comparable(kind_of, content)))
            found.append(answers)
    for request, by_go, by_kit in zip(asked, *found, strict=True):
        assert by_kit == by_go, request


def _encoded(kind: str) -> bytes:
    return b'{"id":"7","colour":1}' if kind == "json" else FULL.SerializeToString()


def _comparable(kind: str, content: bytes) -> Any:
    """What tells nothing of the peer's library: JSON by value, and no wording of its errors."""
    if kind == "application/json":
        value = json.loads(content)
        if value.get("reason") == "CODEC":
            value["message"] = ""
        if "seen" in value:
            value["leftMs"] = ""
        return value
    if kind == "application/proto":
        return None  # fields in any order; what they say is compared above
    return content


@pytest.mark.parametrize(("caller", "server", "via"), WAYS)
async def test_an_error_keeps_code_reason_and_metadata(caller: Who, server: Who, via: Via) -> None:
    metadata = {"shelf": "7", "é": "ü"}
    async with serving(server) as address, calling(caller, address) as client:
        for code in (400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504):
            wanted = pb.FailRequest(
                code=code, reason="NO_STOCK", message="7 % of ä\n", metadata=metadata
            )
            answer = await client.call(via, "Fail", wanted)
            assert answer.error == (code, "NO_STOCK", "7 % of ä\n", metadata)


@pytest.mark.parametrize(("caller", "server", "via"), WAYS)
async def test_metadata_arrives(caller: Who, server: Who, via: Via) -> None:
    metadata = {"x-md-global-tenant": "t1", "x-md-local-shard": "s 1", "x-own": "no"}
    async with serving(server) as address, calling(caller, address) as client:
        answer = await client.call(via, "Look", metadata=metadata)
    metadata.pop("x-own")
    assert dict(answer.reply.metadata) == metadata


@pytest.mark.parametrize(("caller", "server", "via"), WAYS)
async def test_global_metadata_goes_on_and_local_metadata_stays(
    caller: Who, server: Who, via: Via
) -> None:
    """Three in a row: the caller, a server, and behind it a server of the caller's kind."""
    metadata = {"x-md-global-tenant": "t1", "x-md-local-shard": "s1"}
    async with (
        serving(caller) as last,
        serving(server, next_address=last.grpc) as address,
        calling(caller, address) as client,
    ):
        await client.call(via, "Relay")  # from here on all are connected
        answer = await client.call(via, "Relay", FULL, metadata=metadata)
    assert answer.error is None
    assert answer.reply.seen == FULL
    assert dict(answer.reply.metadata) == {"x-md-global-tenant": "t1"}


@pytest.mark.parametrize(("caller", "server"), PAIRS)
async def test_a_deadline_travels_with_the_call_and_its_calls(caller: Who, server: Who) -> None:
    async with (
        serving(caller) as last,
        serving(server, next_address=last.grpc) as address,
        calling(caller, address) as client,
    ):
        await client.call("grpc", "Relay")  # from here on all are connected
        for method in ("Look", "Relay"):
            answer = await client.call("grpc", method, timeout=0.9)
            assert answer.error is None
            assert 0 < answer.reply.left_ms <= 900
        without = await client.call("grpc", "Look")
        assert 0 < without.reply.left_ms <= 1_000  # a server's own second


@pytest.mark.parametrize(("caller", "server"), PAIRS)
async def test_a_call_ends_at_its_deadline(caller: Who, server: Who) -> None:
    service = PeerService()
    async with (
        serving("go") if server == "go" else kit_peer(server, service=service) as address,
        calling(caller, address) as client,
    ):
        assert await client.health() == "SERVING"  # it is connected
        answer = await client.call("grpc", "Hang", timeout=2.0)
        assert answer.error is not None
        assert answer.error[0] == 504
        if server != "go":
            await asyncio.wait_for(service.cancelled.wait(), 10)


@pytest.mark.parametrize("server", ["lean", "grpcio"])
async def test_a_go_client_that_gives_up_stops_the_method(server: Who) -> None:
    service = PeerService()
    async with kit_peer(server, service=service) as address, calling("go", address) as client:
        assert await client.health() == "SERVING"  # it is connected
        answer = await client.call("grpc", "Hang", cancel=2.0)
        assert answer.error is not None
        assert answer.error[0] == 499
        await asyncio.wait_for(service.cancelled.wait(), 10)


@pytest.mark.parametrize(("caller", "server"), PAIRS)
async def test_streams_of_each_kind_end_as_they_should(caller: Who, server: Who) -> None:
    async with serving(server) as address, calling(caller, address) as client:
        assert (await client.stream("Sum", 1, 2, 3)).values == [6]
        assert (await client.stream("Double", 1, 2, 3)).values == [2, 4, 6]
        even = await client.stream("Count", 1_000)
        assert (even.values, even.error) == ([*range(1, 1_001)], None)
        odd = await client.stream("Count", 3)
        assert odd.values == [1, 2, 3]
        assert odd.error == (409, "ODD", "an odd number", {"after": "all"})


async def test_go_reads_server_sent_events_of_the_kit() -> None:
    async with kit_peer("grpcio") as address, calling("go", address) as client:
        lines = await client.events(2)
        assert lines == [
            *("event: message", 'data: {"value":"1"}', ""),
            *("event: message", 'data: {"value":"2"}', ""),
        ]
        failed = await client.events(1)
        assert failed[3] == "event: error"
        error = json.loads(failed[4].removeprefix("data: "))
        assert (error["code"], error["reason"]) == (409, "ODD")


async def test_the_kit_reads_server_sent_events_of_go() -> None:
    async with serving("go") as address, calling("grpcio", address) as client:
        assert (await client.events(4)).values == [1, 2, 3, 4]
        failed = await client.events(3)
        assert failed.values == [1, 2, 3]
        assert failed.error == (409, "ODD", "an odd number", {})


@pytest.mark.parametrize(("caller", "server"), PAIRS)
async def test_health_is_asked_and_watched_until_the_server_stops(caller: Who, server: Who) -> None:
    if server == "go":
        async with go_peer() as (address, peer), calling(caller, address) as client:
            await _watched(client, lambda: peer.signal(signal.SIGTERM))
        return
    stopping = asyncio.Event()

    async def serve_until_told(addresses: asyncio.Queue[Address]) -> None:
        async with kit_peer(server) as address:
            addresses.put_nowait(address)
            await stopping.wait()

    addresses: asyncio.Queue[Address] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve_until_told(addresses))
        async with calling(caller, await addresses.get()) as client:
            await _watched(client, stopping.set)


async def _watched(client: Any, stop: Any) -> None:
    assert await client.health() == "SERVING"
    statuses = []
    async for status in client.watch():
        statuses.append(status)
        if len(statuses) == 1:
            stop()
    assert statuses == ["SERVING", "NOT_SERVING"]


@pytest.mark.parametrize(("caller", "server", "via"), WAYS)
async def test_a_service_is_found_through_etcd(caller: Who, server: Who, via: Via) -> None:
    async with (
        etcd_server() as etcd,
        serving(server, etcd=etcd.endpoint) as address,
        calling(caller, address, etcd=etcd.endpoint) as client,
    ):
        answer = await client.call(via, "Look", FULL)
        assert answer.error is None
        assert answer.reply.seen == FULL


@pytest.mark.parametrize(
    ("caller", "server", "via", "method"),
    [*((*pair, "grpc", "Look") for pair in PAIRS), ("grpcio", "go", "http", "LookUp")],
)
async def test_no_call_is_lost_while_servers_come_and_go(
    caller: Who, server: Who, via: Via, method: str
) -> None:
    """Each of three is stopped once the next one is there, with calls running all the time.

    Over HTTP/1.1 that can be promised for what may be repeated, as GET: a server that closes an
    idle connection may meet a request half-way. kratos' own client does not try another server.
    """
    stopped = asyncio.Event()
    request = pb.LookRequest(id=7, shelf=pb.Shelf(name="upper"))
    answered: list[str] = []

    async def call_on(client: Any) -> None:
        while not stopped.is_set():
            answer = await client.call(via, method, request)
            assert answer.error is None
            answered.append(answer.headers["x-endpoint"].rpartition("//")[2])

    async def until_called(address: Address, times: int) -> None:
        answered.clear()
        while answered.count(address.grpc if via == "grpc" else address.http) < times:
            await asyncio.sleep(0.01)

    async with etcd_server() as etcd, AsyncExitStack() as before:
        address = await before.enter_async_context(_stopping(server, etcd.endpoint, "first"))
        async with (
            calling(caller, address, etcd=etcd.endpoint) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(1 if caller == "go" else 8):  # the Go program makes one at a time
                group.create_task(call_on(client))
            for name in ("second", "third"):
                async with AsyncExitStack() as stack:
                    address = await stack.enter_async_context(
                        _stopping(server, etcd.endpoint, name)
                    )
                    await until_called(address, 1)
                    await before.aclose()
                    await until_called(address, 20)
                    before.push_async_exit(stack.pop_all())
            stopped.set()


@asynccontextmanager
async def _stopping(who: Who, etcd: str, name: str) -> AsyncIterator[Address]:
    """A peer that is stopped as in the field: it takes its name back, then drains."""
    if who != "go":
        async with (
            EtcdRegistry(etcd) as registry,
            kit_peer(who, registrar=registry, name=name) as address,
        ):
            yield address
        return
    async with go_peer(etcd=etcd, name=name) as (address, peer):
        yield address
        peer.signal(signal.SIGTERM)
        await peer.ended()


async def test_both_announce_the_same_bytes() -> None:
    """What Go's own JSON of kratos' own type is, the kit writes: but for id and ports."""
    async with etcd_server() as etcd, EtcdClient(etcd.endpoint) as client:
        async with serving("go", etcd=etcd.endpoint), serving("grpcio", etcd=etcd.endpoint):
            listing = await client.get_prefix("/microservices/peer/")
        by_id = {decode(pair.value).id: pair.value for pair in listing.items}
    written = by_id["go-1"]
    assert encode(decode(written)) == written
    go, kit = decode(written), decode(by_id["kit-1"])
    for ours, theirs in zip(kit.endpoints, go.endpoints, strict=True):
        written = written.replace(theirs.encode(), ours.encode())
    assert written.replace(b'"go-1"', b'"kit-1"') == by_id["kit-1"]


@pytest.mark.parametrize(("caller", "server", "via"), WAYS)
async def test_calls_pass_through_tls(caller: Who, server: Who, via: Via, tmp_path: Path) -> None:
    tls = Identity.made_in(tmp_path)
    async with serving(server, tls=tls) as address, calling(caller, address, tls=tls) as client:
        answer = await client.call(via, "Look", FULL)
        assert answer.error is None
        assert answer.reply.seen == FULL


@pytest.mark.parametrize("server", ["lean", "grpcio"])
async def test_compressed_requests_of_go_are_read(server: Who) -> None:
    request = pb.LookRequest(tags=["a" * 10_000] * 20)
    async with serving(server) as address, calling("go", address) as client:
        answer = await client.call("grpc", "Look", request, gzip=True)
        assert answer.error is None
        assert answer.reply.seen == request
