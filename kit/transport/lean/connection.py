"""One HTTP/2 connection without its socket: bytes go in, :attr:`Http2Connection.out` goes out.

What this layer does by itself: the preface and SETTINGS, flow control both ways, header blocks over
several frames, padding, PING, limits on what the peer may do, and the end of the connection when it
breaks a rule. What concerns a call goes to the methods that a subclass writes: ``on_headers``,
``on_data``, ``on_reset``, ``on_goaway``, ``on_settings``, ``on_drained``.

Neither push nor priorities are spoken: a client forbids the one, both ignore the other, as RFC 9113
recommends.

Theory of operation:

- ``receive`` reads every whole frame of what came; a rest of less than one frame is kept.
- What goes out is a list, joined and written once per turn of the loop: ``wake`` says that there is
  something, :meth:`Http2Connection.take` gives it.
- Nothing is encoded before it can be sent: header blocks depend on those before them, so trailers
  behind a body that waits for window are pairs, not bytes, until their turn.
- A window is given back when half of it is used: for the connection at once, as what one call does
  not read must not stop the others; for a call as soon as it reads. What arrives and is not read
  counts against :attr:`Guard.buffered_bytes`.

Source: RFC 9113. ``h2`` is not used: see docs/adr/0010-lean-engine.md.
"""

import time
from collections.abc import Iterable

from kit.transport.lean.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    GOAWAY,
    HEADER_BYTES,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME,
    LARGEST_STREAM_ID,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFailure,
    ErrorCode,
    StreamFailure,
    frame,
    goaway,
    header_frames,
    pack_header,
    reset,
    settings,
    unpack_header,
    unpack_setting,
    unpack_u32,
    window_update,
)
from kit.transport.lean.guard import Allowance, Guard
from kit.transport.lean.headers import Block, Decoder, Encoder, Pair, literal

_REMEMBERED = 1_000
_HEADERS_COUNT = 16_384  # bytes that HEADERS or RST_STREAM on a closed stream are counted for


TOGETHER = 4
"""Calls or replies of one turn that are written at once; more follow by themselves.

One write for all is the cheapest, and has both ends wait for each other: while one works off
32 calls the other has nothing to do. With 4 a coordinator of 32 clients ends a third to a half more
transactions, at the same CPU each.
"""


class Stream:
    """One call on a connection, as HTTP/2 sees it.

    Attributes:
        id: its number.
        window: bytes of DATA that the peer still takes.
        granted: bytes of DATA that the peer may still send.
        received: whether the peer has sent its last frame.
        held: bytes that are kept for it, counted by the connection.
        body: what waits for window, from ``sent`` on; ``None`` when nothing does.
        trailers: what follows the body: pairs, ``()`` for the end without any, ``None`` for more
            bodies.
    """

    # Most calls need none of these: what is not set costs nothing.
    received = False
    held = 0
    body: bytes | None = None
    sent = 0
    trailers: Iterable[Pair] | None = None

    def __init__(self, stream_id: int, window: int, granted: int) -> None:
        self.id = stream_id
        self.window = window
        self.granted = granted


