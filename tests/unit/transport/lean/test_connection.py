"""One HTTP/2 connection without a socket: RFC 9113, and what a peer may not do."""

import random
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from kit.transport.lean.connection import PingPatience
from kit.transport.lean.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
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
    frame,
    goaway,
    pack_header,
    reset,
    settings,
    window_update,
)
from kit.transport.lean.guard import Allowance, Guard
from tests.unit.transport.lean.ends import (
    OPENING,
    REQUEST,
    Noting,
    data_bytes,
    farewell,
    greeted,
    resets,
    taken,
    talk,
)

OPEN = frame(HEADERS, END_HEADERS, 1, REQUEST)
WHOLE = frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST)
ZERO = bytes(4)


def pair() -> tuple[Noting, Noting]:
    """A client and a server that have greeted each other."""
    client, server = Noting(client=True), Noting()
    talk(client, server)
    return client, server


def test_both_ends_greet_and_confirm_each_others_settings() -> None:
    client, server = pair()
    assert client.settled
    assert server.settled
    assert client.peer_streams == 8
    assert server.window == client.guard.connection_window


def test_bytes_may_come_one_by_one() -> None:
    server = Noting()
    for byte in PREFACE + settings({}) + OPEN + frame(DATA, END_STREAM, 1, b"body"):
        server.receive(bytes((byte,)))
    assert server.heard == [("headers", 1, OPENING, False), ("end", 1)]
    assert server.bodies == {1: b"body"}


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x"])
def test_what_is_no_http2_is_told_so(first: bytes) -> None:
    server = Noting()
    server.receive(first)
    assert server.closed
    assert farewell(server) is ErrorCode.PROTOCOL_ERROR


def test_padding_and_priority_are_taken_off() -> None:
    server = greeted()
    dressed = b"\x03" + b"\0\0\0\x05\x10" + REQUEST + bytes(3)
    server.receive(frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, dressed))
    server.receive(frame(DATA, PADDED | END_STREAM, 1, b"\x02body" + bytes(2)))
    assert server.heard[0] == ("headers", 1, OPENING, False)
    assert server.bodies[1] == b"body"


def test_header_blocks_may_be_spread_over_frames_both_ways() -> None:
    client, server = pair()
    large = [("x-large", "v" * 12_000), ("x-larger", "w" * 3_000)]
    server.guard = client.guard
    stream = client.open()
    talk(client, server)
    client.peer_frame = 1_000
    client.send_body(stream, b"", [*large])
    talk(client, server)
    assert server.heard[-1] == ("headers", 1, tuple(large), True)


def test_unknown_frames_settings_and_flags_are_ignored() -> None:
    server = greeted()
    server.receive(
        frame(0xFA, 0xFF, 7, b"?") + settings({0xBEEF: 1}) + frame(PING, 0xF0, 0, ZERO * 2)
    )
    assert not server.closed
    assert [kind for kind, *_ in taken(server)] == [SETTINGS, PING]


