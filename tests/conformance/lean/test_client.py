"""The lean client and what becomes of its connection."""

import asyncio
import time
from pathlib import Path

import grpc.aio
import pytest
import trustme

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    ClientTls,
    Keepalive,
    Limits,
    RpcFailed,
    ServerCall,
    ServerTls,
)
from kit.transport.lean.client import CONNECT_TIMEOUT_S
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
from tests.conformance.lean.engines_at_work import connected, echo, serving
from tests.conformance.lean.raw import ANSWER, Peer, answering, reply

METHOD = "/s.S/M"


async def hello(peer: Peer, **values: int) -> None:
    await peer.reader.readexactly(len(PREFACE))
    peer.writer.write(settings({MAX_CONCURRENT_STREAMS: values.get("streams", 100)}))


async def test_a_lost_connection_is_made_again_by_itself() -> None:
    async with serving(echo) as (address, _), connected(address) as to:
        assert (await to.unary(METHOD, b"1", (), None)).message == b"1"
        assert to.ready()
    port = int(address.rpartition(":")[2])
    async with connected(address) as to:
        with pytest.raises(RpcFailed, match="Connection refused") as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.unsent
        started = time.monotonic()
        with pytest.raises(RpcFailed) as caught:
            await to.unary(METHOD, b"", (), None)
        assert caught.value.unsent
        assert time.monotonic() - started < 0.1, "between attempts calls fail at once"
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

    async with serving(wait) as (address, server), connected(address) as to:
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
    assert tries == 6


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
        assert time.monotonic() - started < CONNECT_TIMEOUT_S + 0.5
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
