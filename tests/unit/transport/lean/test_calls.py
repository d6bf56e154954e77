"""What header fields and messages mean to gRPC: PROTOCOL-HTTP2.md."""

import gzip
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import RpcFailed
from kit.transport.lean.calls import (
    Malformed,
    check_trailers,
    metadata_block,
    reply_head,
    request_head,
    reset_failure,
    status_pairs,
    timeout_field,
    timeout_seconds,
)
from kit.transport.lean.client import parse_address
from kit.transport.lean.frames import ErrorCode
from kit.transport.lean.headers import Block, Decoder, Pair, literal
from kit.transport.lean.messages import Inbox, framed, pack_prefix

REQUEST: dict[str, str] = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/s.S/M",
    ":authority": "trans",
    "te": "trailers",
    "content-type": "application/grpc+proto",
}


def block(pairs: dict[str, str] | list[Pair]) -> Block:
    made = Block()
    made.pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    return made


def test_a_request_is_read_once_for_all_calls_that_send_the_same_block() -> None:
    same = block({**REQUEST, "grpc-timeout": "2S", "k": "v", "b-bin": "AAE", "user-agent": "x/1"})
    head = request_head(same)
    assert (head.method, head.timeout, head.gzip, head.failure) == ("/s.S/M", 2.0, False, None)
    assert head.metadata == (("k", "v"), ("b-bin", b"\0\1"), ("user-agent", "x/1"))
    assert request_head(same) is head


@pytest.mark.parametrize(
    "pairs",
    [
        [("k", "v"), *REQUEST.items()],  # pseudo-header fields come first
        [*REQUEST.items(), (":path", "/s.S/N")],
        [(":status", "200"), *REQUEST.items()],
        [(":path", "/a"), *REQUEST.items()],
        [pair for pair in REQUEST.items() if pair[0] != ":path"],
        [pair for pair in REQUEST.items() if pair[0] != ":scheme"],
        [pair for pair in REQUEST.items() if pair[0] != ":method"],
        [*REQUEST.items(), ("Upper", "case")],
        [*REQUEST.items(), ("connection", "close")],
        [*REQUEST.items(), ("transfer-encoding", "chunked")],
        [*REQUEST.items(), ("te", "gzip")],
        [*REQUEST.items(), ("content-length", "-1")],
        [*REQUEST.items(), ("x", "a\r\nb")],
        [*REQUEST.items(), ("x", "a\0b")],
        [*REQUEST.items(), ("", "nameless")],
    ],
)
def test_a_request_that_http2_forbids_is_malformed(pairs: list[Pair]) -> None:
    """RFC 9113 §8.1.1 to §8.3.1."""
    with pytest.raises(Malformed):
        request_head(block(pairs))


def test_trailers_of_a_request_have_no_pseudo_header_fields() -> None:
    check_trailers(block([("x-after", "1")]))
    with pytest.raises(Malformed):
        check_trailers(block([(":path", "/")]))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({":method": "GET"}, "405"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": ""}, "415"),
    ],
)
def test_what_is_no_grpc_is_answered_in_http(change: dict[str, str], status: str) -> None:
    assert request_head(block({**REQUEST, **change})).http_status == status


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"grpc-encoding": "br"}, GrpcCode.UNIMPLEMENTED),
        ({"grpc-timeout": "2 S"}, GrpcCode.INTERNAL),
        ({"grpc-timeout": "123456789S"}, GrpcCode.INTERNAL),
        ({"b-bin": "?"}, GrpcCode.INTERNAL),
    ],
)
def test_a_call_that_cannot_be_understood_fails_with_a_status(
    change: dict[str, str], status: GrpcCode
) -> None:
    failure = request_head(block({**REQUEST, **change})).failure
    assert failure is not None
    assert failure.status is status


