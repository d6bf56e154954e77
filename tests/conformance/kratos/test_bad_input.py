"""One service on both transports under bad input, bad clients and bad surroundings.

After each of them it answers as before.
"""

import asyncio
import datetime
import json
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
import pytest
import trustme

from kit import App
from kit.errors import Error
from kit.etcd import EtcdClient, EtcdOptions
from kit.middleware.recovery import recovery
from kit.middleware.timeout import timeout
from kit.registry import ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.registry.memory import MemoryRegistry
from kit.testing.etcd import etcd_server
from kit.transport.grpc import ClientTls, GrpcClient, GrpcServer, ServerTls
from kit.transport.http import HttpClient, HttpServer, Limits
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http import shop_pb2_grpc
from tests.unit.transport.http.shop import SERVICE, Shop

METHODS = SERVICE.methods_by_name
GET = "/tests.shop.v1.Shop/Get"
CREATE = "/tests.shop.v1.Shop/Create"


class Stubborn(Shop):
    """Also has an item that cannot be told to stop, until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.id != "stubborn":
            return await super().Get(request, context)
        while not self.let_go.is_set():
            self.entered.set()
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
        return pb.Item(id="late")


@dataclass
class Running:
    """The service and ways to it."""

    shop: Stubborn
    grpc: GrpcServer
    http: HttpServer
    registry: MemoryRegistry

    @property
    def grpc_address(self) -> str:
        return urlsplit(self.grpc.endpoint or "").netloc

    @property
    def http_address(self) -> str:
        return urlsplit(self.http.endpoint or "").netloc

    @property
    def http_port(self) -> int:
        return int(self.http_address.rpartition(":")[2])

    async def works(self) -> None:
        """Both transports answer."""
        request = pb.GetRequest(id="7")
        async with (
            GrpcClient("discovery:///shop", discovery=self.registry) as client,
            HttpClient("discovery:///shop", discovery=self.registry) as http,
        ):
            reply = await client.unary(GET, request.SerializeToString(), timeout=30)
            assert pb.Item.FromString(reply).id == "7"
            assert (await http.invoke(METHODS["Get"], request, timeout=30)).id == "7"

    async def exchange(self, data: bytes) -> tuple[int, Any]:
        """Status and body of the answer to ``data`` over HTTP/1.1; the body may be JSON."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
        try:
            writer.write(data)
            async with asyncio.timeout(30):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
        finally:
            writer.transport.abort()
        return int(head.split(b" ")[1]), json.loads(body) if body[:1] == b"{" else body

    async def post(self, body: bytes, *lines: str) -> tuple[int, Any]:
        """A POST of JSON."""
        given = ("host: a", "content-type: application/json", f"content-length: {len(body)}")
        head = "\r\n".join(("POST /v1/echo HTTP/1.1", *given, *lines, "", ""))
        return await self.exchange(head.encode("latin-1") + body)


@asynccontextmanager
async def service(
    *, limits: Limits | None = None, tls: ServerTls | None = None
) -> AsyncIterator[Running]:
    """An application with both servers, announced."""
    chain = [recovery(), timeout()]
    shop, registry = Stubborn(), MemoryRegistry()
    rpc = GrpcServer(address="127.0.0.1:0", middleware=chain, timeout=0.3, tls=tls)
    http = HttpServer(address="127.0.0.1:0", middleware=chain, timeout=0.3, limits=limits, tls=tls)
    shop_pb2_grpc.add_ShopServicer_to_server(shop, rpc.services)
    http.add_service(SERVICE, shop)
    app = App(name="shop", servers=[rpc, http], registrar=registry, stop_timeout=1.0, signals=())
    running = asyncio.create_task(app.run())
    try:
        async with asyncio.timeout(30):
            while not app.ready:
                assert not running.done()
                await asyncio.sleep(0.01)
        yield Running(shop, rpc, http, registry)
    finally:
        shop.let_go.set()
        app.stop()
        await running


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "body unmarshal"),
        (b'{"aString": "\xff"}', "body unmarshal"),
        (b'{"anInt32": "seven"}', "anInt32"),
        (b'{"anInt32": 2147483648}', "anInt32"),
        (b'{"aString": 7}', "aString"),
        (b'{"items": {}}', "items"),
        (b'{"color": "MAUVE"}', "MAUVE"),
        (b'{"at": "yesterday"}', "at"),
        (b'{"aBytes": "%"}', "aBytes"),
        (b"[1]", "body unmarshal"),
        (b'{"nested":' * 5_000 + b"{}" + b"}" * 5_000, "body unmarshal"),
    ],
)
async def test_malformed_json_wrong_types_and_unknown_names_of_enums_are_400(
    body: bytes, told: str
) -> None:
    """And the message says where it is."""
    async with service() as running:
        status, said = await running.post(body)
        assert (status, said["code"], said["reason"]) == (400, 400, "CODEC")
        assert told in said["message"]
        await running.works()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("sent", [b"\xff", b"\x0a\x05ab", b"\x12\xff" * 100, b"\x0b" * 200])
