"""The lean server against peers that misbehave, by hand over real sockets."""

import asyncio
import contextlib
import gc
import resource
import socket
import ssl
import time

import pytest
import trustme

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import Keepalive, Limits, RpcFailed, ServerCall, ServerTls
from kit.transport.lean import Guard
from kit.transport.lean.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    ErrorCode,
    frame,
    reset,
    settings,
    unpack_u32,
    window_update,
)
from kit.transport.lean.headers import Decoder, literal
from kit.transport.lean.messages import pack_prefix
from tests.conformance.lean.engines_at_work import connected, echo, serving
from tests.conformance.lean.raw import REQUEST, Peer, call, dialled
from tests.interop.build import go_program

METHOD = "/s.S/M"
QUICK = Keepalive(interval=0.1, timeout=0.1)


async def status_of(peer: Peer) -> tuple[str, str]:
    """Status and message of the next answer that ends."""
    decoder = Decoder(16_384)
    while True:
        _, flags, _, block = await peer.until(HEADERS)
        fields = dict(decoder.decode(block).pairs)
        if flags & END_STREAM:
            return fields.get("grpc-status", ""), fields.get("grpc-message", "")


async def test_a_client_that_never_says_hello_is_closed() -> None:
    async with serving(echo, guard=Guard(handshake=0.2)) as (address, _):
        for start in (b"", PREFACE[:10], PREFACE):
            async with dialled(address, start) as peer:
                assert await peer.closed()


async def test_a_client_that_speaks_http1_is_told_and_closed() -> None:
    async with (
        serving(echo) as (address, _),
        dialled(address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n") as peer,
    ):
        code, text = await peer.farewell()
        assert code is ErrorCode.PROTOCOL_ERROR
        assert "not HTTP/2" in text
        assert await peer.closed()


async def test_a_client_whose_machine_is_gone_is_found_by_pings() -> None:
    """A half-open connection; its handler is cancelled."""
    cancelled = asyncio.Event()

    async def hang(_request: bytes, _call: ServerCall) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(hang, keepalive=QUICK) as (address, _), dialled(address) as peer:
        peer.writer.write(call(1))
        await asyncio.wait_for(cancelled.wait(), 5)
        assert await peer.closed()


async def test_pings_without_need_are_too_many() -> None:
    """As grpc's own servers say it; clients that know the word slow down."""
    async with serving(echo) as (address, _), dialled(address) as peer:
        for _ in range(5):
            peer.writer.write(frame(PING, 0, 0, bytes(8)))
        assert await peer.farewell() == (ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        assert await peer.closed()


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(settings({}) * 3000, id="SETTINGS"),
        pytest.param(frame(SETTINGS, ACK, 0) * 3000, id="ACKs"),
        pytest.param(
            frame(HEADERS, END_HEADERS, 1, REQUEST) + frame(DATA, 0, 1) * 3000, id="empty DATA"
        ),
        pytest.param(
            b"".join(call(n) + reset(n, ErrorCode.CANCEL) for n in range(1, 12_001, 2)),
            id="rapid reset",
        ),
        pytest.param(
            b"".join(
                frame(HEADERS, END_HEADERS, n, REQUEST + literal("grpc-timeout", "90m"))
                + frame(DATA, END_STREAM, n, bytes(5))
                + reset(n, ErrorCode.CANCEL)
                for n in range(1, 12_001, 2)
            ),
            id="rapid reset with a short deadline",
        ),
        pytest.param(
            frame(HEADERS, 0, 1, REQUEST) + frame(9, 0, 1, literal("x", "y" * 4_000)) * 17,
            id="CONTINUATION",
        ),
    ],
)
async def test_a_flood_ends_the_connection_and_nobody_elses(flood: bytes) -> None:
    async with (
        serving(echo) as (address, server),
        connected(address) as to,
        dialled(address) as peer,
    ):
        peer.writer.write(flood)
        try:
            assert (await peer.farewell())[0] is ErrorCode.ENHANCE_YOUR_CALM
        except ConnectionError:
            pass  # the rest of the flood was still under way, and overtook the farewell
        assert await peer.closed()
        assert (await to.unary(METHOD, b"others", (), None)).message == b"others"
        await server.stop(None)  # returns, so no handler was left behind


