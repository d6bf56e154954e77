"""HPACK against the examples of RFC 7541 and against the package ``hpack``."""

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.transport.lean.frames import ConnectionFailure, ErrorCode
from kit.transport.lean.headers import (
    TABLE_BYTES,
    Decoder,
    Encoder,
    Pair,
    integer,
    literal,
    plain,
)

LIMIT = 16_384
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=8)

GET: list[Pair] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
]
SECOND: list[Pair] = [*GET, ("cache-control", "no-cache")]
THIRD: list[Pair] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
]
FOUND: list[Pair] = [
    (":status", "302"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
]
FOUND_AGAIN: list[Pair] = [(":status", "307"), *FOUND[1:]]
WITH_COOKIE: list[Pair] = [
    (":status", "200"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
    ("location", "https://www.example.com"),
    ("content-encoding", "gzip"),
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
]


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(
            [
                ("828684410f7777772e6578616d706c652e636f6d", GET),
                ("828684be58086e6f2d6361636865", SECOND),
                ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", THIRD),
            ],
            id="C.3",
        ),
        pytest.param(
            [
                ("828684418cf1e3c2e5f23a6ba0ab90f4ff", GET),
                ("828684be5886a8eb10649cbf", SECOND),
                ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", THIRD),
            ],
            id="C.4",
        ),
        pytest.param(
            [
                (
                    (
                        "3fe101"  # the table of 256 bytes that the example takes for granted
                        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a3133"
                        "3a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d"
                    ),
                    FOUND,
                ),
                ("4803333037c1c0bf", FOUND_AGAIN),
                (
                    (
                        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a"
                        "69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d"
                        "61782d6167653d333630303b2076657273696f6e3d31"
                    ),
                    WITH_COOKIE,
                ),
            ],
            id="C.5",
        ),
        pytest.param(
            [
                (
                    (
                        "3fe101488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
                        "6e919d29ad171863c78f0b97c8e9ae82ae43d3"
                    ),
                    FOUND,
                ),
                ("4883640effc1c0bf", FOUND_AGAIN),
                (
                    (
                        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821d"
                        "d7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b106"
                        "3d5007"
                    ),
                    WITH_COOKIE,
                ),
            ],
            id="C.6",
        ),
    ],
)
def test_the_examples_of_the_rfc_are_read(blocks: list[tuple[str, list[Pair]]]) -> None:
    decoder = Decoder(LIMIT)
    for data, pairs in blocks:
        assert decoder.decode(bytes.fromhex(data)).pairs == pairs


@pytest.mark.parametrize(
    ("value", "most", "data"), [(10, 31, "0a"), (1337, 31, "1f9a0a"), (42, 255, "2a")]
)
def test_numbers_are_written_as_in_appendix_c1(value: int, most: int, data: str) -> None:
    assert integer(value, most, 0).hex() == data


def test_the_same_block_is_the_same_object_until_the_table_changes() -> None:
    """The point of it: from the second one on, a call that looks like another costs a look-up."""
    decoder = Decoder(LIMIT)
    decoder.decode(bytes.fromhex("410f7777772e6578616d706c652e636f6d"))
    decoder.decode(b"\xbe")
    first = decoder.decode(b"\xbe")
    assert decoder.decode(b"\xbe") is first
    decoder.decode(literal("x", "y", indexed=True))
    assert decoder.decode(b"\xbe").pairs == [("x", "y")]
    assert decoder.decode(b"\xbf").pairs == first.pairs


@pytest.mark.parametrize(
    "data",
    [
        "80",  # index 0
        "be",  # an index beyond the tables
        "ff80",  # a number that does not end
        "ffffffffffff7f",  # one that is absurdly long
        "0005616263",  # a name that does not end
        "000161",  # no value
        "8220",  # a table size behind a field
        "3fe21f",  # a table larger than was offered
        "000161" + "81fe",  # padding that is not all ones
        "000161" + "84ffffffff",  # the end-of-string symbol
        "00" + "01",
    ],
)
def test_a_broken_block_is_a_compression_error(data: str) -> None:
    with pytest.raises(ConnectionFailure) as caught:
        Decoder(LIMIT).decode(bytes.fromhex(data))
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_block_over_the_limit_is_marked_and_the_table_stays_right() -> None:
    """One byte a field may stand for 4 KB of it: what is kept is bounded, what is known is not."""
    decoder = Decoder(LIMIT)
    large = ("bomb", "x" * 4000)
    decoder.decode(literal(*large, indexed=True))
    block = decoder.decode(b"\xbe" * 10_000)
    assert block.too_large
    assert len(block.pairs) == LIMIT // (4 + 4000 + 32)
    decoder.decode(b"\xbe" * 100 + literal("a", "b", indexed=True))
    assert decoder.decode(b"\xbe").pairs == [("a", "b")]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(PAIRS, st.booleans()), max_size=12))
