"""One end of a connection without a socket, which notes what it hears."""

from typing import Any

from kit.transport.lean.connection import Http2Connection, Stream
from kit.transport.lean.frames import (
    DATA,
    GOAWAY,
    HEADER_BYTES,
    PREFACE,
    RST_STREAM,
    ErrorCode,
    settings,
    unpack_header,
    unpack_u32,
)
from kit.transport.lean.guard import Guard
from kit.transport.lean.headers import Block, Pair, literal

OPENING: tuple[Pair, ...] = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/s.S/M"),
    (":authority", "trans"),
    ("content-type", "application/grpc"),
)
REQUEST = b"".join(literal(*pair) for pair in OPENING)
Frame = tuple[int, int, int, bytes]


class Noting(Http2Connection):
    """Keeps a stream for every HEADERS, collects DATA, and reads it at once unless told not to."""

    def __init__(self, *, client: bool = False, guard: Guard | None = None, streams: int = 8):
        super().__init__(client=client, guard=guard or Guard(), most_streams=streams)
        self.heard: list[tuple[Any, ...]] = []
        self.bodies: dict[int, bytes] = {}
        self.reads = True
        self.begin()

    def on_headers(self, stream: Stream | None, stream_id: int, block: Block, *, end: bool) -> None:
        if stream is None:
            stream = Stream(stream_id, self.peer_window, self.guard.stream_window)
            stream.received = end
            self.streams[stream_id] = stream
        self.heard.append(("headers", stream_id, tuple(block.pairs), end))

    def on_data(self, stream: Stream, payload: bytes, *, end: bool) -> None:
        self.bodies[stream.id] = self.bodies.get(stream.id, b"") + payload
        if self.reads:
            self.grant(stream)
        else:
            self.hold(stream, len(payload))
        if end:
            self.heard.append(("end", stream.id))

    def on_reset(self, stream: Stream, code: int) -> None:
        self.heard.append(("reset", stream.id, code))

    def on_goaway(self, last_id: int, code: int, text: str) -> None:
        self.heard.append(("goaway", last_id, code, text))

    def on_drained(self, stream: Stream) -> None:
        self.heard.append(("drained", stream.id))

    def open(self) -> Stream:
        """As a client: open a stream."""
        self.last_id = self.last_id + 2 if self.last_id else 1
        stream = Stream(self.last_id, self.peer_window, self.guard.stream_window)
        self.streams[stream.id] = stream
        self.send_block(stream.id, self.encoder.stable("request", OPENING))
        return stream


def greeted(*, guard: Guard | None = None, streams: int = 8) -> Noting:
    """A server whose client has said hello; what it answered to that is taken off."""
    server = Noting(guard=guard, streams=streams)
    server.receive(PREFACE + settings({}))
    server.take()
    return server


def frames(data: bytes) -> list[Frame]:
    """Type, flags, stream and payload of each frame."""
    found = []
    while data:
        high, low, kind, flags, stream_id = unpack_header(data)
        end = HEADER_BYTES + (high << 8 | low)
        found.append((kind, flags, stream_id, data[HEADER_BYTES:end]))
        data = data[end:]
    return found


def taken(connection: Http2Connection) -> list[Frame]:
    """What a connection would write now."""
    return frames(connection.take()) if connection.out else []


def farewell(connection: Http2Connection) -> ErrorCode | None:
    """The code of its GOAWAY, ``None`` when it sent none."""
    for kind, _, _, payload in taken(connection):
        if kind == GOAWAY:
            return ErrorCode(unpack_u32(payload, 4)[0])
    return None


def resets(sent: list[Frame]) -> list[tuple[int, ErrorCode]]:
    """The streams that were reset, and why."""
    return [(sid, ErrorCode(unpack_u32(p)[0])) for kind, _, sid, p in sent if kind == RST_STREAM]


def data_bytes(sent: list[Frame], stream_id: int) -> int:
    """How much DATA went out on a stream."""
    return sum(len(p) for kind, _, sid, p in sent if kind == DATA and sid == stream_id)


def talk(one: Http2Connection, other: Http2Connection) -> None:
    """Carry bytes until both are silent."""
    while one.out or other.out:
        if one.out:
            other.receive(one.take())
        if other.out:
            one.receive(other.take())
