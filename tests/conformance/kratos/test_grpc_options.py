"""What servers and clients can be told beside the defaults; kratos-wire §4.1, §4.2, §5."""

import asyncio
from typing import Any

import grpc.aio
import pytest

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.testing.grpc import running
from kit.transport import current_call
from kit.transport.grpc import GrpcClient, GrpcServer, Keepalive, Limits, RpcError
from kit.transport.grpc.engines import EngineName
from tests.conformance.lean.raw import call, dialled

ENGINES: list[EngineName] = ["grpcio", "lean"]
TEXT = b"the same again and " * 5_000


async def echo(request: bytes, _call: Any) -> bytes:
    return request


async def test_each_operation_may_have_its_own_limit_on_a_server(serve: Any) -> None:
    """The exact one wins, then the longest prefix; 0 is none."""
    seen: list[float | None] = []

    async def look(_request: Any, _context: Any) -> trans_pb2.Response:
        call = current_call()
        assert call is not None
        seen.append(call.limit)
        return trans_pb2.Response()

    for timeouts in (
        {"/api.trans.v1.Trans/TransIn": 7.0, "/api.*": 3.0},
        {"/api.*": 3.0, "/*": 2.0},
        {"/api.trans.v1.Trans/*": 0.0},
        {"/other/Method": 9.0},
    ):
        server = GrpcServer(address="127.0.0.1:0", timeouts=timeouts)
        stub = trans_pb2_grpc.TransStub(await serve(look, server))
        await stub.TransIn(trans_pb2.AdjustInfo())
    assert seen == [7.0, 3.0, None, 1.0]


async def test_each_operation_may_have_its_own_limit_on_a_client() -> None:
    """It travels as the deadline; what a call is given itself comes first."""
    seen: list[float | None] = []

    async def look(_request: bytes, call: Any) -> bytes:
        left = None if call.deadline is None else call.deadline - asyncio.get_running_loop().time()
        seen.append(left)
        return b""

    server = GrpcServer(address="127.0.0.1:0")
    for name in ("Quick", "Slow", "Endless"):
        server.register_unary(f"/s.S/{name}", look)
    async with (
        running(server) as address,
        GrpcClient(address, timeouts={"/s.S/Slow": 60, "/s.S/Endless": 0}) as client,
    ):
        for name in ("Quick", "Slow", "Endless"):
            await client.unary(f"/s.S/{name}", b"")
        await client.unary("/s.S/Slow", b"", timeout=20)
    quick, slow, endless, given = seen
    assert quick is not None
    assert quick <= 2.1
    assert slow is not None
    assert 40 < slow <= 60.1
    assert endless is None
    assert given is not None
    assert given <= 20.1


def test_a_selector_that_can_match_nothing_is_refused() -> None:
    for make in (GrpcServer, lambda **options: GrpcClient("h:1", **options)):
        with pytest.raises(ValueError, match=r"selector 'Trans' is neither an operation nor"):
            make(timeouts={"Trans": 1.0})