def test_metadata_over_the_limit_exhausts_the_resource() -> None:
    large = block(REQUEST)
    large.too_large = True
    failure = request_head(large).failure
    assert failure is not None
    assert failure.status is GrpcCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("pairs", "status", "text"),
    [
        ({":status": "404"}, GrpcCode.UNIMPLEMENTED, "HTTP status 404"),
        ({":status": "503", "content-type": "text/html"}, GrpcCode.UNAVAILABLE, "HTTP status 503"),
        ({":status": "418"}, GrpcCode.UNKNOWN, "HTTP status 418"),
        ({":status": "200", "content-type": "text/html"}, GrpcCode.UNKNOWN, "text/html"),
        (
            {":status": "200", "content-type": "application/grpc", "grpc-encoding": "br"},
            GrpcCode.INTERNAL,
            "br",
        ),
    ],
)
def test_an_answer_that_is_no_grpc_ends_the_call(
    pairs: dict[str, str], status: GrpcCode, text: str
) -> None:
    failure = reply_head(block(pairs)).failure
    assert failure is not None
    assert failure.status is status
    assert text in failure.message


def test_a_status_that_nobody_knows_is_unknown() -> None:
    for code in ("99", "ok", "-1"):
        assert reply_head(block({"grpc-status": code})).status is GrpcCode.UNKNOWN


def test_a_1xx_only_announces_the_answer() -> None:
    assert reply_head(block({":status": "103"})).informational


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(deadline=None)  # the machine may be busy
@given(TEXT)
def test_any_text_survives_as_a_status_message(text: str) -> None:
    pairs = status_pairs(RpcFailed(GrpcCode.ABORTED, text))
    assert all(value.isascii() and value.isprintable() for _, value in pairs)
    head = reply_head(block(pairs))
    assert (head.status, head.message) == (GrpcCode.ABORTED, text)


def test_a_status_message_that_is_badly_encoded_is_still_read() -> None:
    """PROTOCOL-HTTP2.md: decoders must not discard what they cannot read."""
    assert reply_head(block({"grpc-message": "100% %C3%A4 %zz %FF"})).message == "100% ä %zz \ufffd"


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["a", "x-long-name", "user"]), st.text("abc =;%", max_size=9)
            ),
            st.tuples(st.sampled_from(["a-bin", "trace-bin"]), st.binary(max_size=200)),
        ),
        max_size=6,
    )
)
def test_metadata_survives_with_order_and_bytes(metadata: list[tuple[str, Any]]) -> None:
    data = b"".join(literal(*pair) for pair in REQUEST.items()) + metadata_block(metadata)
    assert list(request_head(Decoder(16_384).decode(data)).metadata) == metadata


def test_binary_values_may_be_padded_and_joined_by_commas() -> None:
    assert request_head(block({**REQUEST, "b-bin": "AAE=,Ag"})).metadata == (
        ("b-bin", b"\0\1"),
        ("b-bin", b"\2"),
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.0, "2000m"),
        (1.99901, "2000m"),
        (0.0001, "1m"),
        (-3.0, "1m"),
        (99_999.999, "99999999m"),
        (100_000.0, "100000S"),
        (1e9, "16666667M"),
        (1e12, None),
    ],
)
def test_a_timeout_is_rounded_up_and_fits_8_digits(seconds: float, text: str | None) -> None:
    written = timeout_field(seconds)
    if text is None:
        assert written == b""
        return
    [(name, value)] = Decoder(16_384).decode(written).pairs
    assert (name, value) == ("grpc-timeout", text)
    assert timeout_seconds(value) >= min(seconds, 1e9)


@pytest.mark.parametrize(
    ("code", "status", "unsent"),
    [
        (ErrorCode.REFUSED_STREAM, GrpcCode.UNAVAILABLE, True),
        (ErrorCode.CANCEL, GrpcCode.CANCELLED, False),
        (ErrorCode.ENHANCE_YOUR_CALM, GrpcCode.RESOURCE_EXHAUSTED, False),
        (ErrorCode.PROTOCOL_ERROR, GrpcCode.INTERNAL, False),
        (4711, GrpcCode.INTERNAL, False),
    ],
)
def test_a_reset_stream_is_a_status(code: int, status: GrpcCode, *, unsent: bool) -> None:
    failure = reset_failure(code)
    assert (failure.status, failure.unsent) == (status, unsent)


