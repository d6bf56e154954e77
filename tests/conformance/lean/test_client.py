"""The lean client and what becomes of its connection."""

import asyncio
import ssl
import time
from pathlib import Path

import grpc.aio
import pytest
import trustme

from kit.errors.codes import GrpcCode
from kit.ports import free_port
from kit.transport.grpc.engine import (
    ClientTls,
    Keepalive,
    Limits,
    RpcFailed,
    ServerCall,
    ServerTls,
    UnaryRoute,
)
from kit.transport.lean import Guard, LeanServer
from kit.transport.lean.client import CONNECT_TIMEOUT_S, REFUSALS
from kit.transport.lean.frames import (
    ACK,
    END_HEADERS,
    HEADERS,
    MAX_CONCURRENT_STREAMS,
    PING,
    PREFACE,
    ErrorCode,
    frame,
    goaway,
    reset,
    settings,
)
from kit.transport.lean.headers import literal
from tests.conformance.lean.engines_at_work import connected, echo, serving
from tests.conformance.lean.raw import ANSWER, Peer, answering, reply

METHOD = "/s.S/M"


async def hello(peer: Peer, **values: int) -> None:
    await peer.reader.readexactly(len(PREFACE))
    peer.writer.write(settings({MAX_CONCURRENT_STREAMS: values.get("streams", 100)}))


