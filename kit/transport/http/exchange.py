"""One request and its answer: reading within limits, picking codecs, writing.

Source: go-kratos/kratos transport/http/codec.go, context.go.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from kit import log
from kit.encoding import Codec, CodecError, CodecTable
from kit.errors import BadRequest, Error, ServiceUnavailable, from_error
from kit.metadata import Metadata
from kit.transport import CallInfo
from kit.transport.http.asgi import GONE, HttpLimits, Receive, Scope, Send
from kit.transport.http.replies import (
    JSON_CODECS,
    Envelope,
    Raw,
    Redirect,
    error_message,
    redirection,
    status_of,
)

_log = log.get_logger()

LINGER_S = 2.0
"""How long a client that sends too much is listened to, so that it reads why it was refused."""
_BODYLESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Limits(HttpLimits):
    """What clients may take; see also :class:`~kit.transport.http.asgi.HttpLimits`.

    Attributes:
        body_bytes: of one request; more is answered 413.
        buffered_bytes: of all bodies that are being read together; more is answered 503.
        requests: that are handled at the same time; more are answered 503.
        body_rate: a large upload has time as long as it comes at this rate.
    """

    connections: int = 10_000
    body_bytes: int = 4 << 20
    buffered_bytes: int = 256 << 20
    requests: int = 10_000
    body_rate: float | None = 64 << 10


@dataclass(slots=True)
class HttpCallInfo(CallInfo):
    """A :class:`~kit.transport.CallInfo` with what only HTTP has.

    Attributes:
        verb: of the request, in capitals.
        path: of the request, decoded.
        path_template: of the route.
        scope: the ASGI scope of a server's call.
    """

    verb: str = ""
    path: str = ""
    path_template: str = ""
    scope: Scope = field(default_factory=dict)

    @property
    def request(self) -> Request:
        """The request as Starlette shows it; its body was read already."""
        return Request(self.scope)


class BodyTooLarge(Error):
    """A request has a larger body than the server takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            413, "BODY_TOO_LARGE", f"the body is too large; at most {limit} bytes are taken"
        )


class Gone(Exception):
    """The client left before its body was complete."""


def codec_error(error: CodecError) -> Error:
    """What kratos answers when a request cannot be read."""
    return BadRequest("CODEC", str(error))


class Desk:
    """What all routes of a server share: codecs, limits, and the form of answers.

    Args:
        codecs: by name; one of them is ``json``.
        limits: what clients may take.
        envelope: around JSON answers; ``None`` for none.
    """

    def __init__(self, codecs: CodecTable, limits: Limits, envelope: Envelope | None) -> None:
        self.codecs = codecs
        self.limits = limits
        self.envelope = envelope
        json = codecs.get("json")
        if json is None:
            raise ValueError("the codec table has no json; register one")
        self._json = json
        self._buffered = 0
        self.handling = 0

    def reply_codec(self, headers: Metadata) -> Codec:
        """The codec of an answer: the first Accept line that names one, else json."""
        for line in headers.values("accept"):
            codec = self.codecs.for_content_type(line)
            if codec is not None:
                return codec
        return self._json

    def body_codec(self, headers: Metadata) -> Codec:
        """The codec of a request's body.

        Raises:
            BadRequest: CODEC; there is none for its content type, or that is missing.
        """
        text = headers.get("content-type")
        codec = self.codecs.for_content_type(text)
        if codec is None:
            raise BadRequest("CODEC", f"unregister Content-Type: {text}")
        return codec

    async def body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body of a request.

        Raises:
            BodyTooLarge: it has more bytes than are taken.
            ServiceUnavailable: too many bodies are being read.
            Gone: the client went away.
        """
        most = self.limits.body_bytes
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > most:
                raise BodyTooLarge(most)
        message = await receive()
        if not message.get("more_body", False) and message["type"] == "http.request":
            data: bytes = message.get("body", b"")
            if len(data) > most:
                raise BodyTooLarge(most)
            return data
        return await self._longer(message, receive, most)

    async def _longer(self, message: Any, receive: Receive, most: int) -> bytes:
        body, taken = bytearray(), 0
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk = message.get("body", b"")
                body += chunk
                taken += len(chunk)
                self._buffered += len(chunk)
                if taken > most:
                    raise BodyTooLarge(most)
                if self._buffered > self.limits.buffered_bytes:
                    raise ServiceUnavailable("BUSY", "too many bodies are being read; try later")
                if not message.get("more_body", False):
                    return bytes(body)
                message = await receive()
        finally:
            self._buffered -= taken

    def encoded(self, value: Any, codec: Codec) -> Raw:
        """A reply in the form of ``codec``.

        Raises:
            CodecError: it has none.
        """
        return self.enveloped(codec.encode(value), codec)

    def enveloped(self, data: bytes, codec: Codec) -> Raw:
        """A reply that is encoded already."""
        if self.envelope is not None and codec.name in JSON_CODECS:
            data = self.envelope.wrap(data)
        return Raw(data, f"application/{codec.name}")

    def error(self, error: Exception, headers: Metadata, verb: str) -> Raw:
        """The answer that ``error`` is; one that is not of the kit is logged."""
        redirect = redirect_in(error)
        if redirect is not None:
            return redirection(redirect.url, redirect.code, verb)
        said = from_error(error)
        codec = self.reply_codec(headers)
        try:
            if self.envelope is not None and codec.name in JSON_CODECS:
                data = self.envelope.wrap_error(said)
                given = self.envelope.error_status
                return Raw(data, f"application/{codec.name}", given or status_of(said.code))
            data = codec.encode(error_message(said))
        except (CodecError, TypeError, ValueError):
            return Raw(b"", "", 500)
        return Raw(data, f"application/{codec.name}", status_of(said.code))


def redirect_in(error: BaseException) -> Redirect | None:
    """The redirect that ``error`` is, or that is among its causes."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, Redirect):
            return link
        seen.add(id(link))
        link = link.__cause__
    return None


def raw_headers(pairs: Any) -> list[tuple[bytes, bytes]]:
    """Header pairs as ASGI wants them; what cannot stand in a header is refused.

    Raises:
        ValueError: a name or value has letters that would end it.
    """
    made: list[tuple[bytes, bytes]] = []
    for name, value in pairs:
        if not value.isprintable() or not name.isprintable() or " " in name or ":" in name:
            raise ValueError(f"header {name!r} cannot be sent: a control letter, blank or colon")
        made.append((name.lower().encode("latin-1"), value.encode("utf-8")))
    return made


async def respond(
    reply: Raw, send: Send, more: Sequence[tuple[bytes, bytes]] = (), *, last: Receive | None = None
) -> None:
    """Send ``reply``.

    Args:
        reply: what to send.
        send: of the request.
        more: further headers.
        last: the request's ``receive``, when the connection has to end with this answer because
            the body was not read.
    """
    body = b"" if reply.status in _BODYLESS else reply.body
    headers = [*more]
    if reply.content_type and reply.status not in _BODYLESS:
        headers.append((b"content-type", reply.content_type.encode()))
    if reply.headers:
        headers += raw_headers(reply.headers)
    if reply.status not in _BODYLESS:
        headers.append((b"content-length", b"%d" % len(body)))
    if last is not None:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if last is None:
        await send({"type": "http.response.body", "body": body})
        return
    # Closing on a client that still sends would reset the connection, and the reply with it.
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        async with asyncio.timeout(LINGER_S):
            while (await last()).get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


def end_with_client(scope: Scope) -> None:
    """Cancel the current task when the client goes away, where the server can tell."""
    gone = scope.get(GONE)
    if gone is not None:
        gone.append(asyncio.current_task())