def test_a_ping_is_answered_with_its_payload() -> None:
    server = greeted()
    server.receive(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"not mine"))
    assert taken(server) == [(PING, ACK, 0, b"12345678")]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(frame(DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR, id="DATA on 0"),
        pytest.param(frame(DATA, 0, 5, b"x"), ErrorCode.PROTOCOL_ERROR, id="DATA on idle"),
        pytest.param(
            frame(DATA, PADDED, 1, b"\x05abc"), ErrorCode.PROTOCOL_ERROR, id="too much padding"
        ),
        pytest.param(frame(DATA, PADDED, 1, b""), ErrorCode.PROTOCOL_ERROR, id="no padding"),
        pytest.param(
            frame(HEADERS, END_HEADERS, 0, REQUEST), ErrorCode.PROTOCOL_ERROR, id="HEADERS on 0"
        ),
        pytest.param(
            frame(HEADERS, END_HEADERS, 2, REQUEST), ErrorCode.PROTOCOL_ERROR, id="even stream"
        ),
        pytest.param(
            frame(HEADERS, END_HEADERS, 3, b"\x80"), ErrorCode.COMPRESSION_ERROR, id="bad block"
        ),
        pytest.param(
            frame(HEADERS, END_HEADERS | WITH_PRIORITY, 3, ZERO),
            ErrorCode.FRAME_SIZE_ERROR,
            id="short priority",
        ),
        pytest.param(
            frame(HEADERS, 0, 3, REQUEST) + frame(DATA, 0, 1, b"x"),
            ErrorCode.PROTOCOL_ERROR,
            id="DATA inside a block",
        ),
        pytest.param(
            frame(HEADERS, 0, 3, REQUEST) + frame(CONTINUATION, END_HEADERS, 1, b""),
            ErrorCode.PROTOCOL_ERROR,
            id="CONTINUATION of another",
        ),
        pytest.param(
            frame(CONTINUATION, END_HEADERS, 1, b""),
            ErrorCode.PROTOCOL_ERROR,
            id="CONTINUATION of nothing",
        ),
        pytest.param(frame(PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR, id="PRIORITY on 0"),
        pytest.param(reset(0, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR, id="RST on 0"),
        pytest.param(reset(9, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR, id="RST on idle"),
        pytest.param(frame(RST_STREAM, 0, 1, b"x"), ErrorCode.FRAME_SIZE_ERROR, id="short RST"),
        pytest.param(frame(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR, id="SETTINGS on 1"),
        pytest.param(frame(SETTINGS, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR, id="odd SETTINGS"),
        pytest.param(
            frame(SETTINGS, ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR, id="SETTINGS with ACK"
        ),
        pytest.param(settings({ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR, id="ENABLE_PUSH 2"),
        pytest.param(
            settings({INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR, id="window 2^31"
        ),
        pytest.param(
            settings({MAX_FRAME_SIZE: 16_383}), ErrorCode.PROTOCOL_ERROR, id="small frames"
        ),
        pytest.param(settings({MAX_FRAME_SIZE: 2**24}), ErrorCode.PROTOCOL_ERROR, id="huge frames"),
        pytest.param(frame(PUSH_PROMISE, 0, 1, ZERO), ErrorCode.PROTOCOL_ERROR, id="push"),
        pytest.param(frame(PING, 0, 1, ZERO * 2), ErrorCode.PROTOCOL_ERROR, id="PING on 1"),
        pytest.param(frame(PING, 0, 0, ZERO), ErrorCode.FRAME_SIZE_ERROR, id="short PING"),
        pytest.param(frame(GOAWAY, 0, 1, ZERO * 2), ErrorCode.PROTOCOL_ERROR, id="GOAWAY on 1"),
        pytest.param(window_update(0, 0), ErrorCode.PROTOCOL_ERROR, id="window by 0"),
        pytest.param(
            window_update(0, LARGEST_WINDOW), ErrorCode.FLOW_CONTROL_ERROR, id="window too large"
        ),
        pytest.param(window_update(7, 1), ErrorCode.PROTOCOL_ERROR, id="window on idle"),
        pytest.param(
            frame(WINDOW_UPDATE, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR, id="short window"
        ),
        pytest.param(
            pack_header(64, 1, DATA, 0, 1) + bytes(16_385),
            ErrorCode.FRAME_SIZE_ERROR,
            id="oversized frame",
        ),
    ],
)
def test_a_rule_of_the_connection_that_is_broken_ends_it(bad: bytes, code: ErrorCode) -> None:
    server = greeted()
    server.receive(OPEN)
    server.receive(bad)
    assert server.closed
    assert farewell(server) is code
    before = list(server.heard)
    server.receive(frame(DATA, END_STREAM, 1, b"late"))
    assert server.heard == before


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(window_update(1, 0), ErrorCode.PROTOCOL_ERROR, id="window by 0"),
        pytest.param(
            window_update(1, LARGEST_WINDOW), ErrorCode.FLOW_CONTROL_ERROR, id="window too large"
        ),
        pytest.param(frame(PRIORITY, 0, 1, b""), ErrorCode.FRAME_SIZE_ERROR, id="short PRIORITY"),
        pytest.param(
            frame(PRIORITY, 0, 1, b"\0\0\0\x01\0"), ErrorCode.PROTOCOL_ERROR, id="own parent"
        ),
    ],
)
def test_a_rule_of_a_stream_that_is_broken_ends_the_stream(bad: bytes, code: ErrorCode) -> None:
    server = greeted()
    server.receive(OPEN + bad)
    assert not server.closed
    assert resets(taken(server)) == [(1, code)]
    assert server.heard[-1] == ("reset", 1, code)
    server.receive(frame(DATA, 0, 1, b"x") + OPEN)
    assert not server.closed, "what was on its way is ignored"
    assert taken(server) == []


def test_frames_after_the_end_of_a_stream_are_stream_closed() -> None:
    server = greeted()
    server.receive(WHOLE + frame(DATA, 0, 1, b"more"))
    assert resets(taken(server)) == [(1, ErrorCode.STREAM_CLOSED)]
    server = greeted()
    server.receive(WHOLE + WHOLE)
    assert farewell(server) is ErrorCode.STREAM_CLOSED


def test_a_client_takes_neither_push_nor_streams_that_it_did_not_open() -> None:
    client, _ = pair()
    client.receive(frame(HEADERS, END_HEADERS, 2, b"\x88"))
    assert farewell(client) is ErrorCode.PROTOCOL_ERROR
    client, _ = pair()
    client.receive(settings({ENABLE_PUSH: 1}))
    assert farewell(client) is ErrorCode.PROTOCOL_ERROR


def test_a_body_waits_for_both_windows_and_trailers_wait_for_the_body() -> None:
    server = greeted()
    server.receive(settings({INITIAL_WINDOW_SIZE: 10}) + WHOLE)
    server.take()
    stream = server.streams[1]
    assert not server.send_body(stream, bytes(100_000), [("grpc-status", "0")])
    assert data_bytes(taken(server), 1) == 10
    server.receive(window_update(1, 70_000))
    assert data_bytes(taken(server), 1) == 65_535 - 10
    assert server.heard[-1][0] == "headers"
    server.receive(window_update(0, 100_000))
    assert data_bytes(taken(server), 1) == 70_010 - 65_535
    server.receive(window_update(1, 100_000))
    sent = taken(server)
    assert data_bytes(sent, 1) == 100_000 - 70_010
    assert sent[-1][:3] == (HEADERS, END_HEADERS | END_STREAM, 1)
    assert server.heard[-1] == ("drained", 1)


def test_a_smaller_initial_window_may_make_windows_negative() -> None:
    """RFC 9113 §6.9.2."""
    server = greeted()
    server.receive(WHOLE)
    stream = server.streams[1]
    server.send_body(stream, bytes(100), None)
    server.receive(settings({INITIAL_WINDOW_SIZE: 50}))
    assert stream.window == -50
    assert not server.send_body(stream, b"x", None)
    server.take()
    server.receive(window_update(1, 50))
    assert taken(server) == []
    server.receive(window_update(1, 1))
    assert data_bytes(taken(server), 1) == 1


def test_a_stream_that_waits_does_not_hold_up_the_others() -> None:
    server = greeted()
    server.receive(settings({INITIAL_WINDOW_SIZE: 5}) + WHOLE)
    server.receive(frame(HEADERS, END_HEADERS | END_STREAM, 3, REQUEST))
    server.take()
    server.send_body(server.streams[1], bytes(50), ())
    assert server.send_body(server.streams[3], bytes(5), ())
    assert data_bytes(taken(server), 3) == 5


def test_trailers_without_a_body_wait_for_nothing() -> None:
    server = greeted()
    server.receive(settings({INITIAL_WINDOW_SIZE: 0}) + WHOLE)
    server.take()
    server.paused = True
    assert server.send_body(server.streams[1], b"", [("grpc-status", "0")])
    assert [kind for kind, *_ in taken(server)] == [HEADERS]


def test_nothing_goes_out_while_the_socket_is_full() -> None:
    server = greeted()
    server.receive(WHOLE)
    server.take()
    server.paused = True
    assert not server.send_body(server.streams[1], b"body", ())
    server.receive(window_update(0, 1) + settings({INITIAL_WINDOW_SIZE: 70_000}))
    assert data_bytes(taken(server), 1) == 0
    server.resume()
    assert data_bytes(taken(server), 1) == 4


def test_more_data_than_granted_ends_the_stream_or_the_connection() -> None:
    guard = Guard(stream_window=65_535, connection_window=100_000)
    server = greeted(guard=guard)
    server.reads = False
    server.receive(OPEN)
    for _ in range(4):
        server.receive(frame(DATA, 0, 1, bytes(16_384)))
    assert resets(taken(server)) == [(1, ErrorCode.FLOW_CONTROL_ERROR)]


def test_a_window_is_given_back_when_half_of_it_is_used() -> None:
    client, server = pair()
    stream = client.open()
    for _ in range(5):
        client.send_body(stream, bytes(1 << 20), None)
        talk(client, server)
        assert stream.body is None
    client.send_body(stream, bytes(10), ())
    talk(client, server)
    assert len(server.bodies[1]) == 5 * (1 << 20) + 10


def test_a_stream_that_is_not_read_gets_no_more_window() -> None:
    client, server = pair()
    server.reads = False
    stream = client.open()
    assert not client.send_body(stream, bytes(3 << 20), None)
    talk(client, server)
    assert len(server.bodies[1]) == server.guard.stream_window
    assert server.held == server.guard.stream_window
    other = client.open()
    talk(client, server)
    assert client.send_body(other, b"goes through", None)


def test_unread_messages_of_one_connection_are_bounded() -> None:
    guard = Guard(buffered_bytes=100_000)
    server = greeted(guard=guard)
    server.reads = False
    for stream_id in (1, 3, 5):
        server.receive(frame(HEADERS, END_HEADERS, stream_id, REQUEST))
        server.receive(frame(DATA, 0, stream_id, bytes(16_000)) * 3)
    assert resets(taken(server)) == [(5, ErrorCode.ENHANCE_YOUR_CALM)]
    assert server.held == 96_000
    server.receive(reset(1, ErrorCode.CANCEL))
    assert server.held == 48_000


def test_a_peer_without_a_table_gets_no_indexes() -> None:
    """SETTINGS_HEADER_TABLE_SIZE 0, as grpcio's minimal stacks send it."""
    client, server = pair()
    client.open()
    talk(client, server)
    client.receive(settings({HEADER_TABLE_SIZE: 0}))
    client.open()
    client.open()
    talk(client, server)
    assert [pairs for kind, _, pairs, _ in server.heard if kind == "headers"] == [OPENING] * 3


# What a peer may not do, RFC 9113 §10.5.


def test_streams_beyond_the_limit_are_refused() -> None:
    server = greeted(streams=2)
    for stream_id in (1, 3, 5):
        server.receive(frame(HEADERS, END_HEADERS, stream_id, REQUEST))
    assert resets(taken(server)) == [(5, ErrorCode.REFUSED_STREAM)]
    server.receive(reset(1, ErrorCode.CANCEL) + frame(HEADERS, END_HEADERS, 7, REQUEST))
    assert sorted(server.streams) == [3, 7]


def rapid_reset(number: int) -> bytes:
    stream_id = 2 * number + 1
    return frame(HEADERS, END_HEADERS, stream_id, REQUEST) + reset(stream_id, ErrorCode.CANCEL)


def empty_data(number: int) -> bytes:
    return (OPEN if number == 0 else b"") + frame(DATA, 0, 1)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: frame(PING, 0, 0, ZERO * 2),
    "SETTINGS": lambda _: settings({MAX_CONCURRENT_STREAMS: 5}),
    "SETTINGS ACK": lambda _: frame(SETTINGS, ACK, 0),
    "PRIORITY": lambda _: frame(PRIORITY, 0, 9, bytes(5)),
    "WINDOW_UPDATE": lambda _: window_update(0, 1),
    "unknown": lambda _: frame(0xEE, 0, 0),
    "empty DATA": empty_data,
    "DATA after the end": lambda number: (
        WHOLE + reset(1, ErrorCode.CANCEL) if number == 0 else frame(DATA, 0, 1)
    ),
    "rapid reset": rapid_reset,
    "streams that have to be reset": lambda number: (
        frame(HEADERS, END_HEADERS, 2 * number + 1, REQUEST) + window_update(2 * number + 1, 0)
    ),
    "refused streams": lambda number: frame(HEADERS, END_HEADERS, 2 * number + 1, REQUEST),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_the_connection(flood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still: however fast it comes, so much is let through."""
    monkeypatch.setattr("kit.transport.lean.guard.time.monotonic", lambda: 0.0)
    server = greeted(guard=Guard(control_burst=100, resets_burst=100))
    for number in range(220):
        server.receive(FLOODS[flood](number))
        if server.closed:
            break
    assert farewell(server) is ErrorCode.ENHANCE_YOUR_CALM
    assert number >= 90


def test_window_updates_for_data_that_was_sent_are_no_flood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kit.transport.lean.guard.time.monotonic", lambda: 0.0)
    server = greeted(guard=Guard(control_burst=10))
    server.receive(OPEN)
    for _ in range(500):
        server.send_body(server.streams[1], bytes(100), None)
        server.receive(window_update(0, 100) + window_update(1, 100) + frame(PING, 0, 0, ZERO * 2))
    assert not server.closed


def test_what_was_under_way_when_a_stream_was_given_up_is_no_flood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer may fill the window it was granted with small frames, and end the stream."""
    monkeypatch.setattr("kit.transport.lean.guard.time.monotonic", lambda: 0.0)
    client = Noting(client=True, guard=Guard(control_burst=10))
    client.receive(settings({}))
    client.take()
    for _ in range(20):
        stream = client.open()
        client.send_reset(stream.id, ErrorCode.CANCEL)
        answer = frame(HEADERS, END_HEADERS, stream.id, b"\x88")
        end = frame(HEADERS, END_HEADERS | END_STREAM, stream.id, b"\x88")
        client.receive(answer + frame(DATA, 0, stream.id, b"small") * 500 + end)
    assert not client.closed
    assert client.heard == []
    for _ in range(20):  # but no more than the window
        client.receive(frame(DATA, 0, 1, bytes(16_384)) * 64)
    assert farewell(client) is ErrorCode.ENHANCE_YOUR_CALM


def test_headers_on_a_stream_given_up_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.transport.lean.guard.time.monotonic", lambda: 0.0)
    server = greeted(guard=Guard(control_burst=10))
    server.receive(OPEN)
    server.send_reset(1, ErrorCode.NO_ERROR)
    for _ in range(100):
        server.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST))
    assert farewell(server) is ErrorCode.ENHANCE_YOUR_CALM


def test_an_allowance_comes_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("kit.transport.lean.guard.time.monotonic", lambda: now)
    allowance = Allowance(3, 2.0)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now = 102.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("payload", [b"", bytes(4_000)])
def test_a_header_block_that_does_not_end_ends_the_connection(payload: bytes) -> None:
    """The CONTINUATION flood, of empty frames and of full ones."""
    server = greeted()
    server.receive(frame(HEADERS, 0, 1, REQUEST))
    for _ in range(17):
        server.receive(frame(CONTINUATION, 0, 1, payload))
    assert farewell(server) is ErrorCode.ENHANCE_YOUR_CALM
    assert server.heard == []


def test_pings_that_come_too_often_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's strikes: three early ones, unless DATA went out between them."""
    now = 0.0
    monkeypatch.setattr("kit.transport.lean.connection.time.monotonic", lambda: now)
    patience = PingPatience(5.0, strikes=2)
    for _ in range(10):
        patience.ping(0)
        now += 5.0
    for sent in range(1, 10):
        patience.ping(sent)
    patience.ping(9)
    patience.ping(9)
    with pytest.raises(ConnectionFailure, match="too_many_pings"):
        patience.ping(9)


def test_goaway_is_heard_with_its_reason() -> None:
    client, _ = pair()
    client.receive(goaway(7, ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings"))
    assert client.heard == [("goaway", 7, ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")]


# Against h2.


def test_a_client_of_h2_and_this_server_understand_each_other() -> None:
    """Random calls with random windows and frame sizes; every body arrives, both ways."""
    dice = random.Random(7)
    for _ in range(30):
        theirs = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        theirs.initiate_connection()
        theirs.update_settings(
            {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: dice.randrange(90_000)}
        )
        ours = Noting(streams=100)
        wanted: dict[int, tuple[bytes, bytes]] = {}
        answers: dict[int, bytes] = {}
        for stream_id in range(1, 2 * dice.randrange(2, 8), 2):
            body = dice.randbytes(dice.choice((0, 1, 1_000, 60_000)))
            wanted[stream_id] = (body, dice.randbytes(dice.choice((0, 5, 20_000, 200_000))))
            padding = dice.choice((None, 0, 9))
            theirs.send_headers(stream_id, [*OPENING, ("x-id", str(stream_id))])
            while len(body) > 16_000:
                if theirs.local_flow_control_window(stream_id) < 16_020:
                    exchange(theirs, ours, answers)
                theirs.send_data(stream_id, body[:16_000], pad_length=padding)
                body = body[16_000:]
            theirs.send_data(stream_id, body, end_stream=True)
        exchange(theirs, ours, answers)
        for stream_id, (body, answer) in wanted.items():
            assert ours.bodies[stream_id] == body
            assert ("headers", stream_id, (*OPENING, ("x-id", str(stream_id))), False) in ours.heard
            ours.send_block(stream_id, ours.encoder.stable("ok", [(":status", "200")]))
            ours.send_body(ours.streams[stream_id], answer, [("grpc-status", "0")])
        for _ in range(60):
            exchange(theirs, ours, answers)
            for stream_id in list(ours.blocked):
                theirs.increment_flow_control_window(20_000)
                theirs.increment_flow_control_window(20_000, stream_id)
        assert answers == {stream_id: answer for stream_id, (_, answer) in wanted.items()}


def exchange(theirs: h2.connection.H2Connection, ours: Noting, answers: dict[int, bytes]) -> None:
    """Carry bytes between ``h2`` and the kit until both are silent."""
    while (data := theirs.data_to_send()) or ours.out:
        ours.receive(data)
        assert not ours.closed
        if not ours.out:
            continue
        for event in theirs.receive_data(ours.take()):
            if isinstance(event, h2.events.DataReceived):
                answers[event.stream_id] = answers.get(event.stream_id, b"") + event.data
            elif isinstance(event, h2.events.ResponseReceived):
                answers.setdefault(event.stream_id, b"")


def test_random_bytes_end_in_a_goaway_and_never_in_an_exception() -> None:
    """Whole frames of random types, flags, streams and payloads, after a right beginning."""
    dice = random.Random(3)
    for _ in range(2_000):
        server = greeted()
        server.receive(OPEN)
        for _ in range(dice.randrange(1, 8)):
            payload = dice.randbytes(dice.choice((0, 4, 5, 6, 8, dice.randrange(40))))
            server.receive(
                frame(dice.randrange(11), dice.randrange(256), dice.randrange(6), payload)
            )
        if server.closed:
            assert farewell(server) not in (None, ErrorCode.NO_ERROR)
