"""What the fields of a gRPC call mean, and how they are written.

Header blocks come back again and again as the same :class:`~kit.transport.lean.headers.Block`, so
what is found in one is kept with it: the functions here run once for many calls.

Source: the gRPC protocol's PROTOCOL-HTTP2.md; RFC 9113 §8.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import RawMetadata, RpcFailed
from kit.transport.lean.frames import ErrorCode
from kit.transport.lean.headers import Block, Pair, literal, plain

CONTENT_TYPE = ("content-type", "application/grpc")
ACCEPT_ENCODING = ("grpc-accept-encoding", "identity,gzip")
ENCODING = ("grpc-encoding", "gzip")
ENCODINGS = frozenset({"identity", "gzip"})

_NAME = re.compile(r"[0-9a-z_.\-!#$%&'*+^`|~]+")
_BAD_VALUE = re.compile(r"[\0\r\n]")
_CONNECTION_FIELDS = frozenset(
    {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_OWN = frozenset(
    {
        "content-type",
        "content-length",
        "te",
        "grpc-timeout",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-status",
        "grpc-message",
        "grpc-message-type",
    }
)
"""Fields of the protocol; everything else is metadata."""
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MESSAGE_SAFE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"


class Malformed(Exception):
    """A header block that HTTP/2 does not allow; its stream ends with PROTOCOL_ERROR."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What opens a call.

    Attributes:
        method: the path, ``/package.Service/Method``.
        timeout: seconds that the client waits, ``None`` for as long as it takes.
        metadata: what the service may see.
        gzip: whether compressed messages are gzip.
        takes_gzip: whether the answer may be.
        length: content-length, when it was given.
        http_status: not 200 when this is no gRPC call at all.
        failure: why the call cannot be served.
    """

    method: str
    timeout: float | None = None
    metadata: RawMetadata = ()
    gzip: bool = False
    length: int | None = None
    http_status: str = "200"
    failure: RpcFailed | None = None
    takes_gzip: bool = False


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """A header block of a server: what opens its answer, ends it, or both.

    Attributes:
        metadata: what the caller may see.
        gzip: whether compressed messages are gzip.
        status: the gRPC status, ``None`` when the block has none.
        message: its message.
        failure: how a call ends whose answer begins with this and is no gRPC.
        informational: a 1xx, which only announces the real one.
    """

    metadata: RawMetadata
    gzip: bool = False
    status: GrpcCode | None = None
    message: str = ""
    failure: RpcFailed | None = None
    informational: bool = False


def request_head(block: Block) -> RequestHead:
    """What ``block`` asks for.

    Raises:
        Malformed: HTTP/2 does not allow it.
    """
    if isinstance(block.meaning, RequestHead):
        return block.meaning
    pseudo, fields = _sorted(block.pairs, (":method", ":scheme", ":path", ":authority"))
    method = pseudo.get(":path", "")
    if block.too_large:
        text = "grpc: received metadata larger than max"
        head = RequestHead(method, failure=RpcFailed(GrpcCode.RESOURCE_EXHAUSTED, text))
    elif not pseudo.get(":method") or not pseudo.get(":scheme") or not method:
        raise Malformed(":method, :scheme or :path is missing")
    else:
        head = _request(pseudo[":method"], method, fields)
    block.meaning = head
    return head


def _request(verb: str, method: str, fields: list[Pair]) -> RequestHead:
    known = {name: value for name, value in fields if name in _OWN}
    if known.get("te", "trailers") != "trailers":
        raise Malformed(f"te is {known['te']!r}")
    length = known.get("content-length")
    if length is not None and not (length.isascii() and length.isdecimal()):
        raise Malformed(f"content-length is {length!r}")
    expected = None if length is None else int(length)
    if verb != "POST":
        return RequestHead(method, length=expected, http_status="405")
    if not known.get("content-type", "").startswith("application/grpc"):
        return RequestHead(method, length=expected, http_status="415")
    failure = None
    timeout = None
    encoding = known.get("grpc-encoding", "identity")
    if encoding not in ENCODINGS:
        text = f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"'
        failure = RpcFailed(GrpcCode.UNIMPLEMENTED, text)
    try:
        if "grpc-timeout" in known:
            timeout = timeout_seconds(known["grpc-timeout"])
        metadata = received_metadata(fields)
    except ValueError as exc:
        return RequestHead(method, length=expected, failure=RpcFailed(GrpcCode.INTERNAL, str(exc)))
    accepted = known.get("grpc-accept-encoding", "").replace(" ", "").split(",")
    return RequestHead(
        method,
        timeout,
        metadata,
        encoding == "gzip",
        expected,
        "200",
        failure,
        "gzip" in accepted,
    )


def reply_head(block: Block) -> ReplyHead:
    """What ``block`` says.

    Raises:
        Malformed: HTTP/2 does not allow it.
    """
    if isinstance(block.meaning, ReplyHead):
        return block.meaning
    pseudo, fields = _sorted(block.pairs, (":status",))
    http = pseudo.get(":status", "200")
    if block.too_large:
        text = "grpc: received metadata larger than max"
        failure = RpcFailed(GrpcCode.RESOURCE_EXHAUSTED, text)
        head = ReplyHead((), failure=failure)
    elif http.startswith("1"):
        head = ReplyHead((), informational=True)
    else:
        head = _reply(http, dict(fields), fields, opens=":status" in pseudo)
    block.meaning = head
    return head


def _reply(http: str, known: dict[str, str], fields: list[Pair], *, opens: bool) -> ReplyHead:
    failure = status = None
    try:
        metadata = received_metadata(fields)
    except ValueError as exc:
        return ReplyHead((), failure=RpcFailed(GrpcCode.INTERNAL, str(exc)))
    encoding = known.get("grpc-encoding", "identity")
    code = known.get("grpc-status")
    if code is not None:
        status = _status(code)
    elif opens and http != "200":
        text = f"grpc: the peer answered HTTP status {http}"
        failure = RpcFailed(_FROM_HTTP.get(http, GrpcCode.UNKNOWN), text)
    elif opens and not known.get("content-type", "").startswith("application/grpc"):
        text = f"grpc: the peer answered content-type {known.get('content-type', '')!r}"
        failure = RpcFailed(GrpcCode.UNKNOWN, text)
    elif encoding not in ENCODINGS:
        text = f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"'
        failure = RpcFailed(GrpcCode.INTERNAL, text)
    message = unquote(known.get("grpc-message", ""), errors="replace")
    return ReplyHead(metadata, encoding == "gzip", status, message, failure)


def _status(code: str) -> GrpcCode:
    try:
        return GrpcCode(int(code))
    except ValueError:
        return GrpcCode.UNKNOWN


def check_trailers(block: Block) -> None:
    """What follows the body of a request may only be plain fields.

    Raises:
        Malformed: it is not.
    """
    _sorted(block.pairs, ())


def _sorted(
    pairs: list[Pair], pseudo_allowed: tuple[str, ...]
) -> tuple[dict[str, str], list[Pair]]:
    """Pseudo-header fields and the others, RFC 9113 §8.2 and §8.3 kept."""
    pseudo: dict[str, str] = {}
    fields: list[Pair] = []
    for name, value in pairs:
        if name[:1] == ":":
            if fields or name in pseudo or name not in pseudo_allowed:
                raise Malformed(f"the field {name} is unknown, repeated or out of place")
            pseudo[name] = value
        else:
            if not _NAME.fullmatch(name) or name in _CONNECTION_FIELDS:
                raise Malformed(f"the field {name!r} is not allowed")
            fields.append((name, value))
        if _BAD_VALUE.search(value):
            raise Malformed(f"the value of {name} is not allowed")
    return pseudo, fields


def received_metadata(fields: Iterable[Pair]) -> RawMetadata:
    """The metadata among ``fields``, in order.

    Raises:
        ValueError: a value that should be base64 is not.
    """
    found: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name in _OWN:
            continue
        if not name.endswith("-bin"):
            found.append((name, value))
            continue
        for part in value.split(","):
            try:
                raw = base64.b64decode(part.strip() + "=" * (-len(part.strip()) % 4), validate=True)
            except binascii.Error as exc:
                raise ValueError(f'grpc: the value of header "{name}" is not base64') from exc
            found.append((name, raw))
    return tuple(found)


def sent_pairs(metadata: RawMetadata) -> list[Pair]:
    """``metadata`` as fields."""
    return [
        (key, value if isinstance(value, str) else base64.b64encode(value).rstrip(b"=").decode())
        for key, value in metadata
    ]


def metadata_block(metadata: RawMetadata) -> bytes:
    """``metadata`` as a piece of a header block."""
    return b"".join(
        [
            plain(
                key,
                value.encode("latin-1")
                if isinstance(value, str)
                else base64.b64encode(value).rstrip(b"="),
            )
            for key, value in metadata
        ]
    )


def status_pairs(failure: RpcFailed) -> list[Pair]:
    """The trailers of a call that failed."""
    pairs = [("grpc-status", str(int(failure.status)))]
    if failure.message:
        pairs.append(("grpc-message", quote(failure.message, safe=_MESSAGE_SAFE)))
    return pairs + sent_pairs(failure.trailers)


def timeout_seconds(text: str) -> float:
    """Read a grpc-timeout.

    Raises:
        ValueError: it is not 1 to 8 digits and a unit.

    >>> timeout_seconds("250m")
    0.25
    """
    digits, unit = text[:-1], text[-1:]
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 8 and unit in _UNITS):
        raise ValueError(f'grpc: malformed grpc-timeout "{text}"')
    return int(digits) * _UNITS[unit]


def timeout_field(seconds: float) -> bytes:
    """A grpc-timeout of ``seconds``, rounded up to milliseconds: most calls then say the same."""
    return _timeout_field(math.ceil(seconds * 1000.0 - 1e-6))


@lru_cache(maxsize=4096)
def _timeout_field(milliseconds: int) -> bytes:
    milliseconds = max(milliseconds, 1)
    for unit, size in (("m", 1), ("S", 1_000), ("M", 60_000), ("H", 3_600_000)):
        value = -(-milliseconds // size)
        if value < 10**8:
            return literal("grpc-timeout", f"{value}{unit}")
    return b""  # longer than 11,000 years


_FROM_HTTP = {
    "400": GrpcCode.INTERNAL,
    "401": GrpcCode.UNAUTHENTICATED,
    "403": GrpcCode.PERMISSION_DENIED,
    "404": GrpcCode.UNIMPLEMENTED,
    "429": GrpcCode.UNAVAILABLE,
    "502": GrpcCode.UNAVAILABLE,
    "503": GrpcCode.UNAVAILABLE,
    "504": GrpcCode.UNAVAILABLE,
}

_FROM_RESET = {
    ErrorCode.REFUSED_STREAM: GrpcCode.UNAVAILABLE,
    ErrorCode.CANCEL: GrpcCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: GrpcCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: GrpcCode.PERMISSION_DENIED,
}


def reset_failure(code: int) -> RpcFailed:
    """How a call ends whose stream the peer reset."""
    name = ErrorCode(code).name if code in ErrorCode._value2member_map_ else str(code)
    status = next((to for of, to in _FROM_RESET.items() if of == code), GrpcCode.INTERNAL)
    return RpcFailed(
        status,
        f"stream terminated by RST_STREAM with error code: {name}",
        unsent=code == ErrorCode.REFUSED_STREAM,
    )
