"""Frames against ``h2``, and in whatever pieces they come."""

import random

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from kit.transport.lean.connection import Stream
from kit.transport.lean.frames import (
    ACK,
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ErrorCode,
    StreamFailure,
    frame,
    settings,
)
from kit.transport.lean.headers import Block, literal
from tests.unit.transport.lean.ends import REQUEST, Frame, Noting, frames

_ODD_IDS = (1, 3, 5, 9, 0, 2, 2**31 - 1)
_BLOCKS = (REQUEST, REQUEST + literal("x-a", "1", indexed=True), b"\x82\x86")
_BROKEN = (b"\xbe", b"", b"\xff")
_KEYS = (1, 2, 3, 4, 5, 6, 0xBEEF)
_VALUES = (0, 1, 100, 16_384, 65_535, 100_000)
_BAD_VALUES = (2**24, 2**31 - 1, 2**31)
_ANSWERS = (literal(":status", "200"), b"\x88", b"\x88" + literal("grpc-status", "0"))
_UNKNOWN = 0xBE

PERMITTED = {
    ("stream", "dead", PRIORITY): "a stream that depends on itself: RFC 7540 §5.3.1 is ours",
    (
        "stream",
        "dead",
        HEADERS,
    ): "a second header block without END_STREAM: §8.1.1 is ours",
    ("stream", "dead", WINDOW_UPDATE): "an increment of 0 on a stream: RFC 9113 §6.9 is ours",
    ("ok", "dead", WINDOW_UPDATE): "the same on a stream that is closed already",
    ("dead", "stream", CONTINUATION): "one without HEADERS: RFC 9113 §6.10 is ours",
    ("dead", "ok", RST_STREAM): "an idle stream: RFC 9113 §6.4 is ours",
    ("dead", "stream", HEADERS): "HEADERS after END_STREAM; a connection error is allowed, §5.4.1",
    ("dead", "ok", HEADERS): "HEADERS of a stream that h2 still remembers as reset by the client",
    ("dead", "ok", PUSH_PROMISE): "h2 first waits for its CONTINUATION",
}
"""What both answer differently: ours, theirs, the frame; with the reason why ours may stay."""


class Sender:
    """Makes frames, mostly such as make sense after those before."""

    def __init__(self, dice: random.Random, opened: tuple[int, ...] = ()) -> None:
        self._dice = dice
        self._answers = bool(opened)
        self._opened = list(opened)

    def frame(self) -> bytes:
        """The next frame."""
        dice = self._dice
        kinds = (HEADERS, HEADERS, HEADERS, DATA, DATA, DATA, DATA, *range(2, 10), _UNKNOWN)
        kind = dice.choice(kinds)
        while kind in (PUSH_PROMISE, CONTINUATION, GOAWAY) and dice.random() < 0.8:
            kind = dice.choice(kinds)
        if dice.random() < 0.02:
            payload = dice.randbytes(dice.randrange(12))
            return frame(kind, dice.randrange(256), self._stream(), payload)
        if kind == HEADERS:
            return self._headers()
        flags, stream, payload = 0, self._stream(), b""
        match kind:
            case 0x0:
                flags, payload = dice.choice((0, 0, 0, 1, 8, 9)), dice.randbytes(dice.randrange(20))
                payload = self._padded(flags, payload)
            case 0x2:
                payload = dice.choice(_ODD_IDS).to_bytes(4, "big") + b"\x10"
            case 0x3:
                payload = dice.randrange(15).to_bytes(4, "big")
            case 0x4:
                values = _VALUES if dice.random() < 0.97 else _BAD_VALUES
                pairs = {dice.choice(_KEYS): dice.choice(values) for _ in range(dice.randrange(3))}
                return frame(SETTINGS, ACK, 0) if dice.random() < 0.3 else settings(pairs)
            case 0x5:
                flags, payload = 4, bytes(4) + self._block()
            case 0x6:
                stream, flags, payload = 0, dice.choice((0, ACK)), dice.randbytes(8)
            case 0x7:
                stream, payload = 0, bytes(8)
            case 0x8:
                step = dice.choice((1, 1_000, 60_000) if dice.random() < 0.95 else (0, 2**31 - 1))
                payload = step.to_bytes(4, "big")
                stream = dice.choice((0, stream))
            case 0x9:
                flags, payload = dice.choice((0, 4)), self._block()
        return frame(kind, flags, stream, payload)

    def _stream(self) -> int:
        dice = self._dice
        if self._opened and dice.random() < 0.97:
            return dice.choice(self._opened[-4:])
        return dice.choice(_ODD_IDS)

    def _block(self) -> bytes:
        if self._dice.random() < 0.03:
            return self._dice.choice(_BROKEN)
        return self._dice.choice(_ANSWERS if self._answers else _BLOCKS)

    def _headers(self) -> bytes:
        dice = self._dice
        flags = dice.choice((0x4, 0x4, 0x4, 0x5, 0x24, 0x0C, 0x2D))
        stream = self._stream()
        if not self._answers and dice.random() < 0.8:
            stream = max(self._opened, default=-1) + 2
        elif not self._answers:
            flags |= 1
        if stream & 1 and stream not in self._opened and stream < 1_000:
            self._opened.append(stream)
        block = self._block()
        if flags & WITH_PRIORITY:
            block = b"\0\0\0" + bytes((dice.randrange(9), 7)) + block
        block = self._padded(flags, block)
        if dice.random() < 0.1:
            dressed = flags & (PADDED | WITH_PRIORITY)
            cut = len(block) if dressed else dice.randrange(len(block) + 1)
            last = frame(CONTINUATION, 4, stream, block[cut:])
            return frame(HEADERS, flags & ~4, stream, block[:cut]) + last
        return frame(HEADERS, flags, stream, block)

    def _padded(self, flags: int, payload: bytes) -> bytes:
        pad = self._dice.randrange(9)
        return bytes((pad,)) + payload + bytes(pad) if flags & PADDED else payload