async def test_calls_taken_back_in_the_same_packet_leave_nothing_behind() -> None:
    """A task cancelled ahead of its first step has no finally of its own."""
    ran = 0

    async def count(request: bytes, _call: ServerCall) -> bytes:
        nonlocal ran
        ran += 1
        return request

    limits = Limits(concurrent_calls=3)
    async with serving(count, limits=limits) as (address, server), dialled(address) as peer:
        for stream_id in range(1, 41, 2):
            peer.writer.write(call(stream_id) + reset(stream_id, ErrorCode.CANCEL))
            await asyncio.sleep(0.005)
        peer.writer.write(call(41))
        assert (await status_of(peer))[0] == "0"
        await server.stop(None)
    assert ran == 1


async def test_a_request_that_does_not_grow_is_given_up() -> None:
    """The slow writer: it holds a stream and sends nothing."""
    guard, keepalive = Guard(stall=0.2), Keepalive(interval=0.1, timeout=5.0)
    async with (
        serving(echo, guard=guard, keepalive=keepalive) as (address, _),
        dialled(address) as peer,
    ):
        peer.writer.write(frame(HEADERS, END_HEADERS, 1, REQUEST))
        peer.writer.write(frame(DATA, 0, 1, pack_prefix(0, 100) + b"half"))
        answered = asyncio.create_task(status_of(peer))
        while not answered.done():
            peer.writer.write(frame(PING, ACK, 0, bytes(8)))  # it lives
            await asyncio.sleep(0.02)
        assert answered.result() == (str(int(GrpcCode.CANCELLED)), "grpc: no progress for too long")
        assert (await peer.until(RST_STREAM))[2] == 1


async def test_an_answer_that_is_not_taken_is_given_up() -> None:
    """The slow reader: it grants no window, so its answers wait; they wait in bounds."""
    guard, keepalive = Guard(stall=0.2), Keepalive(interval=0.1, timeout=5.0)
    limits = Limits(streams_per_connection=5)
    async with (
        serving(echo, guard=guard, keepalive=keepalive, limits=limits) as (address, server),
        dialled(address, PREFACE + settings({INITIAL_WINDOW_SIZE: 0})) as peer,
    ):
        for stream_id in range(1, 21, 2):
            peer.writer.write(call(stream_id, bytes(1_000)))
        refused = []
        for _ in range(5):
            _, _, stream_id, payload = await peer.until(RST_STREAM)
            refused.append((stream_id, ErrorCode(unpack_u32(payload)[0])))
        assert refused == [(n, ErrorCode.REFUSED_STREAM) for n in range(11, 21, 2)]
        async with asyncio.timeout(5):
            ended: set[int] = set()
            while len(ended) < 5:
                peer.writer.write(frame(PING, ACK, 0, bytes(8)))
                kind, flags, stream_id, _ = await peer.frame()
                if kind == HEADERS and flags & END_STREAM:
                    ended.add(stream_id)
        await server.stop(None)


async def test_a_client_that_does_not_read_its_socket_is_not_read_either() -> None:
    """What it asks for does not pile up here: its requests stay with it."""
    calls = 0

    async def large(_request: bytes, _call: ServerCall) -> bytes:
        nonlocal calls
        calls += 1
        return bytes(60_000)

    greedy = PREFACE + settings({INITIAL_WINDOW_SIZE: 2**31 - 1}) + frame(8, 0, 0, b"\x7f\0\0\0")
    async with (
        serving(large, keepalive=Keepalive(interval=0.3, timeout=0.3)) as (address, server),
        dialled(address, greedy) as peer,
    ):
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stream_id = 1
        while stream_id < 20_000 and peer.writer.transport.get_write_buffer_size() < 200_000:
            peer.writer.write(call(stream_id, bytes(500)))
            stream_id += 2
            if stream_id % 100 == 1:
                await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert calls < 2_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB
        async with asyncio.timeout(10):
            while server._connections:  # type: ignore[attr-defined]
                await asyncio.sleep(0.05)


