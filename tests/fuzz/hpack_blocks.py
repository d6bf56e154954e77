"""HPACK against the package ``hpack``: any blocks, one after another on one connection."""

import hpack
from hypothesis import strategies as st

from kit.transport.lean.frames import ConnectionFailure
from kit.transport.lean.headers import Decoder, Encoder, Pair, integer, literal, plain

LIMIT = 16_384

_TEXTS = st.one_of(
    st.sampled_from(["", "a", "x-kit", "te", "trailers", ":path", "grpc-status", "0" * 130]),
    st.text(st.characters(max_codepoint=255), max_size=12),
)
_THEIRS = hpack.Encoder()


def _huffman(text: str) -> bytes:
    coded: bytes = _THEIRS.huffman_coder.encode(text.encode("latin-1"))
    return integer(len(coded), 0x7F, 0x80) + coded


def _plain(text: str) -> bytes:
    return integer(len(text), 0x7F, 0) + text.encode("latin-1")


_STRING = st.one_of(_TEXTS.map(_plain), _TEXTS.map(_huffman), st.binary(max_size=6))
_FIELD = st.one_of(
    st.integers(0, 140).map(lambda index: integer(index, 0x7F, 0x80)),
    st.tuples(
        st.sampled_from([(0x40, 0x3F), (0, 0x0F), (0x10, 0x0F)]), st.integers(0, 70), _STRING
    ).map(lambda t: integer(t[1] or 1, t[0][1], t[0][0]) + t[2]),
    st.tuples(st.sampled_from([b"\x40", b"\0", b"\x10"]), _STRING, _STRING).map(b"".join),
)
_SIZE = st.sampled_from([0, 31, 40, 100, 4095, 4096]).map(lambda size: integer(size, 0x1F, 0x20))
_BLOCK = st.one_of(
    st.tuples(
        st.lists(_SIZE, max_size=2).map(b"".join), st.lists(_FIELD, max_size=6).map(b"".join)
    ).map(b"".join),
    st.binary(max_size=40),
)
BLOCKS = st.lists(_BLOCK, min_size=1, max_size=6)


def read(blocks: list[bytes]) -> None:
    """Both read the same or both refuse; after a refusal a connection is over."""
    ours, theirs = Decoder(LIMIT), hpack.Decoder(max_header_list_size=1 << 20)
    for block in blocks:
        try:
            found = ours.decode(block)
        except ConnectionFailure:
            try:
                pairs = theirs.decode(block, raw=True)
            except (hpack.HPACKError, ValueError, IndexError):
                return
            assert _size_amid(block), (block.hex(), pairs)
            return
        pairs = theirs.decode(block, raw=True)
        assert not found.too_large
        told = [(bytes(name), bytes(value)) for name, value in pairs]
        assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in found.pairs] == told
        table = [(bytes(n), bytes(v)) for n, v in reversed(theirs.header_table.dynamic_entries)]
        assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in ours._dynamic] == table
        assert ours._used == theirs.header_table._current_size <= 4096


def _size_amid(block: bytes) -> bool:
    """What ``hpack`` takes and RFC 7541 §4.2 forbids: a size of the table behind a field."""
    return any(byte & 0xE0 == 0x20 for byte in block[1:])


_PAIRS = st.lists(st.tuples(_TEXTS, _TEXTS), max_size=5)
WRITES = st.lists(st.tuples(_PAIRS, _PAIRS, st.integers(0, 5000)), min_size=1, max_size=8)


def written(writes: list[tuple[list[Pair], list[Pair], int]]) -> None:
    """What the writer makes, both readers read: stable fields, metadata, trailers."""
    encoder, theirs, ours = Encoder(), hpack.Decoder(max_header_list_size=1 << 20), Decoder(1 << 20)
    for stable, metadata, size in writes:
        if size % 7 == 0:
            encoder.resize(size)
        key = repr(stable)
        block = encoder.kept.get(key) or encoder.stable(key, stable)
        block += b"".join(plain(name, value.encode("latin-1")) for name, value in metadata)
        block += b"".join(literal(name, value) for name, value in metadata)
        wanted = [*stable, *metadata, *metadata]
        assert ours.decode(block).pairs == wanted
        told = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
        assert told == [(n.encode("latin-1"), v.encode("latin-1")) for n, v in wanted]
