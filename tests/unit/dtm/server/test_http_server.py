"""The HTTP server against clients that are slow, loud, many or gone, over real sockets."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from kit.dtm.server import http_app
from kit.dtm.server.http_app import AsgiApp, Receive, Scope, Send
from kit.dtm.server.http_server import HttpLimits, HttpServer
from kit.transport.host import ListenAddress
from tests.unit.dtm.server.http_side import Side, http_side, msg

MIB = 1 << 20
PING = b"GET /api/ping HTTP/1.1\r\nhost: x\r\n\r\n"
QUICK = HttpLimits(head_s=0.2, body_s=0.3, write_s=0.3, keep_alive_s=1)


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    async with http_side() as made:
        yield made


async def answer_of(side: Side, *parts: bytes, within: float = 10) -> bytes:
    """All that comes back for ``parts`` until the server closes."""
    reader, writer = await side.connect()
    async with asyncio.timeout(within):
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b""


def post(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: x", *headers, "", ""]).encode()


async def test_an_address_that_is_taken_is_an_error_that_names_it() -> None:
    """At listen, before anything is announced."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = HttpServer(nothing, address=address)
        with pytest.raises(OSError, match=f"cannot listen on {address}: Address already in use"):
            await server.listen()
        assert server.endpoint is None
    with pytest.raises(ValueError, match="is not host:port"):
        HttpServer(nothing, address="36789")


async def test_a_wildcard_takes_both_families() -> None:
    """As dtm listens: one socket for IPv4 and IPv6, where the kernel has it."""
    server = HttpServer(mounted("any"), address=":0")
    await server.listen()
    assert server.endpoint, "it listens"
    serving = asyncio.create_task(server.serve())
    port = int(server.endpoint.rpartition(":")[2])
    hosts = ["127.0.0.1", "::1"] if ":" in ListenAddress("", 0).resolve() else ["127.0.0.1"]
    for host in hosts:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(PING)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    await server.stop(5)
    await serving


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody asks")


async def test_a_server_that_never_served_can_be_stopped() -> None:
    """Another server of the application failed to listen."""
    server = HttpServer(nothing, address="127.0.0.1:0")
    await server.listen()
    assert server.endpoint, "it listens"
    await server.stop(1)
    await server.serve()
    with socket.create_server(("127.0.0.1", int(server.endpoint.rpartition(":")[2]))):
        pass


async def test_signals_are_left_to_the_application() -> None:
    """uvicorn would take SIGINT and SIGTERM for itself."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    async with http_side() as side:
        assert (await side.ask("GET", "/api/ping")).status == 200
        assert [signal.getsignal(number) for number in numbers] == before


async def test_requests_of_a_connection_are_answered_in_order(side: Side) -> None:
    """Keep-alive and pipelining; the Date header is there, the server's name is not."""
    last = b"GET /api/dtmsvr/version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    text = await answer_of(side, PING + PING + last)
    assert text.count(b"HTTP/1.1 200 OK") == 3
    assert text.endswith(b"}")
    assert b"version" in text.rpartition(b"pong")[2]
    assert b"date: " in text
    assert b"uvicorn" not in text


async def test_replies_do_not_wait_for_acknowledgements(side: Side) -> None:
    """A reply is two writes: with Nagle's algorithm the second one would wait for 40 ms."""
    reader, writer = await side.connect()
    writer.write(PING)
    await reader.readline()
    [connection] = side.server._state.open
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_body_of_the_limit_is_taken_and_one_byte_more_refused(side: Side) -> None:
    """413 with a JSON message that the client can read, and the connection is closed."""
    body = json.dumps(msg(custom_data="")).encode()
    full = body[:-1] + b" " * (4 * MIB - len(body)) + b"}"
    assert len(full) == 4 * MIB
    assert (await side.post("prepare", full)).status == 200
    answer = await side.post("prepare", b" " + full)
    assert answer.status == 413
    assert answer.json == {"message": "the body is too large; at most 4194304 bytes are taken"}
    assert answer.headers["Connection"] == "close"


async def test_a_body_in_chunks_is_cut_off_at_the_limit(side: Side) -> None:
    """No length is announced, so what arrives is counted."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(16):
            yield b" " * MIB

    url = f"{side.url}/api/dtmsvr/submit"
    async with side.session.post(url, data=endless()) as answer:
        assert answer.status == 413
        assert "too large" in (await answer.json())["message"]


async def test_a_large_body_is_refused_before_it_is_sent(side: Side) -> None:
    """A client that asks with Expect: 100-continue need not send it at all."""
    head = post("/api/dtmsvr/submit", "content-length: 99999999", "expect: 100-continue")
    text = await answer_of(side, head)
    assert text.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in text


async def test_bodies_of_all_clients_together_have_a_limit(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 when more would be held; what was held is given back."""
    monkeypatch.setattr(http_app, "MAX_BUFFERED_BYTES", 3 * MIB)
    _, writer = await side.connect()
    writer.write(post("/api/dtmsvr/submit", f"content-length: {4 * MIB}") + b" " * 2 * MIB)
    await writer.drain()
    await asyncio.sleep(1)
    answer = await side.post("submit", b" " * 2 * MIB)
    assert answer.status == 503
    assert "busy" in answer.json["message"]
    writer.close()
    async with asyncio.timeout(30):
        while (await side.post("submit", b" " * 2 * MIB)).status != 400:
            await asyncio.sleep(0.02)