async def test_malformed_messages_are_internal_on_grpc_and_400_on_http(sent: bytes) -> None:
    async with service() as running:
        async with grpc.aio.insecure_channel(running.grpc_address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(CREATE)(sent, timeout=30)
            assert caught.value.code() is grpc.StatusCode.INTERNAL
        head = (
            f"POST /v1/items HTTP/1.1\r\nhost: a\r\ncontent-type: application/proto\r\n"
            f"content-length: {len(sent)}\r\n\r\n"
        )
        status, said = await running.exchange(head.encode() + sent)
        assert (status, said["reason"]) == (400, "CODEC")
        await running.works()


@pytest.mark.parametrize(
    "line",
    [
        "content-length: 7",
        "content-length: -1",
        "transfer-encoding: chunked",
        "bad header",
        "x\x00y: 1",
        "x-long: " + "a" * 100_000,
        "\r\n: empty name",
    ],
)
async def test_malformed_headers_are_refused(line: str) -> None:
    """A second, other length could smuggle a request past a proxy."""
    async with service() as running:
        try:
            status, _ = await running.post(b"{}", line)
        except (asyncio.IncompleteReadError, ConnectionError):
            status = 400  # closed without a word, as what is no HTTP deserves
        assert status in {400, 431} or (line.startswith("\r\n") and status == 200)
        await running.works()


@pytest.mark.parametrize("engine", ["grpcio", "lean"])
async def test_a_message_of_a_hundred_megabytes_is_refused_without_being_kept(engine: Any) -> None:
    """grpcio refuses it by its announced length; so does the lean engine."""

    async def size(request: bytes, _call: Any) -> bytes:
        return str(len(request)).encode()

    server = GrpcServer(address="127.0.0.1:0", engine=engine)
    server.register_unary("/s.S/M", size)
    await server.listen()
    serving = asyncio.create_task(server.serve())
    address = urlsplit(server.endpoint or "").netloc
    message = bytes(100 << 20)
    tracemalloc.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/s.S/M")(message, timeout=60)
            assert caught.value.code() in {
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.UNAVAILABLE,  # it hung up while the client still wrote
            }
            assert tracemalloc.get_traced_memory()[1] < 40 << 20
            assert await channel.unary_unary("/s.S/M")(b"hi", timeout=30) == b"2"
    finally:
        tracemalloc.stop()
        await server.stop(0)
        await serving


async def test_a_body_that_trickles_is_cut_at_its_deadline() -> None:
    """One byte at a time never ends: the connection does, and others are served meanwhile."""
    async with service(limits=Limits(body_s=0.5)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        writer.write(
            b"POST /v1/echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"content-length: 100000\r\n\r\n"
        )

        async def trickle() -> None:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        await running.works()
        try:
            async with asyncio.timeout(60):
                assert await reader.read() == b""
        except ConnectionError:
            pass  # cut while a byte was on its way
        finally:
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)
            writer.transport.abort()


@pytest.mark.usefixtures("engine")
async def test_a_thousand_idle_connections_hinder_nobody() -> None:
    """Half of them on each transport."""
    async with service() as running:
        open_: list[socket.socket] = []
        try:
            for address in (running.grpc_address, running.http_address):
                host, _, port = address.rpartition(":")
                for number in range(500):
                    one = socket.create_connection((host, int(port)), 30)
                    open_.append(one)
                    if number % 50 == 0:
                        await asyncio.sleep(0)  # the server has to accept them
            await running.works()
        finally:
            for one in open_:
                one.close()
        await running.works()


@pytest.mark.usefixtures("engine")
async def test_a_deadline_that_passes_is_504_and_says_whose_it_was() -> None:
    """The server's limit of 0.3 s on both transports, then the client's own."""
    slow = pb.GetRequest(id="slow")
    async with service() as running:
        async with (
            GrpcClient(running.grpc_address, timeout=30) as client,
            HttpClient(running.http_address, timeout=30) as http,
        ):
            for call in (
                client.unary(GET, slow.SerializeToString()),
                http.invoke(METHODS["Get"], slow),
            ):
                with pytest.raises(Error) as caught:
                    await call
                assert (caught.value.code, caught.value.reason) == (504, "TIMEOUT")
                assert caught.value.message == f"server timeout of 300ms for {GET}"
            for call in (
                client.unary(GET, slow.SerializeToString(), timeout=0.05),
                http.invoke(METHODS["Get"], slow, timeout=0.05),
            ):
                with pytest.raises(Error) as caught:
                    await call
                assert caught.value.code == 504
                assert "client timeout of" in caught.value.message
        await running.works()


@pytest.mark.usefixtures("engine")
async def test_a_handler_that_panics_is_500_and_gives_nothing_away() -> None:
    panic = pb.GetRequest(id="panic")
    async with service() as running:
        async with (
            GrpcClient(running.grpc_address) as client,
            HttpClient(running.http_address) as http,
        ):
            for call in (
                client.unary(GET, panic.SerializeToString(), timeout=30),
                http.invoke(METHODS["Get"], panic, timeout=30),
            ):
                with pytest.raises(Error) as caught:
                    await call
                assert (caught.value.code, caught.value.reason) == (500, "UNKNOWN")
                assert "oops" not in str(caught.value)
        await running.works()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_handler_that_ignores_its_cancellation_holds_nobody_up(transport: str) -> None:
    """It was cut and told to end; it runs on, and so does everything else."""
    request = pb.GetRequest(id="stubborn")
    async with service() as running:
        async with (
            GrpcClient(running.grpc_address) as client,
            HttpClient(running.http_address) as http,
        ):
            connects = pb.GetRequest(id="7")
            await client.unary(GET, connects.SerializeToString(), timeout=30)
            await http.invoke(METHODS["Get"], connects, timeout=30)
            call: Any = (
                client.unary(GET, request.SerializeToString(), timeout=0.25)
                if transport == "grpc"
                else http.invoke(METHODS["Get"], request, timeout=0.25)
            )
            with pytest.raises(Error) as caught:
                await call
            assert caught.value.code == 504
            async with asyncio.timeout(30):
                await running.shop.cancelled.wait()
        await running.works()


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_client_that_goes_away_ends_its_handler(transport: str) -> None:
    """Without a word: its process is gone."""
    request = pb.GetRequest(id="slow")
    async with service() as running:
        if transport == "grpc":
            client = GrpcClient(running.grpc_address)
            call = asyncio.create_task(client.unary(GET, request.SerializeToString()))
            await running.shop.entered.wait()
            await client.aclose()
            await asyncio.gather(call, return_exceptions=True)
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
            writer.write(b"GET /v1/items/slow HTTP/1.1\r\nhost: a\r\n\r\n")
            await running.shop.entered.wait()
            writer.transport.abort()
        async with asyncio.timeout(30):
            await running.shop.cancelled.wait()
        await running.works()


@pytest.mark.usefixtures("engine")
async def test_a_registry_that_is_empty_or_holds_nonsense_is_named_and_mends() -> None:
    """Real etcd: nobody there, then values that are no instances, then a real one among them."""
    async with service() as running, etcd_server() as server:
        options = EtcdOptions((server.endpoint,))
        async with (
            EtcdRegistry(options) as registry,
            EtcdClient(options) as etcd,
            GrpcClient("discovery:///shop", discovery=registry) as client,
        ):
            with pytest.raises(Error) as caught:
                await client.unary(GET, b"", timeout=30)
            assert (caught.value.code, caught.value.reason) == (503, "no_available_node")
            assert "no instance of shop is registered" in caught.value.message
            for number, value in enumerate(("", "{", "[]", "null", '{"id": 1}', "\x00")):
                await etcd.put(f"/microservices/shop/bad-{number}", value)
            wrong = ServiceInstance("away", "shop", endpoints=("grpc://no port", "tcp://h:1"))
            await registry.register(wrong)
            with pytest.raises(Error, match="no instance of shop"):
                await client.unary(GET, b"", timeout=30)
            endpoint = running.grpc.endpoint or ""
            await registry.register(ServiceInstance("1", "shop", endpoints=(endpoint,)))
            request = pb.GetRequest(id="7").SerializeToString()
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert pb.Item.FromString(await client.unary(GET, request)).id == "7"
                        break
                    except Error:
                        await asyncio.sleep(0.05)


def _pem(leaf: trustme.LeafCert) -> tuple[bytes, bytes]:
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return chain, leaf.private_key_pem.bytes()


def _expired(ca: trustme.CA) -> tuple[bytes, bytes]:
    now = datetime.datetime.now(datetime.UTC)
    since, until = now - datetime.timedelta(days=9), now - datetime.timedelta(days=1)
    return _pem(ca.issue_cert("127.0.0.1", not_before=since, not_after=until))


@pytest.mark.parametrize("engine", ["grpcio", "lean"])
async def test_an_expired_certificate_of_a_server_is_refused_by_clients(engine: Any) -> None:
    """Nothing is sent to it; the error names what is wrong, where the engine knows."""
    ca = trustme.CA()
    trust = ClientTls(ca=ca.cert_pem.bytes())
    async with service(tls=ServerTls(*_expired(ca))) as running:
        async with (
            GrpcClient(running.grpc_address, tls=trust, engine=engine, timeout=5) as client,
            HttpClient(running.http_address, tls=trust, timeout=5) as http,
        ):
            with pytest.raises(Error) as caught:
                await client.unary(GET, b"")
            assert caught.value.code == 503
            with pytest.raises(Error, match="certificate has expired") as refused:
                await http.request("GET", "/v1/names")
            assert refused.value.code == 503
        assert not running.shop.asked


@pytest.mark.parametrize("engine", ["grpcio", "lean"])
async def test_both_sides_show_certificates_and_an_expired_one_opens_nothing(engine: Any) -> None:
    """mTLS on both transports."""
    ca = trustme.CA()
    authority = ca.cert_pem.bytes()
    tls = ServerTls(*_pem(ca.issue_cert("127.0.0.1")), client_ca=authority)
    request = pb.GetRequest(id="7")
    shown = {
        "good": ClientTls(authority, *_pem(ca.issue_cert("client"))),
        "expired": ClientTls(authority, *_expired(ca)),
        "none": ClientTls(authority),
        "stranger": ClientTls(authority, *_pem(trustme.CA().issue_cert("client"))),
    }
    async with service(tls=tls) as running:
        for name, identity in shown.items():
            async with (
                GrpcClient(running.grpc_address, tls=identity, engine=engine, timeout=5) as client,
                HttpClient(running.http_address, tls=identity, timeout=5) as http,
            ):
                if name == "good":
                    await client.unary(GET, request.SerializeToString())
                    assert (await http.invoke(METHODS["Get"], request)).id == "7"
                    continue
                for call in (
                    client.unary(GET, request.SerializeToString()),
                    http.invoke(METHODS["Get"], request),
                ):
                    with pytest.raises(Error) as caught:
                        await call
                    assert caught.value.code == 503, name
        assert len(running.shop.asked) == 2


@pytest.mark.usefixtures("engine")
async def test_random_bytes_on_the_grpc_port_end_by_themselves() -> None:
    async with service() as running:
        host, _, port = running.grpc_address.rpartition(":")
        for beginning in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            for _ in range(5):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(beginning + os.urandom(300))
                writer.write_eof()
                async with asyncio.timeout(30):
                    try:
                        while await reader.read(65_536):
                            pass
                    except ConnectionError:
                        pass  # cut, which is an end as well
                writer.transport.abort()
        await running.works()
