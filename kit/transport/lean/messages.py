"""gRPC messages inside DATA: a flag, a length, the bytes; gzip when the peer asks for it.

Source: PROTOCOL-HTTP2.md, Length-Prefixed-Message.
"""

import zlib
from struct import Struct

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import RpcFailed

PREFIX_BYTES = 5
unpack_prefix = Struct(">BI").unpack_from
pack_prefix = Struct(">BI").pack
_OBJECT_BYTES = 64
_FAST = 1  # a level of zlib
_GZIP = 31  # the window bits of zlib that mean gzip


def weight(message: bytes) -> int:
    """What keeping ``message`` costs, in bytes: small ones are not for nothing."""
    return len(message) + _OBJECT_BYTES


def too_large(size: int, limit: int) -> RpcFailed:
    """A message over the limit, in the words of grpc-go."""
    return RpcFailed(
        GrpcCode.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {limit})"
    )


def unzipped(data: bytes, limit: int) -> bytes:
    """A message that came compressed.

    Raises:
        RpcFailed: RESOURCE_EXHAUSTED, it becomes larger than ``limit``, of which no more than that
            was unpacked; INTERNAL, it is not gzip.
    """
    unzip = zlib.decompressobj(_GZIP)
    try:
        message = unzip.decompress(data, limit + 1)
    except zlib.error as exc:
        raise RpcFailed(
            GrpcCode.INTERNAL, f"grpc: failed to decompress the message: {exc}"
        ) from exc
    if len(message) > limit:
        raise RpcFailed(
            GrpcCode.RESOURCE_EXHAUSTED,
            f"grpc: received message after decompression larger than max {limit}",
        )
    if not unzip.eof:
        raise RpcFailed(GrpcCode.INTERNAL, "grpc: failed to decompress the message: it is cut off")
    return message


def framed(message: bytes, *, gzip: bool) -> bytes:
    """``message`` behind its flag and length; compressed where that makes it smaller.

    Args:
        message: to send.
        gzip: whether the peer was told that messages may be.
    """
    if gzip and len(message) > _OBJECT_BYTES:
        zipper = zlib.compressobj(_FAST, wbits=_GZIP)
        data = zipper.compress(message) + zipper.flush()
        if len(data) < len(message):
            return pack_prefix(1, len(data)) + data
    return pack_prefix(0, len(message)) + message


class Inbox:
    """Collects DATA and gives whole messages.

    Args:
        limit: the largest message, in bytes.
        gzip: whether compressed ones are gzip; otherwise none may be.
    """

    __slots__ = ("_data", "_gzip", "_limit", "_needed", "size")

    def __init__(self, limit: int, *, gzip: bool) -> None:
        self._data = bytearray()
        self._gzip = gzip
        self._limit = limit
        self._needed = PREFIX_BYTES
        self.size = 0  # bytes kept that do not make a message yet

    def feed(self, payload: bytes) -> list[bytes]:
        """Take a part; give the messages that are complete now, still compressed or not.

        Raises:
            RpcFailed: a message is too large, or not what was announced.
        """
        data = self._data
        data += payload
        messages: list[bytes] = []
        start = 0
        while len(data) - start >= self._needed:
            flag, size = unpack_prefix(data, start)
            if size > self._limit:
                raise too_large(size, self._limit)
            if flag > 1 or (flag and not self._gzip):
                raise RpcFailed(
                    GrpcCode.INTERNAL,
                    f"grpc: compressed flag {flag} set with identity or empty encoding",
                )
            end = start + PREFIX_BYTES + size
            if end > len(data):
                self._needed = end - start
                break
            message = bytes(data[start + PREFIX_BYTES : end])
            messages.append(unzipped(message, self._limit) if flag else message)
            start = end
            self._needed = PREFIX_BYTES
        del data[:start]
        self.size = len(data)
        return messages