async def test_metadata_over_the_limit_fails_the_call_and_not_the_connection() -> None:
    async with serving(echo) as (address, _), connected(address) as to:
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", tuple((f"x-{n}", "v" * 1_000) for n in range(20)), None)
        assert caught.value.status is GrpcCode.RESOURCE_EXHAUSTED
        assert (await to.unary(METHOD, b"after", (), None)).message == b"after"


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with serving(echo, limits=Limits(connections=2)) as (address, _):
        async with dialled(address) as one, dialled(address) as two, dialled(address) as three:
            for peer in (one, two):
                await peer.until(SETTINGS)
            assert await three.closed()
        async with asyncio.timeout(5):
            while True:
                async with connected(address) as to:
                    try:
                        await to.unary(METHOD, b"", (), None)
                        break
                    except RpcFailed:
                        await asyncio.sleep(0.05)  # the two are still being cleared away


async def test_an_oversized_message_is_refused_before_it_comes() -> None:
    async with serving(echo) as (address, _), dialled(address) as peer:
        peer.writer.write(frame(HEADERS, END_HEADERS, 1, REQUEST))
        peer.writer.write(frame(DATA, 0, 1, pack_prefix(0, 2**32 - 1)))
        status, text = await status_of(peer)
        assert status == str(int(GrpcCode.RESOURCE_EXHAUSTED))
        assert text == "grpc: received message larger than max (4294967295 vs. 4194304)"


@pytest.mark.parametrize(
    "body", [b"", pack_prefix(0, 1) + b"a" + pack_prefix(0, 1) + b"b", b"\0\0"]
)
async def test_a_unary_request_is_exactly_one_message(body: bytes) -> None:
    async with serving(echo) as (address, _), dialled(address) as peer:
        peer.writer.write(
            frame(HEADERS, END_HEADERS, 1, REQUEST) + frame(DATA, END_STREAM, 1, body)
        )
        assert (await status_of(peer))[0] == str(int(GrpcCode.INTERNAL))


async def test_a_request_may_end_with_trailers() -> None:
    async with serving(echo) as (address, _), dialled(address) as peer:
        peer.writer.write(frame(HEADERS, END_HEADERS, 1, REQUEST))
        peer.writer.write(frame(DATA, 0, 1, pack_prefix(0, 2) + b"hi"))
        peer.writer.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, literal("x-after", "1")))
        assert (await peer.until(DATA))[3] == pack_prefix(0, 2) + b"hi"


async def test_goodbye_is_said_twice_so_that_calls_on_their_way_are_not_lost() -> None:
    """RFC 9113 §6.8: first no new streams, then, when the client knows, which were the last."""
    async with serving(echo) as (address, server), dialled(address) as peer:
        peer.writer.write(call(1))
        await peer.until(DATA)
        stopping = asyncio.create_task(server.stop(None))
        assert unpack_u32((await peer.until(GOAWAY))[3])[0] == 2**31 - 1
        _, _, _, payload = await peer.until(PING)
        peer.writer.write(call(3, b"crossed it") + frame(PING, ACK, 0, payload))
        assert unpack_u32((await peer.until(GOAWAY))[3])[0] == 3
        assert (await peer.until(DATA))[3][5:] == b"crossed it"
        assert await peer.closed()
        await stopping


