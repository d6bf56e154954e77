"""kratos-wire §22, row by row, over the wire: the habits of Python that a peer would notice.

A row has its number in the name of its test. What a row only touches is looked at closely in the
other files of this folder.
"""

import asyncio
import os
import re
import signal
import socket
import struct
import urllib.parse
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.trans.v1 import trans_pb2
from kit import App
from kit.errors import BadRequest, Error, Forbidden
from kit.etcd import EtcdClient, EtcdOptions
from kit.middleware import metadata
from kit.registry import ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.registry.memory import MemoryRegistry
from kit.testing.etcd import etcd_server
from kit.transport.grpc import ClientTls, GrpcClient, GrpcServer, ServerTls
from kit.transport.http import HttpClient, HttpServer
from kit.transport.http.client_streams import Socket, events
from kit.transport.http.context import HttpContext
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http.shop import SERVICE, Shop, shop_side

IN = "/api.trans.v1.Trans/TransIn"
METHODS = SERVICE.methods_by_name


async def grpc_failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("/pkg.Svc/M", "unknown service pkg.Svc"),
        ("/api.trans.v1.Trans/M", "unknown method M for service api.trans.v1.Trans"),
        ("/api.trans.v1.Trans/TransOut", "method TransOut not implemented"),
        ("/nonsense", 'malformed method name: "/nonsense"'),
    ],
)
async def test_row_1_what_is_not_there_is_unimplemented_in_gos_words(
    serve: Any, method: str, text: str
) -> None:
    error = await grpc_failure((await serve()).unary_unary(method)(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, text)


async def test_row_2_a_request_that_does_not_decode_is_internal(serve: Any) -> None:
    error = await grpc_failure((await serve()).unary_unary(IN)(b"\xff"))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert (error.details() or "").startswith("grpc: error unmarshalling request:")


async def test_row_3_a_plain_error_is_unknown_with_its_own_text(serve: Any) -> None:
    async def fail(_request: Any, _context: Any) -> Any:
        raise LookupError("nobody is called that")

    error = await grpc_failure((await serve(fail)).unary_unary(IN)(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "nobody is called that")


async def test_row_4_a_compressed_request_is_read() -> None:
    """Go refuses it; nobody depends on that."""

    async def size(request: bytes, _call: Any) -> bytes:
        return str(len(request)).encode()

    server = GrpcServer(address="127.0.0.1:0")
    server.register_unary("/s.S/M", size)
    async with _served(server) as port:
        gzip = grpc.Compression.Gzip
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", compression=gzip) as channel:
            assert await channel.unary_unary("/s.S/M")(b"a" * 10_000) == b"10000"


async def test_row_5_the_servers_limit_is_seen_and_a_late_success_is_sent(serve: Any) -> None:
    left: list[float] = []

    async def late(_request: Any, context: Any) -> trans_pb2.Response:
        left.append(context.time_remaining())
        while context.time_remaining() > 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        return trans_pb2.Response()

    channel = await serve(late, GrpcServer(address="127.0.0.1:0", timeout=1.0))
    assert await channel.unary_unary(IN)(b"", timeout=30) == b""
    assert 0 < left[0] <= 1.0


async def test_row_6_reply_headers_are_initial_metadata_also_of_a_failure(serve: Any) -> None:
    async def fail(_request: Any, context: Any) -> Any:
        context.info.reply_headers.set("x-told", "yes")
        raise Forbidden("NO", "no")

    error = await grpc_failure((await serve(fail)).unary_unary(IN)(b""))
    assert ("x-told", "yes") in [tuple(pair) for pair in error.initial_metadata()]


async def test_row_7_a_health_watch_flips_before_the_server_closes() -> None:
    server = GrpcServer(address="127.0.0.1:0")
    async with (
        _served(server) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(server.stop(10))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping


@pytest.mark.parametrize("kind", ["grpc", "http"])
@pytest.mark.parametrize("host", ["0.0.0.0", "", "[::]"])
async def test_row_8_any_wildcard_takes_both_families_and_prints_gos_form(
    capsys: pytest.CaptureFixture[str], kind: str, host: str
) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6, where Go prints 0.0.0.0 as well")
    make = GrpcServer if kind == "grpc" else HttpServer
    async with _served(make(address=f"{host}:0")) as port:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as dialled:
                dialled.connect((address, port))
        word = {"grpc": "gRPC", "http": "HTTP"}[kind]
        line, told = f"INFO msg=[{word}] server listening on: [::]:{port}\n", ""
        async with asyncio.timeout(10):
            while line not in (told := told + capsys.readouterr().err):
                await asyncio.sleep(0.01)


async def test_row_9_answers_have_a_date_and_no_server_and_a_length() -> None:
    async with shop_side() as side:
        head, _ = await _raw(side.port, "GET /v1/names HTTP/1.1")
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
    assert b"date" in names
    assert b"content-length" in names
    assert not names & {b"server", b"transfer-encoding"}


@pytest.mark.parametrize("line", ["GET /nowhere HTTP/1.1", "PUT /v1/names HTTP/1.1"])
async def test_row_10_an_unknown_path_and_a_wrong_verb_are_404_in_text(line: str) -> None:
    async with shop_side() as side:
        head, body = await _raw(side.port, line)
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body == b"404 page not found\n"
    assert b"content-type: text/plain; charset=utf-8" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    assert b"allow:" not in head.lower()


@pytest.mark.parametrize(
    ("path", "clean"), [("/v1/names/", "/v1/names"), ("//v1/./x/../names?a=1", "/v1/names?a=1")]
)
async def test_row_11_slashes_and_unclean_paths_are_301(path: str, clean: str) -> None:
    async with shop_side() as side:
        head, _ = await _raw(side.port, f"GET {path} HTTP/1.1")
    assert head.startswith(b"HTTP/1.1 301 ")
    assert f"location: {clean}\r\n".encode() in head.lower()


async def test_row_12_a_body_without_a_content_type_is_400_codec() -> None:
    """Also when it is empty."""
    async with shop_side() as side:
        for body in (b"{}", b""):
            answer = await side.ask("POST", "/v1/items", body)
            assert (answer.status, answer.json["reason"]) == (400, "CODEC")
            assert answer.json["message"].startswith("unregister Content-Type:")


async def test_row_13_json_is_protobufs_with_every_field() -> None:
    """64-bit numbers are texts, defaults and unset messages are there, unset choices are not."""
    async with shop_side() as side:
        sent = '{"anInt64": 7, "at": "2026-01-02T03:04:05.006Z", "during": "1.5s"}'
        told = (await side.json("POST", "/v1/echo", sent)).json
    assert told["anInt64"] == "7"
    assert (told["anInt32"], told["aBool"], told["aString"], told["numbers"]) == (0, False, "", [])
    assert told["nested"] is None
    assert told["at"] == "2026-01-02T03:04:05.006Z"
    assert told["during"] == "1.500s"
    assert not {"name", "number", "chosen", "maybe"} & set(told)


async def test_row_14_enums_are_read_by_name_or_number_and_unknown_fields_skipped() -> None:
    async with shop_side() as side:
        for color in ('"GREEN"', "2"):
            answer = await side.json("POST", "/v1/items", f'{{"color": {color}, "later": [1]}}')
            assert answer.json["color"] == "GREEN"
        answer = await side.json("POST", "/v1/items", '{"color": "MAUVE"}')
        assert (answer.status, answer.json["reason"]) == (400, "CODEC")


async def test_rows_15_and_16_the_record_has_gos_bytes_and_comes_back_when_it_is_gone() -> None:
    """``<``, ``>``, ``&`` escaped, other text as it is; a deleted key is put again."""
    instance = ServiceInstance("1", "trans", "<v&1>", {"wo": "\u00fcber"}, ("grpc://h:1",))
    value = (
        rb'{"id":"1","name":"trans","version":"\u003cv\u00261\u003e",'
        b'"metadata":{"wo":"\xc3\xbcber"},"endpoints":["grpc://h:1"]}'
    )
    async with etcd_server() as server:
        options = EtcdOptions((server.endpoint,))
        async with EtcdRegistry(options) as registry, EtcdClient(options) as client:
            await registry.register(instance)
            found = await client.get("/microservices/trans/1")
            assert found is not None
            assert found.value == value
            await client.delete("/microservices/trans/1")
            async with asyncio.timeout(30):
                while (again := await client.get("/microservices/trans/1")) is None:
                    await asyncio.sleep(0.05)
            assert again.value == value


async def test_row_17_a_refused_registration_ends_the_start_and_leaves_nothing_open() -> None:
    class Refusing(MemoryRegistry):
        async def register(self, instance: ServiceInstance) -> None:
            raise BadRequest("REGISTRY", "no such name")

    server = GrpcServer(address="127.0.0.1:0")
    with pytest.raises(BadRequest, match="no such name"):
        await App(name="x", servers=[server], registrar=Refusing(), signals=()).run()
    port = int((server.endpoint or "").rpartition(":")[2])
    with socket.socket() as dialled, pytest.raises(ConnectionRefusedError):
        dialled.connect(("127.0.0.1", port))


async def test_row_18_a_server_that_fails_takes_the_announcement_back() -> None:
    registry = MemoryRegistry()

    class Failing:
        endpoint = "tcp://h:1"

        async def listen(self) -> None:
            pass

        async def serve(self) -> None:
            async with asyncio.timeout(10):
                while not await registry.get_service("x"):
                    await asyncio.sleep(0.01)
            raise RuntimeError("the queue is gone")

        async def stop(self, grace: float | None = None) -> None:
            pass

    with pytest.raises(RuntimeError, match="the queue is gone"):
        await App(name="x", servers=[Failing()], registrar=registry, signals=()).run()
    assert await registry.get_service("x") == []


@pytest.mark.parametrize("name", ["a/b", "a?b=1#c", "%2F", "ü b"])
async def test_row_19_a_client_escapes_what_it_puts_into_a_path(name: str) -> None:
    async with shop_side() as side, HttpClient(side.url) as client:
        item = await client.invoke(METHODS["Get"], pb.GetRequest(id=name))
    assert item.id == name


async def test_row_20_every_value_of_a_key_travels_on_grpc(serve: Any) -> None:
    got: list[str] = []

    async def look(_request: Any, context: Any) -> trans_pb2.Response:
        got.extend(context.info.request_headers.values("x-md-who"))
        return trans_pb2.Response()

    server = GrpcServer(address="127.0.0.1:0", middleware=[metadata.server()])
    await serve(look, server)
    address = (server.endpoint or "").removeprefix("grpc://")
    async with GrpcClient(address) as client:
        await client.unary(IN, b"", metadata=[("x-md-who", "a"), ("x-md-who", "b")])
    assert got == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
async def test_row_21_each_signal_stops_and_a_second_one_changes_nothing(
    number: signal.Signals,
) -> None:
    stopped: list[str] = []

    async def kill() -> None:
        os.kill(os.getpid(), number)

    async def again() -> None:
        os.kill(os.getpid(), number)
        await asyncio.sleep(0)
        stopped.append("once")

    await App(after_start=[kill], before_stop=[again]).run()
    assert stopped == ["once"]


@pytest.mark.parametrize("path", ["/debug/pprof/", "/debug/vars", "/metrics", "/docs"])
async def test_row_22_nothing_is_served_that_nobody_registered(path: str) -> None:
    async with shop_side() as side:
        assert (await side.ask("GET", path)).status == 404


async def test_row_23_the_error_of_a_websocket_is_read_out_of_gos_text() -> None:
    async with (
        shop_side() as side,
        HttpClient(side.url) as client,
        Socket(client, METHODS["Chat"]) as chat,
    ):
        await chat.write(pb.Item(id="bad", shelf="s"))
        with pytest.raises(Error) as caught:
            await chat.read()
    assert (caught.value.code, caught.value.reason) == (403, "BAD_WORD")


async def test_row_24_a_code_that_is_no_status_is_500_and_kept_in_the_body() -> None:
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/items/business")
    assert (answer.status, answer.json["code"], answer.json["reason"]) == (500, 10001, "BUSINESS")


async def test_row_25_the_clients_limit_does_not_end_a_stream_of_events() -> None:
    """The stream stands still for longer than the limit that calls have."""

    class Slow(Shop):
        async def Watch(self, request: Any, context: HttpContext) -> AsyncIterator[Any]:  # noqa: N802
            yield pb.Item(id="1")
            await asyncio.sleep(0.3)
            yield pb.Item(id="2")

    server = HttpServer(address="127.0.0.1:0")
    server.add_service(SERVICE, Slow())
    async with _served(server) as port, HttpClient(f"127.0.0.1:{port}", timeout=0.15) as client:
        got = [item.id async for item in events(client, METHODS["Watch"], pb.ListRequest())]
    assert got == ["1", "2"]


def test_row_26_two_processes_of_a_host_have_different_ids() -> None:
    first, second = App(), App()
    assert first.id != second.id
    assert all(app.id.startswith(f"{socket.gethostname()}-") for app in (first, second))
    assert App(id="host-1").id == "host-1"


async def test_row_27_numbers_are_equal_as_json_and_floats_are_the_shortest() -> None:
    async with shop_side() as side:
        sent = '{"aDouble": 1e21, "aFloat": 0.1}'
        told = (await side.json("POST", "/v1/echo", sent)).json
        single = struct.unpack("f", struct.pack("f", 0.1))[0]
    assert told["aDouble"] == 1e21
    assert told["aFloat"] == 0.1 != single


async def test_row_28_a_tls_endpoint_is_grpcs_or_in_the_old_form_on_request() -> None:
    """Both are found by a client with TLS, neither by one without."""
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1", "trans")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    for old in (False, True):
        tls = ServerTls(chain, leaf.private_key_pem.bytes(), is_secure_query=old)
        server = GrpcServer(address="127.0.0.1:0", tls=tls)
        http = HttpServer(address="127.0.0.1:0", tls=tls)
        async with _served(server) as port, _served(http) as second:
            assert [server.endpoint, http.endpoint] == (
                [
                    f"grpc://127.0.0.1:{port}?isSecure=true",
                    f"http://127.0.0.1:{second}?isSecure=true",
                ]
                if old
                else [f"grpcs://127.0.0.1:{port}", f"https://127.0.0.1:{second}"]
            )
            registry = MemoryRegistry()
            endpoints = (server.endpoint or "",)
            await registry.register(ServiceInstance("1", "trans", endpoints=endpoints))
            trust = ClientTls(ca=ca.cert_pem.bytes())
            async with GrpcClient("discovery:///trans", discovery=registry, tls=trust) as client:
                check = "/grpc.health.v1.Health/Check"
                assert await client.unary(check, b"", timeout=10) == b"\x08\x01"
            async with GrpcClient("discovery:///trans", discovery=registry) as plain:
                with pytest.raises(Error) as caught:
                    await plain.unary(check, b"", timeout=5)
                assert caught.value.reason == "no_available_node"


@asynccontextmanager
async def _served(server: GrpcServer | HttpServer) -> AsyncIterator[int]:
    """A running server; gives its port."""
    await server.listen()
    serving = asyncio.create_task(server.serve())
    port = urllib.parse.urlsplit(server.endpoint or "").port
    assert port is not None
    try:
        yield port
    finally:
        await server.stop(1)
        await serving


async def _raw(port: int, line: str) -> tuple[bytes, bytes]:
    """Head and body of one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\r\nhost: a\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1]) if length else 0)
    writer.close()
    return head, body


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


def _rows() -> set[int]:
    """The rows that have a test."""
    names = filter(
        None, (re.match(r"test_rows?_(\d+)_(?:and_(\d+)_)?", name) for name in globals())
    )
    return {int(number) for found in names for number in found.groups() if number}


def test_every_row_has_a_test() -> None:
    assert _rows() == set(range(1, 29))