class Strict(Noting):
    """With the one rule that is left to those above."""

    def on_headers(self, stream: Stream | None, stream_id: int, block: Block, *, end: bool) -> None:
        if stream is not None and not end and not self.client:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "HEADERS amid a body")
        super().on_headers(stream, stream_id, block, end=end)


class Oracle:
    """``h2`` as a server."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.h2.data_to_send()
        self.heard: list[tuple[object, ...]] = []
        self.bodies: dict[int, bytes] = {}

    def receive(self, data: bytes) -> str:
        """``ok``, ``stream`` when it reset one, ``dead`` when it ended the connection."""
        try:
            events = self.h2.receive_data(data)
        except (h2.exceptions.ProtocolError, ValueError, IndexError):
            return "dead"
        for event in events:
            match event:
                case h2.events.RequestReceived() | h2.events.TrailersReceived():
                    pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers]
                    end = event.stream_ended is not None
                    self.heard.append(("headers", event.stream_id, tuple(pairs), end))
                case h2.events.DataReceived():
                    body = self.bodies.get(event.stream_id, b"")
                    self.bodies[event.stream_id] = body + event.data
                case h2.events.StreamReset() if event.remote_reset:
                    self.heard.append(("reset", event.stream_id))
        return verdict(frames(self.h2.data_to_send() or b""))


def verdict(sent: list[Frame]) -> str:
    """What an endpoint thinks of what it received, by what it answers."""
    kinds = {kind for kind, *_ in sent}
    return "dead" if GOAWAY in kinds else "stream" if RST_STREAM in kinds else "ok"


def against_h2(dice: random.Random) -> int:
    """Frame by frame both accept, reset the stream or end the connection, and hear the same."""
    ours, theirs = Strict(streams=100), Oracle()
    ours.receive(PREFACE + settings({}))
    ours.take()
    assert theirs.receive(PREFACE + settings({})) == "ok"
    sender = Sender(dice)
    for number in range(1, 25):
        data = sender.frame()
        kind, flags = data[3], data[4]
        if kind == HEADERS and flags & PADDED and data[2] and data[2] == 1 + data[9]:
            continue  # padding around an empty block: allowed by §6.2, refused by h2
        their = theirs.receive(data)
        ours.receive(data)
        our = verdict(frames(ours.take())) if ours.out else "ok"
        if our == "ok" and kind == HEADERS and "content-length" in str(ours.heard[-1:]):
            return number  # h2 reads its value; here calls.request_head does
        if our != their and not (kind == GOAWAY and their == "ok"):
            assert (our, their, kind) in PERMITTED, (our, their, frames(data))
        if "ok" not in (our, their) or our != their or kind == GOAWAY:
            return number
        heard = [entry[:2] if entry[0] == "reset" else entry for entry in ours.heard]
        assert [e for e in heard if e[0] in ("headers", "reset")] == theirs.heard
        for stream_id in ours.bodies.keys() | theirs.bodies.keys():
            assert ours.bodies.get(stream_id, b"") == theirs.bodies.get(stream_id, b"")
    return number


def segmented(dice: random.Random) -> int:
    """The same bytes in one piece and in many end in the same, on both roles."""
    client = dice.random() < 0.5
    whole, cut = Noting(client=client, streams=100), Noting(client=client, streams=100)
    for end in (whole, cut) if client else ():
        for _ in range(3):
            end.open()
    sender = Sender(dice, (1, 3, 5) if client else ())
    count = dice.randrange(1, 16)
    parts = [sender.frame() for _ in range(count)]
    data = (b"" if client else PREFACE) + settings({}) + b"".join(parts)
    if dice.random() < 0.2:
        data = data[: dice.randrange(len(data))]
    whole.receive(data)
    while data:
        size = dice.choice((1, 2, 9, dice.randrange(1, 60)))
        cut.receive(data[:size])
        data = data[size:]
    assert cut.heard == whole.heard
    assert cut.bodies == whole.bodies
    assert cut.closed == whole.closed
    assert cut.streams.keys() == whole.streams.keys()
    assert b"".join(cut.out) == b"".join(whole.out)
    return count
