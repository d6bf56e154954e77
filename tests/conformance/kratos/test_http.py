"""The bytes of HTTP answers, one application with gRPC beside HTTP, and bad clients.

Spec: kratos-wire §7 to §9, §11.4, §22 rows 9 to 12 and 24.
"""

import asyncio
import os
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit import App
from kit.errors import Error
from kit.registry.memory import MemoryRegistry
from kit.transport import current_call
from kit.transport.grpc import GrpcServer
from kit.transport.http import HttpClient, HttpServer, Limits
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http.shop import SERVICE, Shop, noting, shop_side

METHODS = SERVICE.methods_by_name
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def exchange(port: int, *requests: bytes) -> list[tuple[bytes, bytes]]:
    """Head and body of each answer, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers: list[tuple[bytes, bytes]] = []
    for request in requests:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        found = LENGTH.search(head)
        body = await reader.readexactly(int(found[1]) if found else 0)
        answers.append((head, body))
    writer.close()
    return answers


def get(path: str, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in ("host: a", *lines))
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()


async def test_answers_have_gos_bytes() -> None:
    """404 with its text, 301 with its HTML, no Server header, a Date, no charset of JSON."""
    async with shop_side() as side:
        answers = await exchange(
            side.port,
            get("/nowhere"),
            get("/v1//names"),
            get("/v1/names/"),
            get("/v1/names", "accept: application/xml, */*"),
            get("/v1/items/none"),
        )
        missing, cleaned, slash, names, error = answers
        assert missing[0].startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert missing[1] == b"404 page not found\n"
        assert cleaned[0].startswith(b"HTTP/1.1 301 Moved Permanently\r\n")
        assert b"location: /v1/names\r\n" in cleaned[0]
        assert cleaned[1] == b""
        assert slash[1] == b'<a href="/v1/names">Moved Permanently</a>.\n\n'
        assert b"content-type: application/json\r\n" in names[0]
        assert error[1] == (
            b'{"code":404,"reason":"ITEM_NOT_FOUND","message":"no such item",'
            b'"metadata":{"id":"none"}}'
        )
        for head, _ in answers:
            assert b"\r\nserver:" not in head.lower()
            assert head.lower().count(b"\r\ndate: ") == 1


async def test_a_second_accept_line_counts_when_the_first_names_nothing() -> None:
    """Each line is one candidate."""
    async with shop_side() as side:
        (head, _), = await exchange(
            side.port, get("/v1/items/7", "accept: text/html, */*", "accept: application/yaml")
        )  # fmt: skip
        assert b"content-type: application/yaml\r\n" in head


@pytest.mark.parametrize("code", [-1, 0, 99, 100, 1000, 10001, 2**40])
async def test_a_code_that_is_no_status_is_500_and_stays_in_the_body(code: int) -> None:
    """Go drops the connection: spec §22 row 24. A code beyond 32 bits has no field."""

    class Odd(Shop):
        async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise Error(code, "ODD", "odd")

    server = HttpServer(address="127.0.0.1:0")
    server.add_service(SERVICE, Odd())
    async with served(server) as port:
        (head, body), = await exchange(port, get("/v1/items/1"))  # fmt: skip
        assert head.startswith(b"HTTP/1.1 500 ")
        assert b'"code":%d,' % (code if code < 2**31 else 500) in body


@pytest.mark.parametrize("code", [299, 418, 451, 499, 599, 600, 999])
async def test_unusual_codes_are_status_lines(code: int) -> None:
    """As Go writes them."""

    class Odd(Shop):
        async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
            raise Error(code, "ODD", "odd")

    server = HttpServer(address="127.0.0.1:0")
    server.add_service(SERVICE, Odd())
    async with served(server) as port:
        (head, body), = await exchange(port, get("/v1/items/1"))  # fmt: skip
        assert head.startswith(b"HTTP/1.1 %d" % code)
        assert b'"code":%d,' % code in body


@asynccontextmanager
async def served(server: HttpServer) -> AsyncIterator[int]:
    """A running server; gives its port."""
    await server.listen()
    serving = asyncio.create_task(server.serve())
    assert server.endpoint is not None
    try:
        yield int(server.endpoint.rpartition(":")[2])
    finally:
        await server.stop(1)
        await serving


class Trans(trans_pb2_grpc.TransServicer):
    async def TransIn(self, request: Any, context: Any) -> Any:  # noqa: N802
        return trans_pb2.Response()


@pytest.mark.usefixtures("engine")
async def test_one_application_serves_grpc_and_http_in_one_loop() -> None:
    """With one middleware, both announced in their order, both found again, both drained."""
    seen: list[str] = []
    registry = MemoryRegistry()
    http = HttpServer(address="127.0.0.1:0", middleware=[noting(seen)])
    http.add_service(SERVICE, Shop())
    rpc = GrpcServer(address="127.0.0.1:0", middleware=[noting(seen)])
    trans_pb2_grpc.add_TransServicer_to_server(Trans(), rpc.services)
    app = App(name="shop", servers=[http, rpc], registrar=registry, signals=())
    running = asyncio.create_task(app.run())
    async with asyncio.timeout(5):
        while not await registry.get_service("shop"):
            await asyncio.sleep(0.01)
    instance, = await registry.get_service("shop")  # fmt: skip
    assert [url.partition(":")[0] for url in instance.endpoints] == ["http", "grpc"]
    async with (
        HttpClient("discovery:///shop", discovery=registry) as client,
        grpc.aio.insecure_channel(instance.endpoints[1].removeprefix("grpc://")) as channel,
    ):
        assert (await client.invoke(METHODS["Get"], pb.GetRequest(id="1"))).id == "1"
        await trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
        app.stop()
        await asyncio.wait_for(running, 5)
    assert seen == ["http /tests.shop.v1.Shop/Get", "grpc /api.trans.v1.Trans/TransIn"]
    assert await registry.get_service("shop") == []


async def test_a_hundred_megabytes_are_refused_without_being_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In chunks, so that nothing is declared; memory does not grow with them."""
    monkeypatch.setattr("kit.transport.http.exchange.LINGER_S", 60.0)  # all are read
    async with shop_side(limits=Limits(body_s=60)) as side:
        tracemalloc.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(
            b"POST /v1/items HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20))
        try:
            for _ in range(100):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        head = await asyncio.wait_for(reader.read(4096), 60)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        writer.close()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert peak < 40 << 20
        assert (await side.ask("GET", "/v1/names")).status == 200


async def test_random_bytes_never_stop_the_server() -> None:
    """Prefixed with what leads deep into it; every connection ends by itself."""
    beginnings = (
        b"",
        b"GET /v1/names HTTP/1.1\r\n",
        b"POST /v1/items HTTP/1.1\r\ncontent-length: 20\r\n\r\n",
        get("/v1/sum", "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13",
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="),
    )  # fmt: skip
    async with shop_side(limits=Limits(head_s=0.3, body_s=0.3)) as side:
        for number in range(80):
            reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
            writer.write(beginnings[number % len(beginnings)])
            if number % len(beginnings) == 3:
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            writer.write(os.urandom(200))
            writer.write_eof()
            try:
                await asyncio.wait_for(reader.read(), 5)
            except ConnectionError:
                pass
            writer.close()
        assert (await side.ask("GET", "/v1/names")).status == 200


async def test_each_operation_may_have_its_own_limit_on_both_sides() -> None:
    """Of a method by its operation, of a route by its template; a call's own comes first."""
    seen: dict[str, float | None] = {}

    def setup(server: HttpServer) -> None:
        server.get("/slow/{name}", look)
        server.get("/quick", look)

    async def look(request: Any) -> dict[str, str]:
        call = current_call()
        assert call is not None
        seen[call.operation] = call.limit
        return {}

    get = "/tests.shop.v1.Shop/Get"
    limits = {"/slow/{name}": 7.0, "/tests.shop.v1.*": 0}
    async with shop_side(setup, timeouts=limits) as side:
        for path in ("/slow/a", "/quick"):
            assert (await side.ask("GET", path)).status == 200
        assert seen == {"/slow/{name}": 7.0, "/quick": 1.0}
        slow = pb.GetRequest(id="slow")
        async with HttpClient(side.url, timeout=30, timeouts={get: 0.05}) as client:
            with pytest.raises(Error, match=f"client timeout of 50ms for {get}"):
                await client.invoke(METHODS["Get"], slow)
            with pytest.raises(Error, match=f"client timeout of 20ms for {get}"):
                await client.invoke(METHODS["Get"], slow, timeout=0.02)
            assert (await client.invoke(METHODS["Names"], pb.ListRequest())).names == ["a", "b"]