@pytest.mark.parametrize("server_engine", ENGINES)
@pytest.mark.parametrize("client_engine", ENGINES)
async def test_messages_are_compressed_where_both_sides_want_it(
    server_engine: EngineName, client_engine: EngineName
) -> None:
    """Each direction on its own; what comes compressed is read in any case."""
    for gzip_out, gzip_back in ((True, False), (False, True), (True, True)):
        server = GrpcServer(address="127.0.0.1:0", engine=server_engine, gzip=gzip_back)
        server.register_unary("/s.S/M", echo)
        async with running(server) as address, _counted(address) as (proxy, counts):
            async with GrpcClient(proxy, engine=client_engine, gzip=gzip_out) as client:
                assert await client.unary("/s.S/M", TEXT, timeout=10) == TEXT
                assert await client.unary("/s.S/M", b"", timeout=10) == b""
            out, back = counts
        assert (out < len(TEXT) / 2) is gzip_out
        assert (back < len(TEXT) / 2) is gzip_back


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_that_takes_no_gzip_is_sent_none(engine: EngineName) -> None:
    """It has said what it takes."""
    server = GrpcServer(address="127.0.0.1:0", engine=engine, gzip=True)
    server.register_unary("/s.S/M", echo)
    options = [("grpc.compression_enabled_algorithms_bitset", 1)]
    async with (
        running(server) as address,
        grpc.aio.insecure_channel(address, options=options) as channel,
    ):
        assert await channel.unary_unary("/s.S/M")(TEXT, timeout=10) == TEXT


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_small_message_that_unfolds_into_a_large_one_is_refused(engine: EngineName) -> None:
    """30 KB that become 32 MB."""
    server = GrpcServer(address="127.0.0.1:0", engine=engine)
    server.register_unary("/s.S/M", echo)
    async with (
        running(server) as address,
        GrpcClient(address, gzip=True, limits=Limits(receive_bytes=1 << 30)) as client,
    ):
        with pytest.raises(RpcError) as caught:
            await client.unary("/s.S/M", bytes(32 << 20), timeout=30)
        assert caught.value.code == 429
        assert await client.unary("/s.S/M", b"hi", timeout=10) == b"hi"


class _counted:  # noqa: N801  (used like a function)
    """A proxy that counts bytes each way."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._counts = [0, 0]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> tuple[str, list[int]]:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"127.0.0.1:{port}", self._counts

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._address.rpartition(":")
        theirs, ours = await asyncio.open_connection(host, int(port))
        self._tasks += [
            asyncio.create_task(self._pass(reader, ours, 0)),
            asyncio.create_task(self._pass(theirs, writer, 1)),
        ]

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int
    ) -> None:
        try:
            while data := await reader.read(65_536):
                self._counts[way] += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # one side has gone
        finally:
            writer.transport.abort()


async def test_channelz_tells_of_servers_and_their_calls() -> None:
    """Only when it is asked for, and only by grpcio."""
    channelz_pb2 = pytest.importorskip("grpc_channelz.v1.channelz_pb2")
    from grpc_channelz.v1 import channelz_pb2_grpc

    server = GrpcServer(address="127.0.0.1:0", channelz=True, engine="grpcio")
    server.register_unary("/s.S/M", echo)
    async with running(server) as address, grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary("/s.S/M")(b"")
        stub = channelz_pb2_grpc.ChannelzStub(channel)
        servers = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
        calls = [found.data.calls_succeeded for found in servers]
        assert max(calls) >= 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetServer(channelz_pb2.GetServerRequest(server_id=10**9))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(ValueError, match="use engine='grpcio' or channelz=False"):
        GrpcServer(channelz=True, engine="lean")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_finds_a_peer_that_fell_silent(engine: EngineName) -> None:
    """The address takes the connection, agrees to HTTP/2, and then says nothing at all."""
    settings = b"\0\0\0\x04\0\0\0\0\0"
    held: list[asyncio.StreamWriter] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        writer.write(settings)

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    keepalive = Keepalive(interval=1.0, timeout=0.5)
    try:
        async with GrpcClient(address, engine=engine, keepalive=keepalive) as client:
            with pytest.raises(RpcError) as caught:
                await client.unary("/s.S/M", b"", timeout=60)
            assert caught.value.code == 503, "not the deadline: the connection was given up"
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_server_gives_up_a_client_that_fell_silent(engine: EngineName) -> None:
    """Its call is cancelled and its connection closed, though no packet ever said so."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_request: bytes, _call: Any) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    keepalive = Keepalive(interval=1.0, timeout=0.5)
    server = GrpcServer(address="127.0.0.1:0", engine=engine, keepalive=keepalive)
    server.register_unary("/s.S/M", wait)
    async with running(server) as address, dialled(address) as peer:
        peer.writer.write(call(1))
        async with asyncio.timeout(30):
            await entered.wait()
            await cancelled.wait()
            assert await peer.closed()
