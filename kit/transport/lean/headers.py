"""HPACK: header blocks to pairs and back.

The reader knows all of it. A block it has read before means the same for as long as the dynamic
table has not changed, and calls of one kind send the same block again and again: such blocks are
looked up, not read.

The writer keeps to what is quickest to write: fields that never change on a connection go into the
dynamic table once and are one byte from then on, all others are literals that nobody has to keep
(which also leaves nothing to guess for those who can watch the size of a block). It does not use
Huffman's code, which would cost more time than the bytes it saves are worth between services.

Source: RFC 7541. The tables, and the decoding of Huffman's code, are those of ``hpack``.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from kit.transport.lean.frames import ConnectionFailure, ErrorCode

Pair: TypeAlias = tuple[str, str]

TABLE_BYTES = 4096
"""What each side's table may hold: the default of HTTP/2, never raised here."""
_OVERHEAD = 32  # what a field counts beyond its text, §4.1
_STATIC: list[Pair] = [("", "")] + [
    (name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE
]
_FIRST_DYNAMIC = len(_STATIC)
_STATIC_PAIRS = {pair: index for index, pair in reversed(list(enumerate(_STATIC)))}
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC)))}
_MOST_INDEXED = 60  # an index of one byte: 61 of the static table and these stay below 127
_BLOCKS_KEPT = 64
_BLOCKS_MARKED = 64
_LONGEST_BLOCK_KEPT = 512
_TEXTS_KEPT = 128
_LONGEST_TEXT_KEPT = 128


class Block:
    """A header block that was read.

    Attributes:
        pairs: its fields in order.
        too_large: it held more than the limit; ``pairs`` has only the first of them.
        meaning: for whoever reads it, to keep what it found in the fields.
    """

    __slots__ = ("meaning", "pairs", "too_large")

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.too_large = False
        self.meaning: object = None


class Decoder:
    """Reads the header blocks of one connection; every block has to pass it, in order.

    Args:
        list_bytes: what one block may hold, counted as SETTINGS_MAX_HEADER_LIST_SIZE does.
    """

    __slots__ = ("_dynamic", "_kept", "_limit", "_list_bytes", "_marks", "_texts", "_used")

    def __init__(self, list_bytes: int) -> None:
        self._list_bytes = list_bytes
        self._dynamic: list[Pair] = []  # newest last
        self._used = 0
        self._limit = TABLE_BYTES
        self._kept: dict[bytes, Block] = {}
        self._marks: set[int] = set()
        self._texts: dict[bytes, str] = {}

    def decode(self, data: bytes) -> Block:
        """The fields of ``data``.

        Raises:
            ConnectionFailure: COMPRESSION_ERROR; the block is broken.
        """
        kept = self._kept.get(data)
        if kept is not None:
            return kept
        block = Block()
        try:
            changed = self._read(data, block)
        except IndexError:
            raise _broken("the block ends inside a field or names one that is not there") from None
        if changed:
            self._kept.clear()
        elif len(data) <= _LONGEST_BLOCK_KEPT:
            self._keep(data, block)
        return block

    def _keep(self, data: bytes, block: Block) -> None:
        """Keep a block that comes for the second time: with an id or a deadline in it none does."""
        mark = hash(data)
        if mark not in self._marks:
            if len(self._marks) >= _BLOCKS_MARKED:
                self._marks.clear()
            self._marks.add(mark)
            return
        if len(self._kept) >= _BLOCKS_KEPT:
            self._kept.clear()
        self._kept[data] = block

    def _read(self, data: bytes, block: Block) -> bool:
        """Fill ``block``; tell whether the dynamic table changed."""
        pairs, dynamic = block.pairs, self._dynamic
        room = self._list_bytes
        position, end = 0, len(data)
        changed = fields_begun = False
        while position < end:
            first = data[position]
            if first & 0x80:  # a whole field out of a table
                index, position = _integer(data, position, 0x7F)
                pair = self._at(index)
            elif first & 0xE0 == 0x20:  # the table's new size
                size, position = _integer(data, position, 0x1F)
                if fields_begun or size > TABLE_BYTES:
                    raise _broken(f"a table size of {size} where or as none is allowed")
                self._limit = size
                self._evict()
                changed = True
                continue
            else:
                keep = first & 0x40
                index, position = _integer(data, position, 0x3F if keep else 0x0F)
                if index:
                    name = self._at(index)[0]
                else:
                    name, position = self._text(data, position)
                value, position = self._text(data, position)
                pair = (name, value)
                if keep:
                    dynamic.append(pair)
                    self._used += len(name) + len(value) + _OVERHEAD
                    self._evict()
                    changed = True
            fields_begun = True
            room -= len(pair[0]) + len(pair[1]) + _OVERHEAD
            if room < 0:
                block.too_large = True  # read on: the table has to follow the peer's
            else:
                pairs.append(pair)
        return changed

    def _at(self, index: int) -> Pair:
        if 0 < index < _FIRST_DYNAMIC:
            return _STATIC[index]
        place = len(self._dynamic) + _FIRST_DYNAMIC - 1 - index
        if index == 0 or place < 0:
            raise _broken(f"no field has the index {index}")
        return self._dynamic[place]

    def _evict(self) -> None:
        gone = 0
        while self._used > self._limit:
            name, value = self._dynamic[gone]
            self._used -= len(name) + len(value) + _OVERHEAD
            gone += 1
        del self._dynamic[:gone]

    def _text(self, data: bytes, position: int) -> tuple[str, int]:
        huffman = data[position] & 0x80
        size, position = _integer(data, position, 0x7F)
        end = position + size
        if end > len(data):
            raise _broken("the block ends inside a text")
        raw = data[position:end]
        if not huffman:
            return raw.decode("latin-1"), end
        text = self._texts.get(raw)
        if text is None:
            try:
                text = decode_huffman(raw).decode("latin-1")
            except HPACKDecodingError as exc:
                raise _broken("a text is not in Huffman's code") from exc
            if size <= _LONGEST_TEXT_KEPT:
                if len(self._texts) >= _TEXTS_KEPT:
                    self._texts.clear()
                self._texts[raw] = text
        return text, end


