"""Streams of an HTTP client: Server-Sent Events down, WebSockets both ways.

Source: go-kratos/kratos v3 transport/http/stream.go, sse.go, websocket.go.
"""

import re
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
from google.protobuf.message import Message

from kit.encoding import CodecError
from kit.encoding.families import AnyDescriptor
from kit.encoding.json import ProtoJsonCodec
from kit.errors import Error, InternalServer, ServiceUnavailable
from kit.transport.http.client import Headers, HttpClient, Outgoing
from kit.transport.http.replies import error_of
from kit.transport.http.streams import END, ERROR, EVENTS

LINE_BYTES = 1 << 20
"""The longest line of an event."""
_PROTOJSON = ProtoJsonCodec()
_ERROR_TEXT = re.compile(
    r"error: code = (-?\d+) reason = (.*?) message = (.*) metadata = map\[(.*)\] cause = .*",
    re.DOTALL,
)


async def events(
    client: HttpClient, method: AnyDescriptor, request: Message, *, headers: Headers = ()
) -> AsyncIterator[Any]:
    """The messages of a method that gives a stream; there is no time limit.

    Raises:
        Error: what the peer answered, before the first message or after it.
    """
    invocation = client.invocation(method)
    info = client.new_info(invocation.operation, headers, None)
    sent = invocation.outgoing(request, _PROTOJSON)
    content_type = sent.content_type or "application/protojson"
    outgoing = Outgoing(sent.verb, sent.path, sent.body, content_type, EVENTS)
    try:
        async with client.opened(outgoing, info) as reply:
            async for name, data in _parsed(reply.content):
                if name == "error":
                    error = error_of(data, _PROTOJSON, 500)
                    raise _with_code(error, data)
                if name in {"", "message"}:
                    yield _message(data, invocation.reply_kind, invocation.operation)
    except aiohttp.ClientError as exc:
        raise ServiceUnavailable("UNREACHABLE", f"{info.peer}: {exc}") from exc


async def _parsed(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    name, lines = "", list[bytes]()
    while True:
        try:
            line = await content.readuntil(b"\n")
        except ValueError as exc:
            raise InternalServer("CODEC", f"an event has a line over {LINE_BYTES} bytes") from exc
        if not line:
            return
        line = line.rstrip(b"\r\n")
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if lines:
                yield name, b"\n".join(lines)
            name, lines = "", []
        elif key == b"event":
            name = value.decode("utf-8", "replace")
        elif key == b"data":
            lines.append(value)


def _with_code(error: Error, data: bytes) -> Error:
    """In an event the code is only in the body."""
    found = re.search(rb'"code":\s*(-?\d{1,9})', data)
    error.code = int(found[1]) if found else error.code
    return error


def _message(data: bytes, kind: Any, operation: str) -> Any:
    try:
        return _PROTOJSON.decode(data, kind)
    except CodecError as exc:
        raise InternalServer("CODEC", f"{operation} sent: {exc}") from exc


class Socket:
    """A method that takes a stream, over a WebSocket that is dialled with the first message.

    ``async with`` closes it; iterating it gives the replies.
    """

    def __init__(self, client: HttpClient, method: AnyDescriptor, headers: Headers = ()) -> None:
        self._client = client
        self._invocation = client.invocation(method)
        accept = ("accept", "application/protojson")
        kind = ("content-type", "application/protojson")
        pairs = (*headers, accept, kind)
        self._info = client.new_info(self._invocation.operation, pairs, None)
        self._ws: aiohttp.ClientWebSocketResponse | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; may be called twice."""
        if self._ws is not None:
            await self._ws.close()

    async def write(self, message: Message) -> None:
        """Send one message.

        Raises:
            Error: the peer refused the connection.
            ServiceUnavailable: the connection is gone.
        """
        if self._ws is None:
            self._ws = await self._client.dial(self._invocation.path(message), self._info)
        try:
            await self._ws.send_str(self._invocation.encode(message, _PROTOJSON).decode())
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise ServiceUnavailable("UNREACHABLE", f"{self._info.peer}: {exc}") from exc

    async def done_writing(self) -> None:
        """Say that no more messages follow."""
        if self._ws is not None and not self._ws.closed:
            await self._ws.send_str(END)

    async def read(self) -> Any | None:
        """The next message; ``None`` at the end.

        Raises:
            Error: what the peer said.
        """
        if self._ws is None:
            raise RuntimeError("write a message first: the path is made of it")
        frame = await self._ws.receive()
        if frame.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}:
            if self._ws.close_code in {1000, 1001, None}:
                return None
            raise ServiceUnavailable("UNREACHABLE", f"closed with {self._ws.close_code}")
        if frame.type not in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}:
            raise ServiceUnavailable("UNREACHABLE", f"{self._info.peer}: the connection broke")
        data = frame.data.encode() if isinstance(frame.data, str) else frame.data
        if isinstance(frame.data, str) and frame.data.startswith(ERROR):
            raise error_in(frame.data.removeprefix(ERROR))
        return _message(data, self._invocation.reply_kind, self._invocation.operation)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not None:
            yield message


def error_in(text: str) -> Error:
    """The error of which only the text in Go's form has travelled.

    >>> error_in("error: code = 403 reason = NO message = not you metadata = map[a:b] cause = x")
    Error('not you')
    """
    found = _ERROR_TEXT.fullmatch(text)
    if found is None:
        return Error(500, "", text)
    pairs = (pair.partition(":") for pair in found[4].split() if ":" in pair)
    return Error(int(found[1]), found[2], found[3], {key: value for key, _, value in pairs})
