"""A peer that speaks HTTP/2 by hand: it does what a library would not let it do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from kit.transport.lean.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_BYTES,
    HEADERS,
    PREFACE,
    ErrorCode,
    frame,
    settings,
    unpack_header,
    unpack_u32,
)
from kit.transport.lean.headers import literal
from kit.transport.lean.messages import pack_prefix

REQUEST = b"".join(
    literal(*pair)
    for pair in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/s.S/M"),
        (":authority", "trans"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)
ANSWER = literal(":status", "200") + literal("content-type", "application/grpc")


def call(stream_id: int, message: bytes = b"hi") -> bytes:
    """A whole unary call."""
    return frame(HEADERS, END_HEADERS, stream_id, REQUEST) + frame(
        DATA, END_STREAM, stream_id, pack_prefix(0, len(message)) + message
    )


def reply(stream_id: int, message: bytes = b"hi") -> bytes:
    """A whole answer."""
    return (
        frame(HEADERS, END_HEADERS, stream_id, ANSWER)
        + frame(DATA, 0, stream_id, pack_prefix(0, len(message)) + message)
        + frame(HEADERS, END_HEADERS | END_STREAM, stream_id, literal("grpc-status", "0"))
    )


class Peer:
    """One end of a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: type, flags, stream, payload."""
        head = await self.reader.readexactly(HEADER_BYTES)
        high, low, kind, flags, stream_id = unpack_header(head)
        return kind, flags, stream_id, await self.reader.readexactly(high << 8 | low)

    async def until(self, kind: int) -> tuple[int, int, int, bytes]:
        """The next frame of a type."""
        async with asyncio.timeout(10):
            while (got := await self.frame())[0] != kind:
                pass
            return got

    async def farewell(self) -> tuple[ErrorCode, str]:
        """Code and text of the GOAWAY that ends the connection."""
        _, _, _, payload = await self.until(GOAWAY)
        return ErrorCode(unpack_u32(payload, 4)[0]), payload[8:].decode()

    async def closed(self) -> bool:
        """Wait until the other side has closed."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionError:
                pass
        return True


@asynccontextmanager
async def dialled(address: str, hello: bytes = PREFACE + settings({})) -> AsyncIterator[Peer]:
    """A client by hand."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(hello)
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def answering(behaviour: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[str]:
    """A server by hand; gives its address."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        writers.append(writer)
        try:
            await behaviour(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)
