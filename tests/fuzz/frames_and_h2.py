"""Frames against ``h2``, in whatever pieces they come."""

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hypothesis import strategies as st

from kit.transport.lean.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    settings,
)
from kit.transport.lean.headers import literal
from tests.unit.transport.lean.ends import REQUEST, Frame, Noting, frames

_IDS = st.sampled_from([1, 1, 1, 1, 3, 3, 3, 5, 5, 7, 9, 0, 2, 2**31 - 1])
_BLOCK = st.sampled_from(
    [
        REQUEST,
        REQUEST,
        REQUEST + literal("x-a", "1", indexed=True),
        b"\x82\x86",
        b"\xbe",
        b"",
        b"\xff",
    ]
)
_PADDING = st.integers(0, 9)


def _headers(t: tuple[int, int, bytes, int]) -> bytes:
    stream, flags, block, pad = t
    if flags & WITH_PRIORITY:
        block = b"\0\0\0" + bytes((pad, 7)) + block
    if flags & PADDED:
        block = bytes((pad,)) + block + bytes(pad)
    return frame(HEADERS, flags, stream, block)


def _data(t: tuple[int, int, bytes, int]) -> bytes:
    stream, flags, body, pad = t
    if flags & PADDED:
        body = bytes((pad,)) + body + bytes(pad)
    return frame(DATA, flags, stream, body)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


_BODY = st.binary(max_size=20)
_SETTING = st.tuples(
    st.sampled_from([1, 2, 3, 4, 5, 6, 0xBEEF]),
    st.sampled_from([0, 1, 100, 16_384, 65_535, 100_000, 2**24 - 1, 2**31 - 1, 2**31]),
)
_GOOD = st.one_of(
    st.tuples(
        _IDS,
        st.sampled_from([0x4, 0x4, 0x4, 0x5, 0x5, 0x24, 0x0C, 0x2D, 0x0, 0x1]),
        _BLOCK,
        _PADDING,
    ).map(_headers),
    st.tuples(_IDS, st.sampled_from([0, 0, 1, 8, 9]), _BODY, _PADDING).map(_data),
    st.tuples(_IDS, st.sampled_from([0, 4]), _BLOCK).map(
        lambda t: frame(CONTINUATION, t[1], *t[::2])
    ),
    st.tuples(_IDS, st.integers(0, 14)).map(lambda t: frame(RST_STREAM, 0, t[0], _u32(t[1]))),
    st.tuples(_IDS, st.sampled_from([0, 1, 1000, 2**31 - 1])).map(
        lambda t: frame(WINDOW_UPDATE, 0, t[0], _u32(t[1]))
    ),
    st.lists(_SETTING, max_size=2).map(lambda pairs: settings(dict(pairs))),
    st.sampled_from(
        [frame(SETTINGS, ACK, 0), frame(PING, 0, 0, bytes(8)), frame(PING, ACK, 0, bytes(8))]
    ),
    st.tuples(_IDS, _IDS).map(lambda t: frame(PRIORITY, 0, t[0], _u32(t[1]) + b"\x10")),
)
_ANY = st.tuples(
    st.sampled_from(
        [DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY]
        + [WINDOW_UPDATE, CONTINUATION, 10, 200]
    ),
    st.integers(0, 255),
    _IDS,
    st.binary(max_size=12),
).map(lambda t: frame(*t))
FRAMES = st.lists(st.one_of(_GOOD, _GOOD, _GOOD, _GOOD, _ANY), min_size=1, max_size=12)


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
                    pairs = tuple(
                        (n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers
                    )
                    self.heard.append(
                        ("headers", event.stream_id, pairs, event.stream_ended is not None)
                    )
                case h2.events.DataReceived():
                    body = self.bodies.get(event.stream_id, b"")
                    self.bodies[event.stream_id] = body + event.data
                case h2.events.StreamReset() if event.remote_reset:
                    self.heard.append(("reset", event.stream_id))
        return verdict(frames(self.h2.data_to_send() or b""))


def verdict(sent: list[Frame]) -> str:
    kinds = {kind for kind, *_ in sent}
    return "dead" if GOAWAY in kinds else "stream" if RST_STREAM in kinds else "ok"


def against_h2(sent: list[bytes]) -> None:
    """Frame by frame both accept, reset the stream, or end the connection, and hear the same."""
    ours, theirs = Noting(streams=100), Oracle()
    hello = PREFACE + settings({})
    ours.receive(hello)
    ours.take()
    assert theirs.receive(hello) == "ok"
    for data in sent:
        their = theirs.receive(data)
        ours.receive(data)
        our = verdict(frames(ours.take())) if ours.out else "ok"
        if our != their:
            raise AssertionError((our, their, frames(data)))
        if our != "ok":
            return
        heard = [
            entry[:2] if entry[0] == "reset" else entry for entry in ours.heard if entry[0] != "end"
        ]
        assert [e for e in heard if e[0] in ("headers", "reset")] == theirs.heard
        assert {k: v for k, v in ours.bodies.items() if v} == {
            k: v for k, v in theirs.bodies.items() if v
        }
