"""HPACK against the package ``hpack``: any blocks, one after another on one connection."""

import random

import hpack

from kit.transport.lean.frames import ConnectionFailure
from kit.transport.lean.headers import Decoder, Encoder, Pair, integer, literal, plain

LIMIT = 16_384
_HUGE = 1 << 20
_TEXTS = ("", "a", "x-kit", "te", "trailers", ":path", "grpc-status", "\xe4\xff", "0" * 130)
_SIZES = (0, 31, 40, 100, 4095, 4096, 4097)
_THEIRS = hpack.Encoder()


def _text(dice: random.Random) -> str:
    if dice.random() < 0.6:
        return dice.choice(_TEXTS)
    return dice.randbytes(dice.randrange(12)).decode("latin-1")


def _string(dice: random.Random) -> bytes:
    raw = _text(dice).encode("latin-1")
    match dice.randrange(5):
        case 0 | 1:
            return integer(len(raw), 0x7F, 0) + raw
        case 2 | 3:
            coded: bytes = _THEIRS.huffman_coder.encode(raw)
            return integer(len(coded), 0x7F, 0x80) + coded
        case _:
            return dice.randbytes(dice.randrange(6))


def _field(dice: random.Random) -> bytes:
    first, most = dice.choice(((0x80, 0x7F), (0x40, 0x3F), (0x40, 0x3F), (0, 0x0F), (0x10, 0x0F)))
    if first == 0x80:
        return integer(dice.randrange(1, dice.choice((62, 62, 62, 63, 64, 70, 140))), most, first)
    if dice.random() < 0.5:
        return integer(dice.randrange(1, dice.choice((62, 62, 63, 70))), most, first) + _string(
            dice
        )
    return bytes((first,)) + _string(dice) + _string(dice)


def block(dice: random.Random) -> bytes:
    """A header block: mostly right, sometimes cut or random."""
    if dice.random() < 0.05:
        return dice.randbytes(dice.randrange(40))
    sizes = dice.choice((0, 0, 0, 1, 2))
    parts = [integer(dice.choice(_SIZES), 0x1F, 0x20) for _ in range(sizes)]
    parts += [_field(dice) for _ in range(dice.randrange(6))]
    data = b"".join(parts)
    return data[: dice.randrange(len(data) + 1)] if dice.random() < 0.05 else data


def read(dice: random.Random) -> int:
    """Both read the same or both refuse; a connection is over with the first refusal."""
    ours, theirs = Decoder(_HUGE), hpack.Decoder(max_header_list_size=_HUGE)
    for number in range(1, 9):
        data = block(dice)
        try:
            found = ours.decode(data)
        except ConnectionFailure as failure:
            try:
                theirs.decode(data, raw=True)
            except (hpack.HPACKError, ValueError, IndexError):
                return number
            # RFC 7541 §4.2 has the size of the table first in a block; hpack takes it anywhere.
            if "a table size of" in failure.text:
                return number
            raise AssertionError(data.hex()) from failure
        told = [(bytes(name), bytes(value)) for name, value in theirs.decode(data, raw=True)]
        assert _encoded(found.pairs) == told, data.hex()
        table = [(bytes(name), bytes(value)) for name, value in theirs.header_table.dynamic_entries]
        assert _encoded(reversed(ours._dynamic)) == table, data.hex()
    return number


def _encoded(pairs: object) -> list[tuple[bytes, bytes]]:
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs]  # type: ignore[attr-defined]


def written(dice: random.Random) -> int:
    """What the writer makes both readers read: stable fields, metadata, trailers."""
    encoder, ours = Encoder(), Decoder(_HUGE)
    theirs = hpack.Decoder(max_header_list_size=_HUGE)
    kinds: list[list[Pair]] = [
        [(_text(dice), _text(dice)) for _ in range(dice.randrange(5))] for _ in range(3)
    ]
    for _ in range(8):
        if dice.random() < 0.1:
            size = dice.choice(_SIZES)
            encoder.resize(size)
        stable = dice.choice(kinds)
        metadata = [(_text(dice), _text(dice)) for _ in range(dice.randrange(3))]
        key = str(kinds.index(stable))
        data = encoder.kept.get(key) or encoder.stable(key, stable)
        data += b"".join(plain(name, value.encode("latin-1")) for name, value in metadata)
        data += b"".join(literal(name, value) for name, value in metadata)
        wanted = [*stable, *metadata, *metadata]
        assert ours.decode(data).pairs == wanted
        told = [(bytes(name), bytes(value)) for name, value in theirs.decode(data, raw=True)]
        assert told == _encoded(wanted)
    return 8