async def test_more_requests_at_once_than_the_limit_are_503_and_ping_still_answers(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator under load stays alive for its probes."""
    monkeypatch.setattr(http_app, "MAX_REQUESTS", 2)
    side.branches.gate.clear()
    waiting = [
        asyncio.create_task(side.post("submit", msg(f"g{number}", wait_result=True)))
        for number in range(2)
    ]
    async with asyncio.timeout(5):
        while len(side.branches.calls) < 2:
            await asyncio.sleep(0.005)
    refused = await side.get("version")
    assert (refused.status, list(refused.json)) == (503, ["message"])
    assert (await side.ask("GET", "/api/ping")).status == 200
    assert (await side.ask("GET", "/api/metrics")).status == 200
    side.branches.gate.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
    assert (await side.get("version")).status == 200


async def test_more_connections_than_the_limit_are_refused_until_one_is_closed() -> None:
    """503, and those that are open are not disturbed."""
    async with http_side(limits=HttpLimits(connections=3)) as side:
        first, *_ = [await side.connect() for _ in range(3)]
        await asyncio.sleep(0.05)
        text = await answer_of(side, b"")
        assert text.startswith(b"HTTP/1.1 503 ")
        assert b'{"message":"the coordinator is busy: 3 connections are open"}' in text
        reader, writer = first
        writer.write(PING)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        async with asyncio.timeout(5):
            while not (
                await answer_of(side, PING.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            ).startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"\r\n",
        b"GET /api/ping HT",
        b"GET /api/ping HTTP/1.1\r\nhost: x\r\nx-slow: ",
        post("/api/dtmsvr/submit", "content-length: 10") + b"{",
        post("/api/dtmsvr/submit", "transfer-encoding: chunked") + b"1\r\n{\r\n",
        PING,
        PING + b"GET /api/pi",
    ],
)
async def test_a_client_that_does_not_go_on_is_hung_up_on(begun: bytes) -> None:
    """Slow loris: neither head, nor body, nor an idle connection lasts for ever."""
    async with http_side(limits=QUICK) as side:
        answer = await answer_of(side, begun, within=5)
        assert answer.count(b"HTTP/1.1") == begun.startswith(PING)


@pytest.mark.parametrize("drop", [b"x", b"\r\n"])
async def test_a_client_that_sends_a_byte_now_and_then_is_hung_up_on(drop: bytes) -> None:
    """The deadline is for the whole head; bytes in between do not extend it."""
    async with http_side(limits=QUICK) as side:
        reader, writer = await side.connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        writer.write(b"GET /api/ping?" if drop == b"x" else b"")
        async with asyncio.timeout(5):
            while not reader.at_eof() and not writer.transport.is_closing():
                writer.write(drop)
                await asyncio.sleep(0.03)
        assert loop.time() - began > 0.1


async def test_a_request_that_is_answered_for_long_is_not_hung_up_on() -> None:
    """Deadlines are for clients; one that waits for a result may wait."""
    async with http_side(limits=QUICK) as side:
        side.branches.gate.clear()
        waiting = asyncio.create_task(side.post("submit", msg(wait_result=True)))
        await asyncio.sleep(1.5)
        side.branches.gate.set()
        assert (await waiting).status == 200


async def test_a_client_that_does_not_read_is_hung_up_on() -> None:
    """What it was sent is not kept for ever."""
    async with http_side(limits=HttpLimits(write_s=0.3)) as side:
        for number in range(200):
            await side.post("prepare", msg(f"g{number}", custom_data='{"x":"%s"}' % ("y" * 60_000)))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", side.port))
        with sock:
            ask = b"GET /api/dtmsvr/all?limit=200 HTTP/1.1\r\nhost: x\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(sock, ask)
            state = side.server._state
            async with asyncio.timeout(30):
                while len(state.connections) < 2:
                    await asyncio.sleep(0.01)
                while len(state.connections) > 1:
                    await asyncio.sleep(0.02)


async def test_a_head_without_end_is_cut_off(side: Side) -> None:
    """431; at no time is more of it kept than the limit and one read."""
    junk = b"x-junk: " + b"y" * 8_000 + b"\r\n"
    text = await answer_of(side, b"GET / HTTP/1.1\r\n", *[junk] * 200)
    assert text == b"" or text.startswith(b"HTTP/1.1 431 ")
    text = await answer_of(side, b"GET /" + b"a" * 70_000)
    assert text.startswith(b"HTTP/1.1 431 ")


async def test_trailers_without_end_are_cut_off(side: Side) -> None:
    """Behind a chunked body come headers again, and they have the same limit."""
    head = post("/api/dtmsvr/submit", "transfer-encoding: chunked")
    junk = b"x-junk: " + b"y" * 8_000 + b"\r\n"
    await answer_of(side, head, b"2\r\n{}\r\n0\r\n", *[junk] * 200, within=5)
    assert (await side.ask("GET", "/api/ping")).status == 200


async def test_a_body_in_tiny_chunks_is_taken(side: Side) -> None:
    """It is odd, and within the rules."""
    body = json.dumps(msg("tiny")).encode().ljust(30_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = post("/api/dtmsvr/prepare", "transfer-encoding: chunked", "connection: close")
    assert (await answer_of(side, head + chunks)).startswith(b"HTTP/1.1 200 ")


async def test_a_flood_of_pipelined_requests_is_cut_off(side: Side) -> None:
    """Those behind a request that is answered wait in a queue with a limit."""
    side.branches.gate.clear()
    body = json.dumps(msg(wait_result=True)).encode()
    slow = post("/api/dtmsvr/submit", f"content-length: {len(body)}") + body
    assert await answer_of(side, slow + PING * 1_000, within=5) == b""


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT db.test:5432 HTTP/1.1\r\nhost: x\r\n\r\n",
        post("/", "content-length: -1"),
        post("/", "content-length: 1", "content-length: 2"),
        post("/", "content-length: 1", "transfer-encoding: chunked"),
        post("/api/dtmsvr/submit", "transfer-encoding: chunked") + b"zz\r\n",
    ],
)
async def test_what_is_no_request_is_refused_without_a_line_in_the_log(
    side: Side, text: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """A scanner does not fill the log."""
    capfd.readouterr()
    answer = await answer_of(side, text)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    [
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /api/ping HTTP/1.0\r\n\r\n",
        b"HEAD /api/ping HTTP/1.1\r\nconnection: close\r\n\r\n",
        b"GET http://x/api/ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /api/ping HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"GET /api/dtmsvr/topic/%00%zz%ff HTTP/1.1\r\nconnection: close\r\n\r\n",
        b"DELETE /api/dtmsvr/topic/%00 HTTP/1.1\r\nconnection: close\r\n\r\n",
    ],
)
async def test_odd_requests_are_answered(text: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever the answer is, it is one of a client's fault or of success."""
    async with http_side(limits=QUICK) as side:
        answer = await answer_of(side, text)
        assert answer.startswith(b"HTTP/1.1 ")
        assert int(answer.split()[1]) < 500
    assert "ERRO" not in capfd.readouterr().err


async def test_stopping_lets_requests_finish_and_takes_no_more(side: Side) -> None:
    """The one that is answered ends, idle connections are closed, the port is free."""
    side.branches.gate.clear()
    idle, _ = await side.connect()
    waiting = asyncio.create_task(side.post("submit", msg(wait_result=True)))
    async with asyncio.timeout(5):
        while not side.branches.calls:
            await asyncio.sleep(0.005)
        stopping = asyncio.create_task(side.server.stop(5))
        assert await idle.read() == b""
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", side.port)
        assert not stopping.done()
        side.branches.gate.set()
        answer = await waiting
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        await stopping


async def test_a_stop_whose_time_is_over_cuts_what_is_left(
    side: Side, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client sees a closed connection, the log one warning and no traceback."""
    side.branches.gate.clear()
    waiting = asyncio.create_task(side.post("submit", msg(wait_result=True)))
    async with asyncio.timeout(5):
        while not side.branches.calls:
            await asyncio.sleep(0.005)
        await side.server.stop(0.1)
        with pytest.raises(aiohttp.ClientError):
            await waiting
    error = capfd.readouterr().err
    assert "couldn't stop gracefully in time" in error
    assert "Traceback" not in error


def mounted(name: str) -> AsgiApp:
    """An application that tells who it is, where it was asked, and how long the body was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        if scope["path"].endswith("/broken"):
            raise RuntimeError("secret inner detail")
        text = f"{name} {scope['path']} {len(message['body'])}".encode()
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


async def test_mounted_applications_get_what_no_route_takes() -> None:
    """The longest prefix wins; a mount at / never takes what belongs to the API."""
    mounts = {"/": mounted("page"), "/api/dev": mounted("dev"), "/admin/": mounted("admin")}
    async with http_side(mounts=mounts) as side:
        for path, told in {
            "/": "page / 0",
            "/assets/a.js": "page /assets/a.js 0",
            "/admin": "admin /admin 0",
            "/admin/x": "admin /admin/x 0",
            "/administrator": "page /administrator 0",
            "/api/dev/clock": "dev /api/dev/clock 0",
        }.items():
            assert (await side.ask("GET", path)).text == told
        assert (await side.ask("POST", "/api/dev/clock", b"12345")).text == "dev /api/dev/clock 5"
        assert (await side.ask("GET", "/api/developer")).status == 404
        assert (await side.ask("GET", "/api/dtmsvr/nothing")).status == 404
        assert (await side.ask("GET", "/api/ping")).json == {"msg": "pong"}
        large = await side.ask("POST", "/admin/x", b" " * (4 * MIB + 1))
        assert large.status == 413
        broken = await side.ask("GET", "/admin/broken")
        assert broken.status == 500
        assert "secret" not in broken.text