class Http2Connection:
    """The rules of one connection; see the module.

    Args:
        client: which side this is.
        guard: what the peer may do.
        most_streams: how many calls a client may have open; a server's limit.
    """

    # With a dictionary each connection would take 1.2 kB more.
    __slots__ = (
        "_answered_counted",
        "_awaited",
        "_block",
        "_block_of",
        "_control",
        "_granted",
        "_partial",
        "_reset",
        "_resets",
        "_scheduled",
        "answered",
        "blocked",
        "client",
        "closed",
        "decoder",
        "encoder",
        "guard",
        "held",
        "last_id",
        "most_streams",
        "out",
        "paused",
        "peer_frame",
        "peer_streams",
        "peer_window",
        "settled",
        "streams",
        "window",
    )

    def __init__(self, *, client: bool, guard: Guard, most_streams: int = 0) -> None:
        self.client = client
        self.guard = guard
        self.most_streams = most_streams
        self.out: list[bytes] = []
        self.streams: dict[int, Stream] = {}
        self.decoder = Decoder(guard.header_list_bytes)
        self.encoder = Encoder()
        self.window = DEFAULT_WINDOW
        self.peer_streams = LARGEST_STREAM_ID
        self.peer_window = DEFAULT_WINDOW
        self.peer_frame = FRAME_BYTES
        self.blocked: dict[int, Stream] = {}
        self.paused = False
        self.closed = False
        self.held = 0
        self.last_id = 0  # the largest stream that was opened, by whichever side opens them here
        self.answered = 0  # DATA frames that went out, and failures
        self.settled = False
        self._awaited = b"" if client else PREFACE
        self._partial = b""
        self._granted = guard.connection_window
        self._scheduled = False
        self._block: bytearray | None = None
        self._block_of = (0, 0, 0)  # stream, flags, frames so far
        # Given up by this side, with the bytes that the peer may have sent before it heard of it.
        self._reset: dict[int, int] = {}
        self._control = Allowance(guard.control_burst + most_streams, guard.control_rate)
        self._resets = Allowance(guard.resets_burst + most_streams, guard.resets_rate)
        self._answered_counted = 0

    # What a subclass writes.

    def wake(self) -> None:
        """Something is in :attr:`out`; called once until :meth:`take`."""

    def on_headers(self, stream: Stream | None, stream_id: int, block: Block, *, end: bool) -> None:
        """A header block came; ``stream`` is ``None`` when it opens one."""
        raise NotImplementedError

    def on_data(self, stream: Stream, payload: bytes, *, end: bool) -> None:
        """A part of a body came."""
        raise NotImplementedError

    def on_reset(self, stream: Stream, code: int) -> None:
        """The peer gave a stream up, or broke a rule on it; it is closed."""
        raise NotImplementedError

    def on_goaway(self, last_id: int, code: int, text: str) -> None:
        """The peer takes no new streams and knows none beyond ``last_id``."""

    def on_settings(self) -> None:
        """The peer's settings have changed."""

    def on_drained(self, stream: Stream) -> None:
        """A body that had to wait has gone out."""

    def premature(self, stream: Stream) -> bool:
        """Whether a client that resets ``stream`` now takes back what it asked for."""
        return True

    def on_pong(self, payload: bytes) -> None:
        """The peer answered a ping."""

    def hurry(self) -> None:
        """Enough has gathered to be written ahead of the end of the turn."""

    # Out.

    def begin(self) -> None:
        """Say hello: to be called once, when the peer is there."""
        guard = self.guard
        values = {
            INITIAL_WINDOW_SIZE: guard.stream_window,
            MAX_HEADER_LIST_SIZE: guard.header_list_bytes,
        }
        if self.client:
            values[ENABLE_PUSH] = 0
        else:
            values[MAX_CONCURRENT_STREAMS] = self.most_streams
        hello = settings(values) + window_update(0, guard.connection_window - DEFAULT_WINDOW)
        self.send(PREFACE + hello if self.client else hello)

    def send(self, data: bytes) -> None:
        """Put whole frames out."""
        self.out.append(data)
        if not self._scheduled:
            self._scheduled = True
            self.wake()
        elif len(self.out) >= TOGETHER:
            self.hurry()

    def take(self) -> bytes:
        """Everything that is to be written now."""
        out = self.out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def send_block(self, stream_id: int, block: bytes, *, end: bool = False) -> None:
        """A header block that the encoder has just made."""
        self.send(header_frames(stream_id, block, end=end, largest=self.peer_frame))

    def send_body(self, stream: Stream, body: bytes, trailers: Iterable[Pair] | None) -> bool:
        """Send ``body``, then ``trailers``; what the windows do not let out follows by itself.

        Gives whether all of it is out; otherwise ``on_drained`` comes later.
        """
        assert stream.body is None, "one body at a time"
        stream.body, stream.sent, stream.trailers = body, 0, trailers
        if (self.paused and body) or not self._advance(stream):
            self.blocked[stream.id] = stream
            return False
        return True

    def send_reset(self, stream_id: int, code: ErrorCode) -> None:
        """Give a stream up."""
        stream = self.forget(stream_id)
        self._remember(stream_id, self.guard.stream_window if stream is None else stream.granted)
        self.send(reset(stream_id, code))

    def forget(self, stream_id: int) -> Stream | None:
        """Close a stream for this side: nothing more of it comes up or goes out."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            if stream.body is not None:
                self.blocked.pop(stream_id, None)
                stream.body = None
            if stream.held:
                self.held -= stream.held
                stream.held = 0
        return stream

    def hold(self, stream: Stream, size: int) -> None:
        """Count bytes that are kept for a stream; negative when they have been read.

        Raises:
            StreamFailure: ENHANCE_YOUR_CALM; the connection keeps too much already.
        """
        stream.held += size
        self.held += size
        if self.held > self.guard.buffered_bytes:
            raise StreamFailure(
                stream.id,
                ErrorCode.ENHANCE_YOUR_CALM,
                f"{self.held} bytes of unfinished and unread messages on one connection",
            )

    def grant(self, stream: Stream) -> None:
        """Let the peer send on: what came on ``stream`` has been read."""
        used = self.guard.stream_window - stream.granted
        if used >= self.guard.stream_window >> 1 and not stream.received:
            stream.granted += used
            self.send(window_update(stream.id, used))

    def fail(self, failure: ConnectionFailure) -> None:
        """Say GOAWAY and hear nothing more."""
        self.closed = True
        self._partial = b""
        last = 0 if self.client else self.last_id
        self.send(goaway(last, failure.code, failure.text))

    def resume(self) -> None:
        """The socket takes bytes again."""
        self.paused = False
        self._unblock()

    def _advance(self, stream: Stream) -> bool:
        """Send of the body what the windows allow; tell whether it is all out."""
        body, sent, trailers = stream.body, stream.sent, stream.trailers
        assert body is not None
        size = len(body)
        while sent < size:
            part = min(size - sent, self.window, stream.window, self.peer_frame)
            if part <= 0:
                stream.sent = sent
                return False
            self.window -= part
            stream.window -= part
            self.answered += 1
            last = END_STREAM if sent + part == size and trailers == () else 0
            self.send(
                pack_header(part >> 8, part & 0xFF, DATA, last, stream.id)
                + (body if part == size else body[sent : sent + part])
            )
            sent += part
        stream.body = None
        if trailers:
            block = b"".join(literal(*pair) for pair in trailers)
            self.send_block(stream.id, block, end=True)
        elif not size and trailers is not None:
            self.send(frame(DATA, END_STREAM, stream.id))
        return True

    def _unblock(self) -> None:
        """Let the waiting bodies go on, the one that waits longest first."""
        for stream in list(self.blocked.values()):
            if self.window <= 0 or self.paused:
                return
            if stream.window > 0 and stream.body is not None and self._advance(stream):
                del self.blocked[stream.id]
                self.on_drained(stream)

    # In.

    def receive(self, data: bytes) -> None:
        """Take what the peer sent; a rule that it broke ends in :meth:`fail`."""
        if self.closed:
            return
        try:
            self._receive(data)
        except ConnectionFailure as failure:
            self.fail(failure)

    def _receive(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
        position, size = 0, len(data)
        if self._awaited:
            if not self._awaited.startswith(data[: len(PREFACE)]):
                raise _protocol("this is not HTTP/2: the preface is missing")
            if size < len(PREFACE):
                self._partial = data
                return
            position, self._awaited = len(PREFACE), b""
        while size - position >= HEADER_BYTES and not self.closed:
            high, low, kind, flags, stream_id = unpack_header(data, position)
            stream_id &= LARGEST_STREAM_ID  # the bit above means nothing, §4.1
            length = high << 8 | low
            if length > FRAME_BYTES:
                raise ConnectionFailure(
                    ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes, more than 16384"
                )
            start = position + HEADER_BYTES
            end = start + length
            if end > size:
                break
            payload = data[start:end]
            position = end
            if kind == DATA and self._block is None:
                self._data(flags, stream_id, payload)
            elif kind == HEADERS and flags & END_HEADERS and self._block is None:
                self._headers(stream_id, flags, payload)
            else:
                self._frame(kind, flags, stream_id, payload)
        self._partial = data[position:] if position < size else b""

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self._granted -= length
        if self._granted < self.guard.connection_window >> 1:
            self._grant_connection()
        if flags & PADDED:
            payload = _unpadded(payload)
        stream = self.streams.get(stream_id)
        if stream is None or stream.received:
            self._late_data(stream_id, length)
            return
        stream.granted -= length
        try:
            if stream.granted < 0:
                raise StreamFailure(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more than granted")
            if flags & END_STREAM:
                stream.received = True
                self.on_data(stream, payload, end=True)
            else:
                if not payload:
                    self._spend("empty DATA frames")
                self.on_data(stream, payload, end=False)
        except StreamFailure as failure:
            self._fail_stream(failure)

    def _grant_connection(self) -> None:
        if self._granted < 0:
            raise ConnectionFailure(
                ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window"
            )
        used = self.guard.connection_window - self._granted
        self._granted += used
        self.send(window_update(0, used))

    def _late_data(self, stream_id: int, length: int) -> None:
        if self._idle(stream_id):
            raise _protocol(f"DATA on stream {stream_id}, which was never opened")
        if not self._under_way(stream_id, length):
            self._spend("DATA on closed streams")
        if stream_id not in self._reset:
            self._fail_stream(
                StreamFailure(stream_id, ErrorCode.STREAM_CLOSED, "DATA after the end")
            )

    def _fail_stream(self, failure: StreamFailure) -> None:
        stream = self.streams.get(failure.stream_id)
        self.send_reset(failure.stream_id, failure.code)
        if stream is not None:
            self.on_reset(stream, failure.code)
        if not self.client:
            self._spend_reset()  # a stream that the peer made us reset is one that it reset

    def _headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        """A whole HEADERS frame."""
        if not self.settled:
            raise _protocol("the first frame has to be SETTINGS")
        if flags & (PADDED | WITH_PRIORITY):
            payload = self._fragment(stream_id, flags, payload)
        block = self.decoder.decode(payload)
        stream = self.streams.get(stream_id)
        end = bool(flags & END_STREAM)
        try:
            if stream is None:
                if not self._opens(stream_id):
                    return
                self.last_id = stream_id
            elif stream.received:
                raise ConnectionFailure(
                    ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id} after its end"
                )
            elif end:
                stream.received = True
            self.on_headers(stream, stream_id, block, end=end)
        except StreamFailure as failure:
            self._fail_stream(failure)

    def _opens(self, stream_id: int) -> bool:
        """Whether HEADERS open ``stream_id``, or came too late for it."""
        if stream_id == 0:
            raise _protocol("HEADERS on stream 0")
        if self.client:
            if self._idle(stream_id):
                raise _protocol(f"HEADERS on stream {stream_id}, which was never opened")
            if not self._under_way(stream_id, _HEADERS_COUNT):
                self._spend("HEADERS on closed streams")
            return False
        if stream_id > self.last_id:
            if stream_id & 1 == 0:
                raise _protocol(f"a client opened stream {stream_id}, which is even")
            if len(self.streams) >= self.most_streams:
                self.last_id = stream_id
                raise StreamFailure(stream_id, ErrorCode.REFUSED_STREAM, "too many streams")
            return True
        if stream_id not in self._reset:
            raise ConnectionFailure(
                ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which is closed"
            )
        if not self._under_way(stream_id, _HEADERS_COUNT):
            self._spend("HEADERS on closed streams")
        return False

    def _idle(self, stream_id: int) -> bool:
        return stream_id > self.last_id or stream_id & 1 == 0

    def _fragment(self, stream_id: int, flags: int, payload: bytes) -> bytes:
        """The part of a HEADERS frame that is header block."""
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFailure(
                    ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for their priority"
                )
            if unpack_u32(payload)[0] & LARGEST_STREAM_ID == stream_id:
                raise _protocol(f"stream {stream_id} depends on itself")
            payload = payload[5:]
        return payload

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Any frame but DATA and whole HEADERS."""
        if self._block is not None:
            self._continue(kind, flags, stream_id, payload)
            return
        if not self.settled and kind != SETTINGS:
            raise _protocol("the first frame has to be SETTINGS")
        if kind == WINDOW_UPDATE:
            self._on_window_update(stream_id, payload)
        elif kind == HEADERS:
            if stream_id == 0:
                raise _protocol("HEADERS on stream 0")
            self._block = bytearray(self._fragment(stream_id, flags, payload))
            self._block_of = (stream_id, flags & ~(PADDED | WITH_PRIORITY), 0)
        elif kind == RST_STREAM:
            self._on_rst_stream(stream_id, payload)
        elif kind == SETTINGS:
            self._on_settings(flags, stream_id, payload)
        elif kind == PING:
            self._on_ping(flags, stream_id, payload)
        elif kind == GOAWAY:
            if stream_id or len(payload) < 8:
                raise _protocol("GOAWAY on a stream, or too short")
            last, code = unpack_u32(payload)[0] & LARGEST_STREAM_ID, unpack_u32(payload, 4)[0]
            self.on_goaway(last, code, payload[8:264].decode("utf-8", "replace"))
        elif kind == PRIORITY:
            self._on_priority(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise _protocol("PUSH_PROMISE, and push is not spoken here")
        elif kind == CONTINUATION:
            raise _protocol("CONTINUATION without HEADERS before it")
        else:
            self._spend("frames of unknown types")

    def _continue(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        assert self._block is not None
        expected, first_flags, frames = self._block_of
        if kind != CONTINUATION or stream_id != expected:
            raise _protocol(f"a frame of type {kind} inside a header block")
        self._block += payload
        self._block_of = (expected, first_flags, frames + 1)
        guard = self.guard
        if frames >= guard.continuations or len(self._block) > 2 * guard.header_list_bytes:
            raise ConnectionFailure(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a header block of {frames + 1} CONTINUATIONs and {len(self._block)} bytes",
            )
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._headers(expected, first_flags, block)

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes")
        self._spend("WINDOW_UPDATE frames")
        increment = unpack_u32(payload)[0] & LARGEST_WINDOW
        if stream_id == 0:
            self.window += increment
            if increment == 0:
                raise _protocol("WINDOW_UPDATE by 0")
            if self.window > LARGEST_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                if self._idle(stream_id):
                    raise _protocol(f"WINDOW_UPDATE on stream {stream_id}, which was never opened")
                return
            stream.window += increment
            if increment == 0 or stream.window > LARGEST_WINDOW:
                code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
                self._fail_stream(StreamFailure(stream_id, code, f"WINDOW_UPDATE by {increment}"))
                return
        if self.blocked and not self.paused:
            self._unblock()

    def _on_rst_stream(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes")
        if self._idle(stream_id):
            raise _protocol(f"RST_STREAM on stream {stream_id}, which was never opened")
        stream = self.streams.get(stream_id)
        if stream is None:
            if not self._under_way(stream_id, _HEADERS_COUNT):
                self._spend("RST_STREAM frames")
            return
        if not self.client and self.premature(stream):
            self._spend_reset()
        self.forget(stream_id)
        self.on_reset(stream, unpack_u32(payload)[0])

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _protocol("SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self._spend("SETTINGS frames")
        if flags & ACK:
            return
        for start in range(0, len(payload), 6):
            self._setting(*unpack_setting(payload, start))
        self.settled = True
        self.send(frame(SETTINGS, ACK, 0))
        self.on_settings()
        if self.blocked and not self.paused:
            self._unblock()

    def _setting(self, key: int, value: int) -> None:
        if key == HEADER_TABLE_SIZE:
            self.encoder.resize(value)
        elif key == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, f"a window of {value}")
            for stream in self.streams.values():
                stream.window += value - self.peer_window
                if stream.window > LARGEST_WINDOW:
                    raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
            self.peer_window = value
        elif key == MAX_FRAME_SIZE:
            if not FRAME_BYTES <= value <= LARGEST_FRAME:
                raise _protocol(f"SETTINGS_MAX_FRAME_SIZE of {value}")
            self.peer_frame = min(value, 4 * FRAME_BYTES)
        elif key == MAX_CONCURRENT_STREAMS:
            self.peer_streams = value
        elif key == ENABLE_PUSH and value > (0 if self.client else 1):
            raise _protocol(f"SETTINGS_ENABLE_PUSH of {value}")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise _protocol("PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 bytes")
        if flags & ACK:
            self.on_pong(payload)
            return
        self._spend("PING frames")
        self.on_ping()
        self.send(frame(PING, ACK, 0, payload))

    def on_ping(self) -> None:
        """The peer pings; it is answered after this."""

    def _on_priority(self, stream_id: int, payload: bytes) -> None:
        self._spend("PRIORITY frames")
        if stream_id == 0:
            raise _protocol("PRIORITY on stream 0")
        if len(payload) != 5:
            self._fail_stream(
                StreamFailure(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
            )
        elif unpack_u32(payload)[0] & LARGEST_STREAM_ID == stream_id:
            self._fail_stream(
                StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "it depends on itself")
            )

    # What the peer may do.

    def _spend(self, what: str) -> None:
        if self.answered != self._answered_counted:
            more = (self.answered - self._answered_counted) * self.guard.updates_per_data
            self._control.add(more)
            self._answered_counted = self.answered
        if not self._control.take():
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")

    def _spend_reset(self) -> None:
        if not self._resets.take():
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many streams reset")

    def _remember(self, stream_id: int, granted: int) -> None:
        """Frames that the peer sent before it heard of the end are ignored."""
        remembered = self._reset
        remembered[stream_id] = granted + 2 * _HEADERS_COUNT
        if len(remembered) > _REMEMBERED:
            del remembered[next(iter(remembered))]

    def _under_way(self, stream_id: int, size: int) -> bool:
        """Whether a frame of a stream given up can have left before the peer heard of that."""
        left = self._reset.get(stream_id, 0) - size
        if left < 0 or size == 0:
            return False
        self._reset[stream_id] = left
        return True


class PingPatience:
    """Whether a client pings more often than a server wants it; grpc's ping strikes.

    Args:
        interval: seconds that it should let pass, unless DATA went out to it.
        strikes: how often it may come earlier.
    """

    __slots__ = ("_answered", "_interval", "_last", "_left", "_strikes")

    def __init__(self, interval: float, strikes: int) -> None:
        self._interval = interval
        self._strikes = self._left = strikes
        self._last = float("-inf")
        self._answered = -1

    def ping(self, answered: int) -> None:
        """A ping came when ``answered`` counts what has gone out.

        Raises:
            ConnectionFailure: ENHANCE_YOUR_CALM, with the word that grpc's clients know.
        """
        now = time.monotonic()
        if answered != self._answered:
            self._answered, self._left = answered, self._strikes
        elif now - self._last < self._interval:
            self._left -= 1
            if self._left < 0:
                raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self._last = now


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise _protocol("more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _protocol(text: str) -> ConnectionFailure:
    return ConnectionFailure(ErrorCode.PROTOCOL_ERROR, text)
