"""What a handler may answer in place of a message, and how errors and replies look.

Source: go-kratos/kratos transport/http/codec.go, redirect.go; errors/errors.proto.
"""

import html
import json
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from kit.encoding import Codec
from kit.errors import Error

JSON_CODECS = frozenset({"json", "protojson"})
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are answered as they are.

    Attributes:
        headers: beside Content-Type and Content-Length.
    """

    body: bytes
    content_type: str = "application/octet-stream"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Redirect(Error):
    """Sends the client elsewhere; a handler may return it or raise it.

    Args:
        url: goes into the Location header.
        code: 301, 302, 303, 307 or 308.

    Raises:
        ValueError: ``code`` is no redirect, or ``url`` cannot stand in a header.
    """

    def __init__(self, url: str, code: int = 302) -> None:
        if code not in {301, 302, 303, 307, 308}:
            raise ValueError(f"{code} is no redirect; write 301, 302, 303, 307 or 308")
        if not url.isascii() or not url.isprintable():
            raise ValueError(f"{url!r} cannot stand in a header; percent-encode it")
        super().__init__(code, "REDIRECT", url)
        self.url = url


def redirection(url: str, code: int, verb: str) -> Raw:
    """A redirect as Go writes it: with a line of HTML for GET.

    Source: net/http server.go, Redirect.
    """
    headers = (("location", url),)
    if verb not in {"GET", "HEAD"}:
        return Raw(b"", "", code, headers)
    said = _REDIRECTS[code]
    body = f'<a href="{html.escape(url)}">{said}</a>.\n\n'.encode() if verb == "GET" else b""
    return Raw(body, HTML, code, headers)


_REDIRECTS = {
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
}

NOT_FOUND = Raw(b"404 page not found\n", TEXT, 404, (("x-content-type-options", "nosniff"),))
"""What kratos answers for a path or verb that it does not serve."""


def _status_class() -> Any:
    """``errors.Status``, in a pool of its own: a service's own copy may stand beside it."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="errors/errors.proto", package="errors", syntax="proto3"
    )
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    status.field.add(name="reason", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    status.field.add(name="message", number=3, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    status.field.add(
        name="metadata",
        number=4,
        type=field.TYPE_MESSAGE,
        label=field.LABEL_REPEATED,
        type_name=".errors.Status.MetadataEntry",
    )
    entry = status.nested_type.add(name="MetadataEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("errors.Status"))


StatusMessage = _status_class()


def error_message(error: Error) -> Any:
    """``error`` as the message that travels."""
    code = error.code if -(2**31) <= error.code < 2**31 else 500
    return StatusMessage(
        code=code, reason=error.reason, message=error.message, metadata=error.metadata
    )


def error_of(data: bytes, codec: Codec | None, status: int) -> Error:
    """The error in an answer of ``status``, which wins over the code in the body."""
    if codec is None:
        return Error(status, "", "")
    try:
        said = codec.decode(data, StatusMessage)
    except ValueError:
        return Error(status, "", "")
    return Error(status, said.reason, said.message, dict(said.metadata))


def status_of(code: int) -> int:
    """The status line of an error's ``code``.

    Go drops the connection for what is no status; a business code is 500 here, and stays in the
    body.
    """
    return code if 200 <= code <= 999 else 500


@dataclass(frozen=True, slots=True)
class Envelope:
    """Wraps JSON replies and errors into one object, as ``{"code": 0, "message": "ok", …}``.

    Attributes:
        code: the name of the field with 0, or the code of an error.
        message: the name of the field with ``ok``, or the message of an error.
        data: the name of the field with the reply; left out of errors.
        reason: the name of the field with the reason of an error.
        ok_code: the code of a reply.
        ok_message: the message of a reply.
        error_status: the status of an answer with an error; ``None`` for the error's own.
    """

    code: str = "code"
    message: str = "message"
    data: str = "data"
    reason: str = "reason"
    ok_code: int = 0
    ok_message: str = "ok"
    error_status: int | None = None

    def wrap(self, data: bytes) -> bytes:
        """A reply, which is JSON already, in the envelope."""
        head = json.dumps(
            {self.code: self.ok_code, self.message: self.ok_message, self.reason: ""},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        name = json.dumps(self.data, ensure_ascii=False)
        return b"%s,%s:%s}" % (head[:-1].encode(), name.encode(), data or b"null")

    def wrap_error(self, error: Error) -> bytes:
        """An error in the envelope."""
        fields = {self.code: error.code, self.message: error.message, self.reason: error.reason}
        return json.dumps(
            {**fields, "metadata": error.metadata}, ensure_ascii=False, separators=(",", ":")
        ).encode()
