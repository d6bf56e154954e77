"""Whatever a peer sends, no exception escapes, nothing is left behind, nobody waits for ever."""

import asyncio
import random
from typing import Any

import pytest

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    Route,
    RpcFailed,
    ServerCall,
    StreamRoute,
    UnaryRoute,
)
from kit.transport.lean.client import ClientConnection
from kit.transport.lean.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    ErrorCode,
    frame,
    reset,
    settings,
    window_update,
)
from kit.transport.lean.guard import Guard
from kit.transport.lean.headers import literal
from kit.transport.lean.messages import pack_prefix
from kit.transport.lean.server import LeanServer, ServerConnection

REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/s.S/M"),
    ("content-type", "application/grpc"),
)
ANSWER = ((":status", "200"), ("content-type", "application/grpc"))
ODD = (
    ("grpc-timeout", "1m"),
    ("grpc-timeout", "x"),
    ("grpc-encoding", "gzip"),
    ("grpc-status", "0"),
    ("grpc-status", "5"),
    ("b-bin", "?"),
    (":path", "/s.S/Stream"),
    ("Upper", "case"),
    ("content-length", "3"),
    ("x", "y" * 9_000),
)


class Nowhere(asyncio.Transport):
    """Takes everything, and closes as sockets do: later."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._closing = False

    def write(self, data: Any) -> None:
        assert data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def message(dice: random.Random) -> bytes:
    data = dice.randbytes(dice.choice((0, 1, 30)))
    return pack_prefix(dice.choice((0, 0, 0, 1, 7)), len(data) + dice.choice((0, 0, 0, 1))) + data


def anything(dice: random.Random, fields: tuple[tuple[str, str], ...]) -> bytes:
    """One or a few frames, mostly such as make sense."""
    stream = dice.choice((1, 1, 3, 5, 7, 9, 2, 0))
    flags = dice.choice((0, END_STREAM))
    block = b"".join(
        literal(*pair, indexed=dice.random() < 0.3)
        for pair in (*fields, *dice.sample(ODD, dice.choice((0, 0, 1, 2))))
    )
    if dice.random() < 0.1:
        block = block[: dice.randrange(len(block))]
    return dice.choice(
        (
            frame(HEADERS, END_HEADERS | flags, stream, block[:16_000]),
            frame(HEADERS, END_HEADERS | flags, stream, block[:16_000]),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, literal("grpc-status", "0")),
            frame(DATA, flags, stream, message(dice)),
            frame(DATA, flags, stream, message(dice)[: dice.randrange(1, 9)]),
            reset(stream, dice.choice(list(ErrorCode))),
            window_update(stream, dice.choice((0, 1, 100_000, 2**31 - 1))),
            settings({dice.randrange(8): dice.choice((0, 1, 20_000, 2**31 - 1))}),
            frame(
                dice.randrange(12), dice.randrange(256), stream, dice.randbytes(dice.randrange(20))
            ),
        )
    )


@pytest.fixture
async def troubles() -> Any:
    """What asyncio would report as nobody's exception."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def test_a_server_survives_any_frames(troubles: list[Any]) -> None:
    async def unary(request: bytes, call: ServerCall) -> bytes:
        if request[:1] < b"\x40":
            await asyncio.sleep(0)
        if request[:1] > b"\xc0":
            raise RpcFailed(GrpcCode.NOT_FOUND, "no")
        return request * 50

    async def stream(call: ServerCall) -> None:
        while (message := await call.read()) is not None:
            await call.write(message)

    def route(method: str) -> Route | RpcFailed:
        return StreamRoute(stream) if method.endswith("Stream") else UnaryRoute(unary)

    dice = random.Random(2)
    for _ in range(400):
        server = LeanServer(
            route,
            tls=None,
            limits=Limits(receive_bytes=1_000, streams_per_connection=3),
            keepalive=Keepalive(),
            guard=Guard(stream_window=70_000, connection_window=200_000),
        )
        connection = ServerConnection(server)
        connection.connection_made(Nowhere(connection))
        connection.data_received(PREFACE + settings({}))
        for _ in range(dice.randrange(1, 30)):
            if connection.lost:
                break
            connection.data_received(anything(dice, REQUEST))
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await server.stop(0)
        assert server.running == 0
        assert connection.held == 0 or connection.lost
        assert not connection.streams
    assert troubles == []


async def test_a_client_survives_any_frames_and_every_call_ends(troubles: list[Any]) -> None:
    dice = random.Random(4)
    for _ in range(400):
        connection = ClientConnection("trans", "http", Limits(), Keepalive(), Guard())
        connection.connection_made(Nowhere(connection))
        connection.data_received(settings({}))
        calls = [connection.unary("/s.S/M", b"x" * 20, (), None) for _ in range(4)]
        stream = connection.stream("/s.S/Stream", (), None)
        for _ in range(dice.randrange(1, 30)):
            if connection.lost:
                break
            connection.data_received(anything(dice, ANSWER))
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        connection.close("the test is over")
        outcomes = await asyncio.gather(*(call.future for call in calls), return_exceptions=True)
        assert all(hasattr(outcome, "message") for outcome in outcomes)
        assert stream.ended
        await asyncio.sleep(0)
    assert troubles == []