async def test_small_writes_do_not_wait_for_acknowledgements() -> None:
    """TCP_NODELAY on both sides: with grpc-go every other reply took 44 ms without it."""
    async with serving(echo) as (address, server), connected(address) as to:
        await to.unary(METHOD, b"", (), None)
        [accepted] = server._connections  # type: ignore[attr-defined]
        for end in (accepted, to._current):  # type: ignore[attr-defined]
            sock = end._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_handler_that_breaks_its_promise_still_ends_its_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Handlers raise RpcFailed and nothing else; a client must not wait for ever if one does."""

    async def broken(_request: bytes, _call: ServerCall) -> bytes:
        raise KeyError("oops")

    async with serving(broken) as (address, _), connected(address) as to:
        with pytest.raises(RpcFailed, match="the handler gave up"):
            await to.unary(METHOD, b"", (), None)
        gc.collect()
    assert "oops" in caplog.text


async def test_tls_without_h2_is_turned_away() -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1")
    identity = ServerTls(
        b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
    )
    context = ssl.create_default_context(cadata=ca.cert_pem.bytes().decode())
    async with serving(echo, tls=identity) as (address, _):
        host, _, port = address.rpartition(":")
        _, writer = streams = await asyncio.open_connection(host, int(port), ssl=context)
        writer.write(PREFACE + settings({}))
        assert await Peer(*streams).closed()
        writer.close()


async def test_a_handler_whose_write_was_cancelled_may_write_on_or_end() -> None:
    async def impatient(call: ServerCall) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call.write(bytes(2_000_000)), 0.05)
        if await call.read() == b"more":
            await call.write(b"more")

    async with serving(stream=impatient) as (address, _), connected(address) as to:
        for request, answers in ((b"more", [2_000_000, 4]), (b"", [2_000_000])):
            stream = to.stream(METHOD, (), time.monotonic() + 20)
            await stream.write(request)
            await stream.done_writing()
            await asyncio.sleep(0.2)  # nothing is read meanwhile: the window is full
            got = []
            while (message := await stream.read()) is not None:
                got.append(len(message))
            assert got == answers


async def test_an_answer_that_is_taken_slowly_is_not_given_up() -> None:
    """Several times as long as the limit, with a little progress in between."""
    guard, keepalive = Guard(stall=1.0), Keepalive(interval=0.05, timeout=20.0)
    async with (
        serving(echo, guard=guard, keepalive=keepalive) as (address, _),
        dialled(address, PREFACE + settings({INITIAL_WINDOW_SIZE: 0})) as peer,
    ):
        peer.writer.write(call(1, bytes(95)))
        got = b""
        async with asyncio.timeout(60):
            while len(got) < 100:
                peer.writer.write(window_update(1, 5) + frame(PING, ACK, 0, bytes(8)))
                got += (await peer.until(DATA))[3]
                await asyncio.sleep(0.33)
        assert got == pack_prefix(0, 95) + bytes(95)
        assert (await status_of(peer))[0] == "0"


async def test_a_client_whose_calls_all_come_too_late_keeps_its_connection() -> None:
    """A handler that hangs makes each call end at its deadline, on both sides at about once."""

    async def hang(_request: bytes, _call: ServerCall) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    guard = Guard(control_burst=50, control_rate=1.0, resets_burst=50, resets_rate=1.0)
    limits = Limits(streams_per_connection=100)
    async with (
        serving(hang, guard=guard, limits=limits) as (address, server),
        connected(address) as to,
    ):
        for _ in range(10):
            outcomes = await asyncio.gather(
                *(to.unary(METHOD, b"", (), time.monotonic() + 0.4) for _ in range(100)),
                return_exceptions=True,
            )
            late = [o for o in outcomes if isinstance(o, RpcFailed)]
            assert {o.status for o in late} == {GrpcCode.DEADLINE_EXCEEDED}, outcomes
        assert len(server._connections) == 1  # type: ignore[attr-defined]
        await server.stop(None)


async def test_a_stream_of_small_messages_that_is_given_up_costs_no_connection() -> None:
    """A megabyte of them is under way then."""

    async def pour(call: ServerCall) -> None:
        while True:
            await call.write(b"small")

    async with serving(stream=pour) as (address, server), connected(address) as to:
        for _ in range(2):
            stream = to.stream(METHOD, (), None)
            assert await stream.read() == b"small"
            stream.cancel()
        assert await to.stream(METHOD, (), None).read() == b"small"
        assert len(server._connections) == 1  # type: ignore[attr-defined]


async def test_h2spec_finds_nothing() -> None:
    """The conformance suite of HTTP/2 servers, github.com/summerwind/h2spec."""
    program = go_program("h2spec")
    async with serving(echo, guard=Guard()) as (address, _):
        host, _, port = address.rpartition(":")
        process = await asyncio.create_subprocess_exec(
            *(program, "--strict", "-h", host, "-p", port, "-o", "5"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert b" 0 failed" in out