async def turns(count: int) -> None:
    """So many turns of the loop: what needs no more has not waited for time or network."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lost_connection_is_made_again_by_itself() -> None:
    async with serving(echo, port=free_port()) as (address, _), connected(address) as to:
        assert (await to.unary(METHOD, b"1", (), None)).message == b"1"
        assert to.ready()
    port = int(address.rpartition(":")[2])
    async with connected(address) as to:
        with pytest.raises(RpcFailed, match="Connection refused") as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.unsent
        again = asyncio.ensure_future(to.unary(METHOD, b"", (), None))
        await turns(10)
        assert again.done(), "between attempts calls fail at once"
        with pytest.raises(RpcFailed) as caught:
            await again
        assert caught.value.unsent
        async with serving(echo, port=port):
            async with asyncio.timeout(5):
                while not to.ready():
                    await asyncio.sleep(0.01)
            assert (await to.unary(METHOD, b"2", (), None)).message == b"2"


async def test_a_call_whose_connection_breaks_is_unavailable_and_may_have_been_sent() -> None:
    async def cut(peer: Peer) -> None:
        await hello(peer)
        await peer.until(HEADERS)
        peer.writer.transport.abort()

    async with answering(cut) as address, connected(address) as to:
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.status is GrpcCode.UNAVAILABLE
        assert not caught.value.unsent


async def test_a_server_that_says_goodbye_ends_its_calls_and_gets_no_new_ones() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, _call: ServerCall) -> bytes:
        entered.set()
        await leave.wait()
        return request

    async with serving(wait, port=free_port()) as (address, server), connected(address) as to:
        call = asyncio.create_task(to.unary(METHOD, b"last", (), None))
        await entered.wait()
        stopping = asyncio.create_task(server.stop(None))
        async with asyncio.timeout(5):
            while to.ready():
                await asyncio.sleep(0.01)
        async with serving(echo, port=int(address.rpartition(":")[2])):
            async with asyncio.timeout(5):
                while not to.ready():
                    await asyncio.sleep(0.01)
            assert (await to.unary(METHOD, b"new", (), None)).message == b"new"
            assert not stopping.done()
            leave.set()
            assert (await call).message == b"last"
            await stopping


@pytest.mark.parametrize("refusal", ["goaway", "reset"])
async def test_a_call_that_the_peer_never_began_is_sent_again(refusal: str) -> None:
    connections = 0

    async def refuse_first(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await hello(peer)
        _, _, stream_id, _ = await peer.until(HEADERS)
        if refusal == "goaway" and connections == 1:
            peer.writer.write(goaway(0, ErrorCode.NO_ERROR))
            return
        if refusal == "reset":
            peer.writer.write(reset(stream_id, ErrorCode.REFUSED_STREAM))
            _, _, stream_id, _ = await peer.until(HEADERS)
        peer.writer.write(reply(stream_id, b"again"))
        await peer.closed()

    async with answering(refuse_first) as address, connected(address) as to:
        assert (await to.unary(METHOD, b"", (), None)).message == b"again"
    assert connections == (2 if refusal == "goaway" else 1)


@pytest.mark.parametrize("refusal", ["goaway", "reset"])
async def test_a_call_whose_answer_has_begun_is_never_sent_again(refusal: str) -> None:
    """Whatever the peer says of it afterwards."""
    calls = 0

    async def turn_back(peer: Peer) -> None:
        nonlocal calls
        await hello(peer)
        _, _, stream_id, _ = await peer.until(HEADERS)
        calls += 1
        peer.writer.write(frame(HEADERS, END_HEADERS, stream_id, ANSWER))
        if refusal == "goaway":
            peer.writer.write(goaway(0, ErrorCode.NO_ERROR))
        else:
            peer.writer.write(reset(stream_id, ErrorCode.REFUSED_STREAM))
        await peer.closed()

    async with answering(turn_back) as address, connected(address) as to:
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.status is GrpcCode.UNAVAILABLE
        assert not caught.value.unsent
    assert calls == 1


async def test_a_peer_that_refuses_for_ever_is_given_up() -> None:
    tries = 0

    async def refuse(peer: Peer) -> None:
        nonlocal tries
        await hello(peer)
        while True:
            _, _, stream_id, _ = await peer.until(HEADERS)
            tries += 1
            peer.writer.write(reset(stream_id, ErrorCode.REFUSED_STREAM))

    async with answering(refuse) as address, connected(address) as to:
        with pytest.raises(RpcFailed, match="REFUSED_STREAM") as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.unsent
    assert tries == REFUSALS + 1


async def test_a_peer_that_falls_silent_is_found_by_pings() -> None:
    """A half-open connection: its packets go nowhere."""

    async def silent(peer: Peer) -> None:
        await hello(peer)
        await peer.closed()

    keepalive = Keepalive(interval=0.1, timeout=0.1)
    async with answering(silent) as address, connected(address, keepalive=keepalive) as to:
        with pytest.raises(RpcFailed, match="keepalive watchdog timeout") as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 5)
        assert caught.value.status is GrpcCode.UNAVAILABLE


async def test_a_peer_that_answers_pings_is_waited_for() -> None:
    pings = 0

    async def slow(peer: Peer) -> None:
        nonlocal pings
        await hello(peer)
        _, _, stream_id, _ = await peer.until(HEADERS)
        for _ in range(3):
            _, _, _, payload = await peer.until(PING)
            pings += 1
            peer.writer.write(frame(PING, ACK, 0, payload))
        peer.writer.write(reply(stream_id, b"late"))
        await peer.closed()

    keepalive = Keepalive(interval=0.05, timeout=1.0)
    async with answering(slow) as address, connected(address, keepalive=keepalive) as to:
        assert (await to.unary(METHOD, b"", (), time.monotonic() + 5)).message == b"late"
    assert pings == 3


async def test_nobody_who_speaks_http2_at_the_address_is_unavailable_in_time() -> None:
    async def mute(peer: Peer) -> None:
        await peer.closed()

    async with answering(mute) as address, connected(address) as to:
        started = time.monotonic()
        with pytest.raises(RpcFailed, match=r"no answer within 1\.0 s") as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 5)
        assert caught.value.unsent
        assert time.monotonic() - started < CONNECT_TIMEOUT_S + 2
        await asyncio.sleep(0.3)
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 0.1)
        assert caught.value.status is GrpcCode.DEADLINE_EXCEEDED


async def test_a_peer_that_greets_and_closes_is_unavailable() -> None:
    async def leave(peer: Peer) -> None:
        peer.writer.write(settings({}) + goaway(0, ErrorCode.NO_ERROR))
        await peer.closed()

    async with answering(leave) as address, connected(address) as to:
        with pytest.raises(RpcFailed, match="closed at once") as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 5)
        assert caught.value.unsent


async def test_a_call_may_wait_for_a_stream_no_longer_than_its_deadline() -> None:
    async def one_at_a_time(peer: Peer) -> None:
        await hello(peer, streams=1)
        await peer.closed()

    async with answering(one_at_a_time) as address, connected(address) as to:
        first = asyncio.create_task(to.unary(METHOD, b"", (), None))
        await asyncio.sleep(0.05)
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 0.1)
        assert caught.value.status is GrpcCode.DEADLINE_EXCEEDED
        waiting = asyncio.create_task(to.unary(METHOD, b"", (), None))
        await asyncio.sleep(0)
        waiting.cancel()
        first.cancel()
        await asyncio.gather(first, waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (frame(HEADERS, END_HEADERS | 1, 1, ANSWER), GrpcCode.UNKNOWN),
        (frame(HEADERS, END_HEADERS, 1, ANSWER) + frame(0, 1, 1, b"\0\0\0\0\0"), GrpcCode.INTERNAL),
        (frame(0, 1, 1, b"\0\0\0\0\0"), GrpcCode.INTERNAL),
        (reply(1, b"a")[:-24] + reply(1, b"b")[len(ANSWER) + 9 :], GrpcCode.INTERNAL),
    ],
)
async def test_an_answer_that_breaks_the_rules_is_a_failure(
    answer: bytes, status: GrpcCode
) -> None:
    """No status, no trailers, no headers, two messages."""

    async def wrong(peer: Peer) -> None:
        await hello(peer)
        await peer.until(HEADERS)
        peer.writer.write(answer)
        await peer.closed()

    async with answering(wrong) as address, connected(address) as to:
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 5)
        assert caught.value.status is status


async def test_closing_ends_the_calls_and_may_be_repeated() -> None:
    async def hang(_request: bytes, _call: ServerCall) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(hang) as (address, _), connected(address) as to:
        call = asyncio.create_task(to.unary(METHOD, b"", (), None))
        stream = to.stream(METHOD, (), None)
        await asyncio.sleep(0.1)
        await to.close()
        await to.close()
        with pytest.raises(RpcFailed) as caught:
            await call
        assert caught.value.status is GrpcCode.CANCELLED
        with pytest.raises(RpcFailed):
            await stream.read()
        with pytest.raises(RpcFailed, match="closed"):
            await to.unary(METHOD, b"", (), None)


async def test_a_stream_that_was_given_up_says_so_to_both_ends() -> None:
    cancelled = asyncio.Event()

    async def forever(call: ServerCall) -> None:
        try:
            await call.read()
            await call.write(b"0")
            await call.read()
        finally:
            cancelled.set()

    async with serving(stream=forever) as (address, _), connected(address) as to:
        stream = to.stream(METHOD, (), None)
        await stream.write(b"x")
        assert await stream.read() == b"0"
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(asyncio.CancelledError):
            await stream.write(b"y")
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/kit.sock"
    server = grpc.aio.server(
        handlers=[
            grpc.method_handlers_generic_handler(
                "s.S", {"M": grpc.unary_unary_rpc_method_handler(_answer)}
            )
        ]
    )
    server.add_insecure_port(path)
    await server.start()
    async with connected(path) as to:
        assert (await to.unary(METHOD, b"hi", (), None)).message == b"hi"
    await server.stop(0)


async def _answer(request: bytes, _context: object) -> bytes:
    return request


async def test_tls_that_cannot_be_trusted_is_unavailable_and_says_why() -> None:
    ca, other = trustme.CA(), trustme.CA()
    leaf = ca.issue_cert("127.0.0.1")
    identity = ServerTls(
        b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
    )
    async with serving(echo, tls=identity) as (address, _):
        async with connected(address, tls=ClientTls(ca=ca.cert_pem.bytes())) as to:
            big = bytes(1_000_000)
            assert (await to.unary(METHOD, big, (), None)).message == big
        async with connected(address, tls=ClientTls(ca=other.cert_pem.bytes())) as to:
            with pytest.raises(RpcFailed, match="certificate verify failed") as caught:
                await to.unary(METHOD, b"", (), None)
            assert caught.value.unsent
        wrong_name = ClientTls(ca=ca.cert_pem.bytes(), server_name="elsewhere")
        async with connected(address, tls=wrong_name) as to:
            with pytest.raises(RpcFailed, match="certificate verify failed"):
                await to.unary(METHOD, b"", (), None)


async def test_a_peer_that_takes_a_few_streams_gets_all_calls_in_turn() -> None:
    async with (
        serving(echo, limits=Limits(streams_per_connection=3)) as (address, _),
        connected(address) as to,
    ):
        replies = await asyncio.gather(
            *(to.unary(METHOD, b"%d" % number, (), time.monotonic() + 9) for number in range(100))
        )
    assert [reply.message for reply in replies] == [b"%d" % number for number in range(100)]


async def test_a_turn_that_its_owner_cannot_take_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cancelled, or of a method that cannot be sent: those behind must not wait for ever."""
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def wait(request: bytes, _call: ServerCall) -> bytes:
        if request == b"first":
            arrived.set()
            await leave.wait()
        return request

    async with (
        serving(wait, limits=Limits(streams_per_connection=1)) as (address, _),
        connected(address) as to,
    ):
        first = asyncio.create_task(to.unary(METHOD, b"first", (), None))
        await asyncio.wait_for(arrived.wait(), 5)
        waiting = [
            asyncio.create_task(to.unary(method, b"%d" % number, (), None))
            for number, method in enumerate((METHOD, "/s.S/\u20ac", METHOD))
        ]
        current = to._current  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while len(current._waiting) < 3:
                await asyncio.sleep(0.01)
        give_turn = current._next_turn

        def cancel_who_got_it(_connection: object) -> None:
            monkeypatch.undo()
            give_turn()
            waiting[0].cancel()

        monkeypatch.setattr(type(current), "_next_turn", cancel_who_got_it)
        leave.set()
        async with asyncio.timeout(5):
            assert (await first).message == b"first"
            assert (await waiting[2]).message == b"2"
        assert waiting[0].cancelled()
        with pytest.raises(RpcFailed, match="cannot be sent"):
            await waiting[1]


