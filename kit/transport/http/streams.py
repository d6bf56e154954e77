"""Streams of messages: Server-Sent Events down, WebSockets both ways.

A server stream is answered as events; a stream of the client, or both ways, is a WebSocket on GET,
whatever verb the rule has. The middleware goes around the whole stream, with the first message, or
``None`` for a WebSocket; it begins after the upgrade, so a refusal arrives as a WebSocket error.
There is no time limit. The handler is cancelled when the client goes away.

On a WebSocket a message is one text frame; ``0x1E`` + ``end`` is the client's half close, ``0x1E``
+ ``error:`` and a text is an error of the server, with close code 1011 after it.

Source: go-kratos/kratos v3 transport/http/stream.go, sse.go, websocket.go.
"""

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kit import log
from kit.encoding import Codec, CodecError
from kit.encoding.families import AnyDescriptor
from kit.errors import Error, from_error
from kit.metadata import Metadata
from kit.transport import call_info
from kit.transport.http.asgi import AsgiApp, Receive, Scope, Send
from kit.transport.http.binding import Binder
from kit.transport.http.context import HttpContext
from kit.transport.http.exchange import (
    BodyTooLarge,
    Desk,
    Gone,
    HttpCallInfo,
    codec_error,
    end_with_client,
    raw_headers,
    respond,
)
from kit.transport.http.methods import (
    Wiring,
    behaviour_named,
    bound,
    failed,
    google_reply,
    not_implemented,
    request_converter,
    request_metadata,
)
from kit.transport.http.replies import TEXT, Raw, error_message

_log = log.get_logger()

EVENTS = "text/event-stream"
MARK = "\x1e"
END = f"{MARK}end"
ERROR = f"{MARK}error:"
_CLOSE_REASON_BYTES = 123
_EVENT_HEADERS = (
    (b"content-type", EVENTS.encode()),
    (b"cache-control", b"no-cache"),
    (b"connection", b"keep-alive"),
    (b"x-accel-buffering", b"no"),
)


def event(name: str, data: bytes) -> bytes:
    """One event, with a ``data:`` line for each line of ``data``.

    >>> event("message", b"a").splitlines()
    [b'event: message', b'data: a', b'']
    """
    lines = b"".join(b"data: %s\n" % line for line in data.splitlines() or [b""])
    return b"event: %s\n%s\n" % (name.encode(), lines)


def _stream_codec(desk: Desk, headers: Metadata, order: tuple[str, ...]) -> Codec:
    """The first known codec among the named headers, in which commas do split, else protojson."""
    for name in order:
        for line in headers.values(name):
            for each in line.split(","):
                codec = desk.codecs.for_content_type(each.strip())
                if codec is not None:
                    return codec
    fallback = desk.codecs.get("protojson") or desk.codecs.get("json")
    assert fallback is not None, "a desk has json"
    return fallback


async def _run(
    behaviour: Callable[[Any, Any], Any], method: AnyDescriptor, given: Any, context: HttpContext
) -> None:
    """Call the method in its own form: iterators, or reading and writing the context."""
    try:
        result = behaviour(given, context)
        if inspect.isasyncgen(result):
            async with aclosing(result):
                async for reply in result:
                    await context.write(reply)
        elif inspect.isawaitable(result):
            reply = await result
            context.raise_for_code()
            if not method.server_streaming:
                await context.write(reply)
        else:
            raise TypeError(f"{context.info.operation} is not async; streams have to be")
    except NotImplementedError as exc:
        raise not_implemented(exc, context, method.name) from exc
    context.raise_for_code()


def sse_endpoint(
    wiring: Wiring, method: AnyDescriptor, binder: Binder, servicer: object
) -> AsgiApp:
    """Serve one rule of a method that gives a stream."""
    operation = f"/{method.containing_service.full_name}/{method.name}"
    behaviour = behaviour_named(servicer, method)
    convert = request_converter(behaviour)
    reply_kind = GetMessageClass(method.output_type)
    desk = wiring.desk

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        end_with_client(scope)
        info = wiring.info(scope, operation, binder.template.text, timed=False)
        codec = _stream_codec(desk, info.request_headers, ("accept", "content-type"))
        events = _Events(send, codec, info)

        async def write(reply: Any) -> None:
            await events.write(google_reply(reply, reply_kind, operation))

        async def innermost(request: Any) -> None:
            given = request if convert is None else convert(request)
            await _run(behaviour, method, given, HttpContext(info, write=write))

        token = call_info.set(info)
        last: Receive | None = None
        try:
            message = await bound(desk, binder, info, receive)
            await wiring.wrap(operation)(innermost)(message)
        except Gone:
            return
        except Exception as exc:  # noqa: BLE001  (whatever it is, the client is told)
            if events.begun:
                await events.fail(exc)
                return
            last = receive if isinstance(exc, BodyTooLarge) else None
            await respond(failed(desk, exc, info), send, last=last)
        else:
            await events.end()
        finally:
            call_info.reset(token)

    return serve