def test_what_hpack_writes_is_read(blocks: list[tuple[list[Pair], bool]]) -> None:
    encoder, decoder = hpack.Encoder(), Decoder(LIMIT)
    for number, (pairs, huffman) in enumerate(blocks):
        if number % 3 == 2:
            encoder.header_table_size = 64 * number
        assert decoder.decode(encoder.encode(pairs, huffman=huffman)).pairs == pairs


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(PAIRS, PAIRS), max_size=12), st.lists(st.integers(0, 300), max_size=3))
def test_what_is_written_hpack_reads(
    blocks: list[tuple[list[Pair], list[Pair]]], sizes: list[int]
) -> None:
    """Stable fields first, metadata behind them, and a peer that changes its table's size."""
    encoder, decoder = Encoder(), hpack.Decoder()
    for number, (stable, metadata) in enumerate(blocks):
        if number < len(sizes):
            encoder.resize(sizes[number])
        key = repr(stable)
        for _ in range(3):
            data = encoder.kept.get(key) or encoder.stable(key, stable)
            data += b"".join(plain(name, value.encode()) for name, value in metadata)
            assert [tuple(pair) for pair in decoder.decode(data)] == [*stable, *metadata]


@settings(deadline=None)  # the machine may be busy
@given(PAIRS)
def test_stable_fields_are_a_byte_each_from_the_second_time_on(stable: list[Pair]) -> None:
    encoder = Encoder()
    first = encoder.stable("key", stable)
    assert len(encoder.stable("key", stable)) == len(stable)
    assert len(first) >= len(stable)


def test_the_table_never_holds_more_than_the_peer_grants() -> None:
    """What does not fit is written in full, and nothing is ever pushed out."""
    encoder, decoder = Encoder(), hpack.Decoder()
    for number in range(200):
        stable = [(":path", f"/package.Service/Method{number}"), ("te", "trailers")]
        data = encoder.stable(str(number), stable)
        assert [tuple(pair) for pair in decoder.decode(data)] == stable
    assert decoder.header_table.maxsize == TABLE_BYTES
    assert encoder._used <= TABLE_BYTES


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_hpack_reads_them_or_refused(data: bytes) -> None:
    try:
        pairs = Decoder(LIMIT).decode(data).pairs
    except ConnectionFailure:
        with pytest.raises((hpack.HPACKError, UnicodeDecodeError, ValueError)):
            hpack.Decoder().decode(data)
    else:
        theirs = [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(data, raw=True)]
        assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs] == theirs


def test_what_is_kept_is_bounded() -> None:
    """A peer that never says the same twice makes nobody remember all of it."""
    encoder, decoder = hpack.Encoder(), Decoder(LIMIT)
    for number in range(3000):
        decoder.decode(encoder.encode([(f"x{number}", f"y{number}")], huffman=True))
        decoder.decode(literal(f"x{number}", "y"))
        decoder.decode(literal(f"x{number}", "y"))
    assert len(decoder._kept) <= 64
    assert len(decoder._marks) <= 64
    assert len(decoder._texts) <= 128
    assert decoder._used <= TABLE_BYTES


def test_what_never_comes_again_is_not_kept() -> None:
    """Calls with ids and deadlines: on each of a thousand connections they would add up."""
    decoder = Decoder(LIMIT)
    for number in range(200):
        decoder.decode(literal("dtm-gid", f"gid-{number}") + literal("grpc-timeout", "3S"))
    assert not decoder._kept


def test_what_cannot_be_written_leaves_the_table_as_the_peer_knows_it() -> None:
    encoder, decoder = Encoder(), Decoder(16_384)
    decoder.decode(encoder.stable("a", [("x-a", "1")]))
    with pytest.raises(UnicodeEncodeError):
        encoder.stable("b", [("x-b", "2"), ("x-c", "\u20ac")])
    for key, pairs in (("c", [("x-d", "3")]), ("a", [("x-a", "1")]), ("c", [("x-d", "3")])):
        assert decoder.decode(encoder.stable(key, pairs)).pairs == pairs