async def test_a_method_that_cannot_be_sent_fails_alone() -> None:
    """Names come from configurations and, at a coordinator, from whoever submits."""
    methods: list[str] = []

    def route(method: str) -> UnaryRoute:
        methods.append(method)
        return UnaryRoute(echo)

    server = LeanServer(route, tls=None, limits=Limits(), keepalive=Keepalive())
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    async with connected(f"127.0.0.1:{port}") as to:
        for number in range(5):
            for method in ("/s.S/\u20ac", "/s.S/M\r\nx-admin: 1"):
                with pytest.raises(RpcFailed, match="cannot be sent") as caught:
                    await to.unary(method, b"", (), None)
                assert caught.value.unsent
                with pytest.raises(RpcFailed, match="cannot be sent"):
                    await to.stream(method, (), None).read()
            with pytest.raises(UnicodeEncodeError):
                await to.unary(f"/s.S/New{number}", b"", (("x", "\u20ac"),), None)
            await to.unary(f"/s.S/M{number}", b"", (), None)
        assert not to._current.streams  # type: ignore[attr-defined]
    assert methods == [f"/s.S/M{number}" for number in range(5)]
    await server.stop(0)


async def test_failures_of_one_header_block_are_not_one_exception() -> None:
    """A block is read once for many calls; an exception raised twice would keep both callers."""

    async def no_grpc(peer: Peer) -> None:
        await hello(peer)
        while True:
            _, _, stream_id, _ = await peer.until(HEADERS)
            peer.writer.write(frame(HEADERS, END_HEADERS | 1, stream_id, literal(":status", "503")))

    async with answering(no_grpc) as address, connected(address) as to:
        failures = []
        for _ in range(3):
            with pytest.raises(RpcFailed, match="503") as caught:
                await to.unary(METHOD, b"", (), None)
            failures.append(caught.value)
    assert len(set(map(id, failures))) == 3


