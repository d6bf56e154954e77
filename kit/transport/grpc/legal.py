"""Which metadata HTTP/2 can carry; found out before it is sent, where it can still be said.

Source: grpc-go internal/metadata/metadata.go, Validate.
"""

import re
from functools import lru_cache

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import RawMetadata
from kit.transport.grpc.failure import RpcError

_KEY = re.compile(r"[0-9a-z_.\-]+")


@lru_cache(maxsize=1024)
def _legal_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


@lru_cache(maxsize=1024)
def _of_text(key: str) -> bool:
    return _legal_key(key) and not key.endswith("-bin")


def complaint(key: str, value: str | bytes) -> str:
    """What is wrong with a pair; empty when nothing is."""
    if not _legal_key(key):
        return f'header key "{key}" contains illegal characters not in [0-9a-z-_.]'
    if key.endswith("-bin"):
        return "" if isinstance(value, bytes) else f'header key "{key}" needs a value of bytes'
    if not isinstance(value, str):
        return f'header key "{key}" needs a value of text; keys of bytes end in -bin'
    if not (value.isascii() and value.isprintable()):
        return f'header key "{key}" contains value with non-printable ASCII characters'
    return ""


def checked(metadata: RawMetadata) -> RawMetadata:
    """``metadata``, when it can be sent.

    Raises:
        RpcError: INTERNAL; a key or a value is illegal.
    """
    for key, value in metadata:
        if type(value) is str and value.isascii() and value.isprintable() and _of_text(key):
            continue  # nearly every pair
        wrong = complaint(key, value)
        if wrong:
            raise RpcError(GrpcCode.INTERNAL, wrong)
    return metadata


def sendable(metadata: RawMetadata) -> RawMetadata:
    """The legal part of ``metadata``: what goes with a failure must not hide it."""
    return tuple(pair for pair in metadata if not complaint(*pair))
