"""Both roles against each other: random calls, streams, failures and resets, cut at random places.

Whatever the order of things, every call ends as its request asked for or as its caller gave it up,
neither side finds a fault with the other, and nothing is left behind.
"""

import asyncio
import random
from typing import Any, cast

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
from kit.transport.lean import Guard, LeanConnection, LeanServer
from kit.transport.lean.client import ClientCall, ClientConnection, LeanStream
from kit.transport.lean.server import ServerConnection
from kit.transport.lean.wire import Wire

GUARD = Guard(stream_window=65_535, connection_window=100_000)
_SIZES = (0, 1, 20, 20, 20, 16_379, 30_000, 100_000)
_ECHO, _FAIL, _HANG, _LARGE = range(4)


class Pipe(asyncio.Transport):
    """One direction of a socket: what is written waits until :meth:`pump` carries it."""

    def __init__(self, own: Wire, dice: random.Random) -> None:
        super().__init__()
        self.own = own
        self.other: Wire | None = None
        self._dice = dice
        self._data = bytearray()
        self._closing = self._paused = False

    def write(self, data: Any) -> None:
        self._data += data
        if len(self._data) > 65_536 and not self._paused:
            self._paused = True
            self.own.pause_writing()

    def pump(self) -> bool:
        """Carry a piece; whether there was one."""
        if not self._data or self.other is None:
            return False
        size = self._dice.choice((1, 9, 30, 500, 20_000, 70_000))
        piece = bytes(self._data[:size])
        del self._data[:size]
        if not self.other.lost:
            self.other.data_received(piece)
        if self._paused and len(self._data) < 16_384:
            self._paused = False
            self.own.resume_writing()
        return True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.own.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        pass  # what is not read waits in the pipe in any case

    def resume_reading(self) -> None:
        pass


class Owner:
    """Hands the one connection out, as a :class:`LeanConnection` would."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def open_stream(
        self, method: str, metadata: Any, deadline: float | None
    ) -> tuple[ClientConnection, ClientCall]:
        return self.connection, self.connection.stream(method, metadata, deadline)


def route(method: str) -> Route:
    return StreamRoute(_stream) if method.endswith("Stream") else UnaryRoute(_unary)


async def _unary(request: bytes, call: ServerCall) -> bytes:
    kind = request[0]
    for _ in range(request[1]):
        await asyncio.sleep(0)
    if kind == _FAIL:
        raise RpcFailed(GrpcCode.NOT_FOUND, "no", (("n", str(request[2])),))
    if kind == _HANG:
        await asyncio.Event().wait()
    return request + bytes(100_000) if kind == _LARGE else request


async def _stream(call: ServerCall) -> None:
    count = 0
    while (message := await call.read()) is not None:
        count += 1
        if message[0] == _FAIL:
            raise RpcFailed(GrpcCode.NOT_FOUND, "no")
        if message[0] == _HANG and count > 1:
            return  # early, while the client still writes
        await call.write(message)
        if message[0] == _LARGE:
            await call.write(message)


async def _one_unary(connection: ClientConnection, dice: random.Random) -> None:
    kind = dice.choice((_ECHO, _ECHO, _ECHO, _FAIL, _HANG, _LARGE))
    request = bytes((kind, dice.randrange(4), dice.randrange(256))) + bytes(dice.choice(_SIZES))
    call = connection.unary("/s.S/M", request, (("k", "v"),), None)
    turns = dice.randrange(1, 40) if kind == _HANG or dice.random() < 0.3 else None
    try:
        if turns is not None:
            for _ in range(turns):
                await asyncio.sleep(0)
            connection.give_up(call, RpcFailed(GrpcCode.CANCELLED, "enough"))
        reply = await call.future
    except RpcFailed as failure:
        given_up = turns is not None and failure.status is GrpcCode.CANCELLED
        failed = (failure.status, tuple(failure.trailers))
        asked_for = kind == _FAIL and failed == (GrpcCode.NOT_FOUND, (("n", str(request[2])),))
        if not (given_up or asked_for):
            raise
    else:
        assert kind in (_ECHO, _LARGE)
        assert reply.message == (request + bytes(100_000) if kind == _LARGE else request)


async def _one_stream(connection: ClientConnection, dice: random.Random) -> None:
    stream = LeanStream(cast("LeanConnection", Owner(connection)), "/s.S/Stream", (), None)
    kinds = [dice.choice((_ECHO, _ECHO, _LARGE, _FAIL, _HANG)) for _ in range(dice.randrange(6))]
    sent = [bytes((kind, n)) + bytes(dice.choice(_SIZES)) for n, kind in enumerate(kinds)]
    wanted = [m for m, kind in zip(sent, kinds, strict=True) for _ in range(1 + (kind == _LARGE))]
    gives_up = dice.random() < 0.3

    async def send() -> None:
        for message in sent:
            await stream.write(message)
        await stream.done_writing()

    sending = asyncio.create_task(send())
    got = []
    try:
        while (message := await stream.read()) is not None:
            got.append(message)
            if gives_up and dice.random() < 0.5:
                stream.cancel()
        if _FAIL not in kinds and _HANG not in kinds[1:]:
            assert got == wanted
    except RpcFailed as failure:
        if failure.status is not GrpcCode.NOT_FOUND or _FAIL not in kinds:
            raise
    except asyncio.CancelledError:
        assert gives_up
    assert got == wanted[: len(got)]
    stream.cancel()
    result = (await asyncio.gather(sending, return_exceptions=True))[0]
    assert result is None or isinstance(result, RpcFailed | asyncio.CancelledError), result


async def conversation(dice: random.Random) -> int:
    """One connection and some calls on it; gives how many."""
    keepalive = Keepalive(interval=600.0)
    server = LeanServer(route, tls=None, limits=Limits(), keepalive=keepalive, guard=GUARD)
    there = ServerConnection(server)
    here = ClientConnection("trans", "http", Limits(), keepalive, GUARD)
    way_there, way_back = Pipe(here, dice), Pipe(there, dice)
    there.connection_made(way_back)
    here.connection_made(way_there)
    way_there.other, way_back.other = there, here
    count = dice.randrange(1, 12)
    kinds = [dice.choice((_one_unary, _one_unary, _one_stream)) for _ in range(count)]
    calls = [asyncio.create_task(kind(here, dice)) for kind in kinds]
    quiet = 0
    while quiet < 30 or not all(call.done() for call in calls):
        carried = [way.pump() for way in dice.sample((way_there, way_back), 2)]
        quiet = 0 if any(carried) else quiet + 1
        assert quiet < 2_000, "somebody waits for ever"
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        if not any(carried):
            await asyncio.sleep(0)
    for call in calls:
        call.result()
    for end in (here, there):
        assert not end.closed
        assert not end.streams
        assert not end.blocked
        assert end.held == 0
    assert server.running == 0
    here.close("over")
    there.close("over")
    await server.stop(0)
    return count


class Loop:
    """One event loop for many conversations."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.troubles: list[dict[str, Any]] = []

    def talk(self, dice: random.Random) -> int:
        """Hold one conversation."""

        async def run() -> int:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: self.troubles.append(context))
            count = await conversation(dice)
            assert not self.troubles
            assert len(asyncio.all_tasks()) == 1
            return count

        return self._runner.run(run())