async def test_a_write_that_was_cancelled_does_not_spoil_the_next() -> None:
    """Part of it may be out already: it goes on, and what follows waits for it."""
    read_on = asyncio.Event()

    async def late(call: ServerCall) -> None:
        await read_on.wait()
        while (message := await call.read()) is not None:
            await call.write(b"%d" % len(message))

    guard = Guard(stream_window=70_000)  # granted by the server
    async with serving(stream=late, guard=guard) as (address, _), connected(address) as to:
        stream = to.stream(METHOD, (), None)
        await stream.write(b"first")  # as long as it is not read no more window is granted
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.write(bytes(300_000)), 0.2)
        read_on.set()
        await stream.write(b"next")
        await stream.done_writing()
        assert [await stream.read() for _ in range(4)] == [b"5", b"300000", b"4", None]


async def test_a_connection_whose_numbers_are_used_up_is_replaced() -> None:
    """Streams are numbered up to 2^31 - 1; the call with the last number still ends well."""
    async with serving(echo) as (address, server), connected(address) as to:
        await to.unary(METHOD, b"", (), None)
        first = to._current  # type: ignore[attr-defined]
        first._next_id = 2**31 - 3
        for number in range(6):
            assert (await to.unary(METHOD, b"%d" % number, (), None)).message == b"%d" % number
        assert to._current is not first  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while len(server._connections) > 1:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)


async def test_calls_share_one_connection() -> None:
    async with serving(echo) as (address, server), connected(address) as to:
        await asyncio.gather(*(to.unary(METHOD, b"", (), None) for _ in range(50)))
        await to.unary(METHOD, b"", (), None)
        assert len(server._connections) == 1  # type: ignore[attr-defined]


async def test_a_tls_peer_that_does_not_agree_on_h2_is_refused() -> None:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # offers no ALPN
    ca.issue_cert("127.0.0.1").configure_cert(context)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with connected(address, tls=ClientTls(ca=ca.cert_pem.bytes())) as to:
        with pytest.raises(RpcFailed, match="did not agree on h2") as caught:
            await to.unary(METHOD, b"", (), time.monotonic() + 5)
        assert caught.value.unsent
    server.close()


async def test_a_transport_that_has_failed_is_not_written_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop tells of an error a turn later; uvloop's raise when they are written until then."""
    async with serving(echo) as (address, _), connected(address) as to:
        await to.unary(METHOD, b"", (), None)
        to._current._transport.abort()  # type: ignore[attr-defined]
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.status is GrpcCode.UNAVAILABLE
    assert caplog.text == ""