class _Events:
    """The answer as events; its head goes with the first message."""

    def __init__(self, send: Send, codec: Codec, info: HttpCallInfo) -> None:
        self._send = send
        self._codec = codec
        self._info = info
        self.begun = False

    async def write(self, message: Message) -> None:
        await self._put("message", self._codec.encode(message))

    async def _put(self, name: str, data: bytes) -> None:
        if not self.begun:
            more = raw_headers(self._info.reply_headers.items())
            self.begun = True
            headers = [*_EVENT_HEADERS, *more]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        body = event(name, data)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def fail(self, error: Exception) -> None:
        if not isinstance(error, Error):
            _log.error(f"[HTTP] {self._info.operation} failed", exc_info=error)
        try:
            data = self._codec.encode(error_message(from_error(error)))
        except (CodecError, TypeError, ValueError):
            data = b""
        await self._put("error", data)
        await self._send({"type": "http.response.body", "body": b""})

    async def end(self) -> None:
        if not self.begun:
            start = {"type": "http.response.start", "status": 200}
            await self._send({**start, "headers": [(b"content-length", b"0")]})
        await self._send({"type": "http.response.body", "body": b""})


def websocket_endpoint(
    wiring: Wiring, method: AnyDescriptor, binder: Binder, servicer: object
) -> AsgiApp:
    """Serve a method that takes a stream."""
    operation = f"/{method.containing_service.full_name}/{method.name}"
    behaviour = behaviour_named(servicer, method)
    reply_kind = GetMessageClass(method.output_type)
    desk = wiring.desk

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # the wish to connect
        info = wiring.info(scope, operation, binder.template.text, timed=False)
        if not _same_origin(info.request_headers):
            await _refuse(desk, send, info, 403, "Forbidden", "request origin not allowed")
            return
        socket = _Socket(desk, binder, info, receive, send)

        async def write(reply: Any) -> None:
            await socket.write(google_reply(reply, reply_kind, operation))

        async def innermost(_request: Any) -> None:
            context = HttpContext(info, read=socket.read, write=write)
            await _run(behaviour, method, socket.messages(), context)

        await send({"type": "websocket.accept"})
        token = call_info.set(info)
        try:
            await wiring.wrap(operation)(innermost)(None)
        except Exception as exc:  # noqa: BLE001  (whatever it is, the client is told)
            if socket.gone:
                return
            if not isinstance(exc, Error):
                _log.error(f"[HTTP] {operation} failed", exc_info=exc)
            await socket.fail(exc)
        else:
            await send({"type": "websocket.close", "code": 1000})
        finally:
            call_info.reset(token)

    return serve


class _Socket:
    """Messages over frames."""

    def __init__(
        self, desk: Desk, binder: Binder, info: HttpCallInfo, receive: Receive, send: Send
    ) -> None:
        headers = info.request_headers
        self._in = _stream_codec(desk, headers, ("content-type", "accept"))
        self._out = _stream_codec(desk, headers, ("accept", "content-type"))
        self._binder = binder
        self._info = info
        self._receive = receive
        self._send = send
        self._ended = False
        self.gone = False

    async def read(self) -> Message | None:
        """The next message; ``None`` after the last.

        Raises:
            BadRequest: CODEC; a frame cannot be read.
        """
        if self._ended:
            return None
        frame = await self._receive()
        if frame["type"] == "websocket.disconnect":
            self._ended = self.gone = True
            return None
        text = frame.get("text")
        if text == END:
            self._ended = True
            return None
        data: bytes = frame["bytes"] if text is None else text.encode()
        scope = self._info.scope
        try:
            message = self._binder.overlay(
                data, self._in, scope["query_string"], scope["path_params"]
            )
        except CodecError as exc:
            raise codec_error(exc) from exc
        return message

    async def messages(self) -> AsyncIterator[Message]:
        """Each message to the last."""
        while (message := await self.read()) is not None:
            yield message

    async def write(self, message: Message) -> None:
        """Send one message; in text where the codec has one."""
        data = self._out.encode(message)
        frame = {"bytes": data} if self._out.name == "proto" else {"text": data.decode()}
        try:
            await self._send({"type": "websocket.send", **frame})
        except OSError:
            self.gone = True
            raise

    async def fail(self, error: Exception) -> None:
        """Tell the client of ``error``, and end."""
        text = str(from_error(error))
        await self._send({"type": "websocket.send", "text": f"{ERROR}{text}"})
        reason = text if len(text.encode()) <= _CLOSE_REASON_BYTES else ""
        await self._send({"type": "websocket.close", "code": 1011, "reason": reason})


def _same_origin(headers: Metadata) -> bool:
    """Whether a browser's page comes from this host; other clients send no Origin."""
    origin = headers.get("origin")
    return not origin or urlsplit(origin).netloc.lower() == headers.get("host").lower()


async def _refuse(
    desk: Desk, send: Send, info: HttpCallInfo, status: int, said: str, why: str
) -> None:
    reply = _refusal(desk, info.request_headers, said, why)
    start = {"type": "websocket.http.response.start", "status": status}
    headers = [(b"content-type", TEXT.encode()), (b"sec-websocket-version", b"13")]
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": reply})


def _refusal(desk: Desk, headers: Metadata, said: str, why: str) -> bytes:
    """The upgrader's line and the error behind it, as kratos answers them."""
    error = Error(500, "", f"websocket: {why}")
    return f"{said}\n".encode() + desk.error(error, headers, "GET").body


def websocket_wanted(desk: Desk) -> AsgiApp:
    """Answers a plain GET where a WebSocket is served."""

    async def serve(scope: Scope, _receive: Receive, send: Send) -> None:
        why = "the client is not using the websocket protocol: 'upgrade' token not found"
        body = _refusal(desk, request_metadata(scope), "Bad Request", why)
        await respond(Raw(body, TEXT, 400, (("sec-websocket-version", "13"),)), send)

    return serve
