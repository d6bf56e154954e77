"""Both engines on both sides: the same calls have the same outcome, whoever speaks to whom."""

import asyncio
import itertools
import random
import string
import time
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    ClientTls,
    Limits,
    RawMetadata,
    RpcFailed,
    ServerCall,
    ServerTls,
)
from kit.transport.grpc.engines import EngineName
from kit.transport.lean.frames import (
    HEADERS,
    MAX_CONCURRENT_STREAMS,
    PREFACE,
    ErrorCode,
    goaway,
    settings,
)
from tests.conformance.lean.engines_at_work import connected, echo, serving
from tests.conformance.lean.raw import Peer, answering
from tests.conformance.lean.raw import reply as answer_to

PAIRS: list[tuple[EngineName, EngineName]] = [
    ("lean", "lean"),
    ("lean", "grpcio"),
    ("grpcio", "lean"),
]
SIZES = (0, 1, 4, 5, 100, 16_379, 16_380, 16_384, 65_530, 65_536, 200_000, 1_500_000)
MESSAGES = ("", "no", "50 % off: ä €\U0001f600", "two\nlines", "a" * 300, " padded ", '"q" \\ %41')


def random_metadata(dice: random.Random) -> RawMetadata:
    pairs: list[tuple[str, str | bytes]] = []
    for _ in range(dice.choice((0, 0, 1, 5, 60))):
        key = "x-" + "".join(
            dice.choices(string.ascii_lowercase + string.digits, k=dice.randrange(1, 9))
        )
        if dice.random() < 0.3:
            pairs.append((key + "-bin", dice.randbytes(dice.randrange(1, 30))))
        else:
            text = "".join(dice.choices(string.ascii_letters + " ,;=%/", k=dice.randrange(30)))
            pairs.append((key, text.strip()))
    return tuple(pairs)


def by_key(metadata: RawMetadata) -> list[tuple[str, str | bytes]]:
    """grpcio keeps the order only of values that have the same key."""
    return sorted((pair for pair in metadata if pair[0] != "user-agent"), key=lambda pair: pair[0])


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_random_calls_have_the_same_outcome(server: EngineName, client: EngineName) -> None:
    """Bytes, metadata each way, status and message: all arrive as they were sent."""
    dice = random.Random(11)
    plans: dict[bytes, dict[str, Any]] = {}

    async def act(request: bytes, call: ServerCall) -> bytes:
        plan = plans[request[:8]]
        assert by_key(call.metadata) == by_key(plan["metadata"])
        if plan["headers"]:
            await call.send_initial_metadata(plan["headers"])
        if plan["status"]:
            raise RpcFailed(GrpcCode(plan["status"]), plan["message"], plan["trailers"])
        call.set_trailing_metadata(plan["trailers"])
        return bytes(plan["reply"])

    async with serving(act, engine=server) as (address, _), connected(address, engine=client) as to:

        async def one(number: int) -> None:
            plan = {
                "metadata": random_metadata(dice),
                "headers": random_metadata(dice),
                "trailers": random_metadata(dice),
                "status": dice.choice((0, 0, *range(1, 17))),
                "message": dice.choice(MESSAGES),
                "reply": dice.randbytes(dice.choice(SIZES)),
            }
            request = b"%08d" % number + dice.randbytes(dice.choice(SIZES))
            plans[request[:8]] = plan
            failed: RpcFailed | None = None
            try:
                reply = await to.unary("/s.S/M", request, plan["metadata"], None)
            except RpcFailed as failure:
                failed = failure
            if failed is None:
                assert plan["status"] == 0
                assert reply.message == plan["reply"]
                assert by_key(reply.headers) == by_key(plan["headers"])
                assert by_key(reply.trailers) == by_key(plan["trailers"])
            else:
                assert (failed.status, failed.message) == (plan["status"], plan["message"])
                assert by_key(failed.headers) == by_key(plan["headers"])
                assert by_key(failed.trailers) == by_key(plan["trailers"])
                assert not failed.unsent

        numbers = itertools.count()
        for _ in range(8):
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(one(next(numbers)))


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_300_calls_at_once_pass_a_limit_of_50(server: EngineName, client: EngineName) -> None:
    running = most = 0

    async def slow(request: bytes, _call: ServerCall) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return request

    limits = Limits(streams_per_connection=50)
    async with (
        serving(slow, engine=server, limits=limits) as (address, _),
        connected(address, engine=client) as to,
    ):
        replies = await asyncio.gather(
            *(to.unary("/s.S/M", b"%d" % number, (), None) for number in range(300))
        )
    assert [reply.message for reply in replies] == [b"%d" % number for number in range(300)]
    assert most <= 50


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_a_message_over_the_limit_is_refused_on_either_side(
    server: EngineName, client: EngineName
) -> None:
    async def large(request: bytes, _call: ServerCall) -> bytes:
        return bytes(int(request)) if request.isdigit() else b""

    async with (
        serving(large, engine=server, limits=Limits(receive_bytes=10_000)) as (address, _),
        connected(address, engine=client, limits=Limits(receive_bytes=20_000)) as to,
    ):
        assert len((await to.unary("/s.S/M", b"20000", (), None)).message) == 20_000
        for request in (b"20001", bytes(10_001), bytes(1_000_000)):
            with pytest.raises(RpcFailed) as caught:
                await to.unary("/s.S/M", request, (), None)
            assert caught.value.status is GrpcCode.RESOURCE_EXHAUSTED
        assert (await to.unary("/s.S/M", bytes(10_000), (), None)).message == b""


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_streams_carry_messages_of_all_sizes_both_ways(
    server: EngineName, client: EngineName
) -> None:
    async def double(call: ServerCall) -> None:
        await call.send_initial_metadata((("x-kind", "double"),))
        while (message := await call.read()) is not None:
            await call.write(message)
            await call.write(message[::-1])
        call.set_trailing_metadata((("x-done", "1"), ("b-bin", b"\0")))

    async with (
        serving(stream=double, engine=server) as (address, _),
        connected(address, engine=client) as to,
    ):
        stream = to.stream("/s.S/M", (("k", "v"),), None)
        dice = random.Random(5)
        sent = [dice.randbytes(size) for size in SIZES]

        async def send() -> None:
            for message in sent:
                await stream.write(message)
            await stream.done_writing()

        sending = asyncio.create_task(send())
        got = []
        while (message := await stream.read()) is not None:
            got.append(message)
        await sending
        assert got == [one for message in sent for one in (message, message[::-1])]
        assert tuple(await stream.headers()) == (("x-kind", "double"),)
        assert tuple(await stream.trailers()) == (("x-done", "1"), ("b-bin", b"\0"))


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_a_writer_waits_for_a_reader_that_does_not_read(
    server: EngineName, client: EngineName
) -> None:
    """Flow control reaches the handler: it does not fill memory with what nobody takes."""
    written = 0

    async def pour(call: ServerCall) -> None:
        nonlocal written
        while True:
            await call.write(bytes(100_000))
            written += 1

    async with (
        serving(stream=pour, engine=server) as (address, _),
        connected(address, engine=client) as to,
    ):
        stream = to.stream("/s.S/M", (), None)
        assert await stream.read() == bytes(100_000)
        before = -1
        while before != written:  # until it has come to a stand
            before = written
            await asyncio.sleep(0.2)
        assert written < 300
        for _ in range(written + 20):
            assert await stream.read() == bytes(100_000)
        stream.cancel()


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_a_deadline_ends_the_call_on_both_sides(
    server: EngineName, client: EngineName
) -> None:
    cancelled = asyncio.Event()
    left: list[float | None] = []

    async def hang(request: bytes, call: ServerCall) -> bytes:
        if request:
            return request
        left.append(call.deadline)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with (
        serving(hang, engine=server) as (address, _),
        connected(address, engine=client) as to,
    ):
        await to.unary("/s.S/M", b"connects", (), None)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(RpcFailed) as caught:
            await to.unary("/s.S/M", b"", (), time.monotonic() + 0.5)
        assert caught.value.status is GrpcCode.DEADLINE_EXCEEDED
        assert 0.49 < loop.time() - started < 20
        await asyncio.wait_for(cancelled.wait(), 20)
        assert left[0] is not None
        with pytest.raises(RpcFailed) as caught:
            await to.unary("/s.S/M", b"", (), time.monotonic() - 1)
        assert caught.value.status is GrpcCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(("server", "client"), PAIRS)