# Messages.


def message(data: bytes, flag: int = 0) -> bytes:
    return pack_prefix(flag, len(data)) + data


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.binary(max_size=50), max_size=6), st.data())
def test_messages_come_out_whole_however_they_are_cut(messages: list[bytes], data: Any) -> None:
    stream = b"".join(message(one, 0) for one in messages)
    inbox, got = Inbox(50, gzip=False), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += inbox.feed(stream[:cut])
        stream = stream[cut:]
    assert got == messages
    assert inbox.size == 0


def test_compressed_messages_are_unpacked() -> None:
    inbox = Inbox(1_000, gzip=True)
    assert inbox.feed(message(gzip.compress(b"a" * 900), 1) + message(b"plain")) == [
        b"a" * 900,
        b"plain",
    ]


@pytest.mark.parametrize(
    ("data", "packed", "status"),
    [
        (pack_prefix(0, 101), False, GrpcCode.RESOURCE_EXHAUSTED),
        (pack_prefix(0, 2**32 - 1), False, GrpcCode.RESOURCE_EXHAUSTED),
        (message(gzip.compress(bytes(5_000_000))[:90], 1), True, GrpcCode.RESOURCE_EXHAUSTED),
        (message(b"x", 1), False, GrpcCode.INTERNAL),
        (message(b"x", 2), True, GrpcCode.INTERNAL),
        (message(b"no gzip", 1), True, GrpcCode.INTERNAL),
        (message(gzip.compress(b"cut off")[:-9], 1), True, GrpcCode.INTERNAL),
    ],
    # Named, because gzip writes the time into what it makes, and workers must agree on the names.
    ids=["over the limit", "4 GiB", "bomb", "not agreed", "flag 2", "not gzip", "cut off"],
)
def test_a_message_that_is_too_large_or_not_what_it_says_is_refused(
    data: bytes, status: GrpcCode, *, packed: bool
) -> None:
    """A length is refused before its bytes come, a gzip bomb before it is unpacked."""
    with pytest.raises(RpcFailed) as caught:
        Inbox(100, gzip=packed).feed(data)
    assert caught.value.status is status


# Addresses.


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("10.0.0.1:9000", "10.0.0.1", 9000, ""),
        ("trans.example:443", "trans.example", 443, ""),
        ("[::1]:9000", "::1", 9000, ""),
        ("dns:///trans:9000", "trans", 9000, ""),
        ("ipv4:10.0.0.1:9000", "10.0.0.1", 9000, ""),
        ("ipv6:[::1]:9000", "::1", 9000, ""),
        ("unix:/run/kit.sock", "", 0, "/run/kit.sock"),
        ("unix:///run/kit.sock", "", 0, "/run/kit.sock"),
        ("unix-abstract:kit", "", 0, "\0kit"),
    ],
)
def test_addresses_are_understood(text: str, host: str, port: int, path: str) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.path) == (host, port, path)


@pytest.mark.parametrize(
    "text",
    [
        "trans",
        ":9000",
        "trans:0",
        "trans:99999",
        "ipv4:a:1,b:2",
        "vsock:1:2/3",
        "dns://8.8.8.8/a:1",
    ],
)
def test_an_address_of_another_form_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(ValueError, match="take the engine grpcio"):
        parse_address(text)


@pytest.mark.parametrize("message", [b"", b"hi", b"a" * 100_000, bytes(range(256))])
def test_a_message_is_compressed_where_that_makes_it_smaller(message: bytes) -> None:
    """And read back either way."""
    for wanted in (True, False):
        data = framed(message, gzip=wanted)
        assert Inbox(1 << 20, gzip=wanted).feed(data) == [message]
    compressed = framed(message, gzip=True)
    assert compressed[0] == (len(message) > 1_000)
    assert len(compressed) <= len(message) + 5
