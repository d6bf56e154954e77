"""gRPC messages as JSON: what kratos clients send that ask for the content-subtype ``json``.

The form is the protobuf mapping, every field written and unknown ones skipped. A request is known
by how it begins: ``{`` would be the start of group 15, which no message of proto3 has, and grpcio
does not tell the content type. Answers therefore say ``application/grpc`` whatever their form; a
Go client reads them by what it asked for.

Source: go-kratos/kratos transport/grpc/codec.go.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from kit.encoding import CodecError, families
from kit.encoding.json import JsonCodec

_codec = JsonCodec()


def kind_of(decode: Callable[[bytes], Any] | None) -> type[Message] | None:
    """The class whose ``FromString`` is ``decode``; ``None`` for messages of another package."""
    kind = getattr(decode, "__self__", None)
    return kind if families.is_google(kind) else None


def read(data: bytes, kind: type[Message]) -> Any:
    """The message of ``kind`` in ``data``; ``None`` when it is not JSON of one."""
    try:
        return _codec.decode(data, kind)
    except CodecError:
        return None


def written(message: Message) -> bytes:
    """``message`` as JSON."""
    return _codec.encode(message)