async def test_tls_with_certificates_on_both_sides(server: EngineName, client: EngineName) -> None:
    ca = trustme.CA()
    leaf, own = ca.issue_cert("trans"), ca.issue_cert("client")
    trusted = ca.cert_pem.bytes()
    identity = ServerTls(_chain(leaf), leaf.private_key_pem.bytes(), client_ca=trusted)
    named = ClientTls(trusted, _chain(own), own.private_key_pem.bytes(), server_name="trans")
    async with (
        serving(echo, engine=server, tls=identity) as (address, _),
        connected(address, engine=client, tls=named) as to,
    ):
        for size in SIZES:
            assert (await to.unary("/s.S/M", bytes(size), (), None)).message == bytes(size)


def _chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems)


async def test_compressed_requests_of_grpcio_are_read() -> None:
    async with (
        serving(echo) as (address, _),
        grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel,
    ):
        call = channel.unary_unary("/s.S/M")
        assert await call(b"a" * 100_000) == b"a" * 100_000
        assert await call(b"") == b""


async def test_compressed_answers_of_grpcio_are_read() -> None:
    class Handlers(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            async def answer(request: bytes, _context: Any) -> bytes:
                return request * 1_000

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server(handlers=[Handlers()], compression=grpc.Compression.Gzip)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connected(f"127.0.0.1:{port}") as to:
        reply = await to.unary("/s.S/M", b"ab", (), None)
        assert reply.message == b"ab" * 1_000
        assert ("grpc-encoding", "gzip") not in tuple(reply.headers)
    await server.stop(0)


@pytest.mark.parametrize("client", ["lean", "grpcio"])
async def test_a_call_that_a_departing_peer_never_began_is_sent_again(client: EngineName) -> None:
    connections = 0

    async def depart_once(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.reader.readexactly(len(PREFACE))
        peer.writer.write(settings({MAX_CONCURRENT_STREAMS: 100}))
        _, _, stream_id, _ = await peer.until(HEADERS)
        if connections == 1:
            peer.writer.write(goaway(0, ErrorCode.NO_ERROR))
        else:
            peer.writer.write(answer_to(stream_id, b"again"))
        await peer.closed()

    async with answering(depart_once) as address, connected(address, engine=client) as to:
        assert (await to.unary("/s.S/M", b"", (), None)).message == b"again"
    assert connections == 2
