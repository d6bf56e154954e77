"""The bytes of HTTP/2 frames: types, flags, error codes, settings, and how they are written.

Source: RFC 9113 §4, §6, §7.
"""

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
LARGEST_STREAM_ID = 2**31 - 1
FRAME_BYTES = 16_384
"""The payload every peer has to take (§4.2); the largest one that this side takes as well."""
LARGEST_FRAME = 2**24 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

unpack_header = Struct(">HBBBI").unpack_from
pack_header = Struct(">HBBBI").pack
"""Length (its upper 16 bits, its lower 8), type, flags, stream."""
unpack_u32 = Struct(">I").unpack_from
unpack_setting = Struct(">HI").unpack_from
_pack_setting = Struct(">HI").pack
_pack_goaway = Struct(">II").pack


class ErrorCode(IntEnum):
    """Why a stream or a connection ends; RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFailure(Exception):
    """The peer broke a rule, and the connection cannot go on.

    Args:
        code: what the GOAWAY says.
        text: the same for people; travels as the GOAWAY's debug data.
    """

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text


class StreamFailure(Exception):
    """The peer broke a rule that concerns one stream; RST_STREAM says so."""

    def __init__(self, stream_id: int, code: ErrorCode, text: str) -> None:
        super().__init__(f"{code.name} on stream {stream_id}: {text}")
        self.stream_id = stream_id
        self.code = code


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return pack_header(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_pack_setting(*pair) for pair in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def reset(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last_stream_id: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, _pack_goaway(last_stream_id, code) + text.encode())


def header_frames(stream_id: int, block: bytes, *, end: bool, largest: int) -> bytes:
    """HEADERS and, when ``block`` is longer than ``largest``, its CONTINUATION frames."""
    flags = END_STREAM if end else 0
    if len(block) <= largest:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [frame(HEADERS, flags, stream_id, block[:largest])]
    for start in range(largest, len(block), largest):
        last = END_HEADERS if start + largest >= len(block) else 0
        parts.append(frame(CONTINUATION, last, stream_id, block[start : start + largest]))
    return b"".join(parts)