def _integer(data: bytes, position: int, most: int) -> tuple[int, int]:
    """The number that starts in the lower bits of a byte, and where it ends; §5.1."""
    value = data[position] & most
    position += 1
    if value < most:
        return value, position
    shift = 0
    while True:
        byte = data[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 28:
            raise _broken("a number is longer than any that makes sense")


def _broken(text: str) -> ConnectionFailure:
    return ConnectionFailure(ErrorCode.COMPRESSION_ERROR, text)


class Encoder:
    """Writes the header blocks of one connection; they have to be sent in the order written."""

    __slots__ = ("_announce", "_dynamic", "_limit", "_used", "kept")

    def __init__(self) -> None:
        self._dynamic: list[Pair] = []  # newest last; nothing is ever evicted
        self._used = 0
        self._limit = TABLE_BYTES
        self._announce = b""
        self.kept: dict[str, bytes] = {}

    def resize(self, limit: int) -> None:
        """Keep to the table that the peer grants, in bytes: SETTINGS_HEADER_TABLE_SIZE."""
        limit = min(limit, TABLE_BYTES)
        if limit == self._limit:
            return
        # Down to nothing and up again: both sides begin anew, and no index has to be thought over.
        self._announce = integer(0, 0x1F, 0x20) + integer(limit, 0x1F, 0x20)
        self._limit = limit
        self._dynamic.clear()
        self._used = 0
        self.kept.clear()

    def stable(self, key: str, pairs: Iterable[Pair]) -> bytes:
        """Fields that never change under ``key``; look them up in :attr:`kept` before.

        The first block of its kind brings its fields into the peer's table, later ones point there:
        a block that was made has to be sent.

        Raises:
            UnicodeEncodeError: a field is not of Latin-1; nothing has changed.
        """
        pairs = list(pairs)
        for pair in pairs:
            "".join(pair).encode("latin-1")
        parts = [self._announce]
        for pair in pairs:
            index = _STATIC_PAIRS.get(pair) or self._index(pair)
            parts.append(integer(index, 0x7F, 0x80) if index else self._add(pair))
        block = b"".join(parts)
        changed = self._announce or any(part[0] & 0xC0 == 0x40 for part in parts if part)
        self._announce = b""
        if not changed and len(self.kept) < _BLOCKS_KEPT:
            self.kept[key] = block
        return block

    def _index(self, pair: Pair) -> int:
        try:
            return _FIRST_DYNAMIC + len(self._dynamic) - 1 - self._dynamic.index(pair)
        except ValueError:
            return 0

    def _add(self, pair: Pair) -> bytes:
        size = len(pair[0]) + len(pair[1]) + _OVERHEAD
        if self._used + size > self._limit or len(self._dynamic) >= _MOST_INDEXED:
            return literal(*pair)
        self._used += size
        self._dynamic.append(pair)
        self.kept.clear()  # every index has moved by one
        return literal(*pair, indexed=True)


def literal(name: str, value: str, *, indexed: bool = False) -> bytes:
    """A field in full, which the peer puts into its table when ``indexed``."""
    return _start(name, indexed) + text_field(value.encode("latin-1"))


def plain(name: str, value: bytes) -> bytes:
    """A field that nobody keeps; the quickest way to write metadata."""
    size = len(value)
    if size < 0x7F:
        return _start(name, False) + _SIZES[size] + value
    return _start(name, False) + integer(size, 0x7F, 0) + value


@lru_cache(maxsize=1024)
def _start(name: str, indexed: bool) -> bytes:
    """All of a field but its value."""
    first, most = (0x40, 0x3F) if indexed else (0x00, 0x0F)
    index = _STATIC_NAMES.get(name, 0)
    start = integer(index, most, first)
    return start if index else start + text_field(name.encode("latin-1"))


def text_field(raw: bytes) -> bytes:
    """A text as it is, behind its length."""
    return integer(len(raw), 0x7F, 0) + raw


def integer(value: int, most: int, first: int) -> bytes:
    """``value`` in the lower bits of ``first``, and more bytes when they do not suffice; §5.1."""
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SIZES = [bytes((size,)) for size in range(0x7F)]
