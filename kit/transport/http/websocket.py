"""WebSockets for an ASGI application: RFC 6455 on the server's side, without extensions.

uvicorn hands a connection over once a client asks for the change; it needs a package for what
follows, which the kit does without. A client gets no frame larger than it asked for, but may send
one message of :data:`MESSAGE_BYTES`, and is asked every :data:`PING_S` whether it lives.

Source: RFC 6455; ASGI specification, WebSocket.
"""

import asyncio
import base64
import hashlib
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from kit import log

_log = log.get_logger()

MESSAGE_BYTES = 4 << 20
"""What a client may send in one message."""
PING_S = 20.0
"""Between two questions whether the client lives; one without an answer is the last."""
CLOSE_S = 10.0
"""How long a client may take to say goodbye, or to read."""
_QUEUED_BYTES = 64 << 10
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_REASON_BYTES = 123

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, TOO_BIG, INTERNAL_ERROR = 1007, 1009, 1011


class FrameError(Exception):
    """The client broke the protocol; ``code`` says how in a close frame."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class FrameReader:
    """Messages and control frames out of bytes that a client sent.

    Args:
        message_bytes: the most that one message may have.
    """

    def __init__(self, message_bytes: int = MESSAGE_BYTES) -> None:
        self._most = message_bytes
        self._buffer = bytearray()
        self._opcode = 0
        self._parts = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """What is complete now: opcode and payload; a message comes in one piece.

        Raises:
            FrameError: the bytes are no frames, or a message is too large.
        """
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        while (frame := self._next()) is not None:
            final, opcode, payload = frame
            if opcode >= _CLOSE:
                if not final or len(payload) > 125:
                    raise FrameError(PROTOCOL_ERROR, "a control frame is split or too long")
                found.append((opcode, payload))
                continue
            if (opcode == _CONTINUATION) != bool(self._opcode):
                raise FrameError(PROTOCOL_ERROR, "a fragment is out of place")
            self._opcode = self._opcode or opcode
            self._parts += payload
            if final:
                found.append((self._opcode, bytes(self._parts)))
                self._opcode = 0
                self._parts.clear()
        return found

    def _next(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode, length, start = first & 15, second & 127, 2
        if first & 0x70 or opcode not in {_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG}:
            raise FrameError(PROTOCOL_ERROR, f"a frame begins with {first:#04x}")
        if not second & 128:
            raise FrameError(PROTOCOL_ERROR, "a client has to mask its frames")
        if length == 126:
            start = 4
        elif length == 127:
            start = 10
        if len(buffer) < start + 4:
            return None
        if start > 2:
            length = struct.unpack_from("!H" if start == 4 else "!Q", buffer, 2)[0]
        if len(self._parts) + length > self._most:
            raise FrameError(TOO_BIG, f"a message has more than {self._most} bytes")
        end = start + 4 + length
        if len(buffer) < end:
            return None
        payload = _masked(bytes(buffer[start + 4 : end]), bytes(buffer[start : start + 4]))
        del buffer[:end]
        return bool(first & 128), opcode, payload


def _masked(data: bytes, mask: bytes) -> bytes:
    """``data`` with ``mask`` put on, or taken off; as one number, for that is fast."""
    pattern = (mask * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")
    return number.to_bytes(len(data), "little")


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole frame as a server sends it."""
    length = len(payload)
    if length < 126:
        return bytes((128 | opcode, length)) + payload
    if length < 65_536:
        return struct.pack("!BBH", 128 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 128 | opcode, 127, length) + payload


def close_payload(code: int, reason: str) -> bytes:
    """What a close frame carries; a reason that is too long is cut between letters."""
    if code == NO_STATUS:
        return b""
    text = reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()
    return struct.pack("!H", code) + text


def _close_code(payload: bytes) -> int:
    """What a client's close frame says.

    Raises:
        FrameError: it says what none may say.
    """
    if not payload:
        return NO_STATUS
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame is too short")
    code: int = struct.unpack_from("!H", payload)[0]
    if not (3000 <= code < 5000 or (1000 <= code <= 1014 and code not in {1004, 1005, 1006})):
        raise FrameError(PROTOCOL_ERROR, f"{code} is no close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError as exc:
        raise FrameError(INVALID_DATA, "the reason is not UTF-8") from exc
    return code


class WebSocketConnection(asyncio.Protocol):
    """A connection after the change, as uvicorn makes it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app: Any = config.loaded_app
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._key = b""
        self._frames: FrameReader | None = None
        self._queue: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._queued = 0
        self._arrived = asyncio.Event()
        self._arrived.set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._answered = False
        self._refusing = False
        self._closed = False
        self._close_sent = False
        self._refusal: list[Any] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for_pong = False

    # ---- the connection ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by uvicorn with the transport that it gives away."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: the application hears of it, and has a while to end as well."""
        self._state.connections.discard(self)
        if self._task is not None:
            self._loop.call_later(CLOSE_S, self._task.cancel)
        self._later(None, None)
        self._disconnect(ABNORMAL, "")
        self._writable.set()
        changed = getattr(self._state, "changed", None)
        if changed is not None:
            changed.set()

    def data_received(self, data: bytes) -> None:
        """The request first, as uvicorn wrote it down; frames after it."""
        if self._frames is None:
            self._shake_hands(data)
            return
        try:
            for opcode, payload in self._frames.feed(data):
                self._take(opcode, payload)
        except FrameError as error:
            self._disconnect(error.code, str(error))
            self._say_goodbye(error.code, str(error))

    def eof_received(self) -> None:
        """The client sends no more; the transport closes."""

    def pause_writing(self) -> None:
        """The client does not read; it has some time to."""
        self._writable.clear()
        self._later(CLOSE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It did."""
        self._writable.set()
        self._later(PING_S, self._ping)

    def shutdown(self) -> None:
        """The server stops; WebSockets are not waited for."""
        self._disconnect(GOING_AWAY, "the server stops")
        if self._answered and not self._refusing:
            self._say_goodbye(GOING_AWAY, "the server stops")
        self.transport.close()
        if self._task is not None:
            self._task.cancel()

    # ---- what the client says ----

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.lower(), value))

    def _shake_hands(self, data: bytes) -> None:
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        headers = dict(self._headers)
        self._key = headers.get(b"sec-websocket-key", b"")
        version = headers.get(b"sec-websocket-version", b"")
        if parser.get_method() != b"GET" or version != b"13" or not _is_key(self._key):
            self._respond(400, [(b"sec-websocket-version", b"13")], b"Bad Request\n")
            return
        self._frames = FrameReader()
        self._task = task = self._loop.create_task(self._run(self._scope(parser, headers)))
        self._state.tasks.add(task)  # which the server awaits when it stops
        task.add_done_callback(self._state.tasks.discard)

    def _scope(self, parser: Any, headers: dict[bytes, bytes]) -> dict[str, Any]:
        url = httptools.parse_url(self._url)
        path = url.path.decode("ascii")
        protocols = headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": parser.get_http_version(),
            "scheme": "wss" if self.transport.get_extra_info("sslcontext") else "ws",
            "server": self.transport.get_extra_info("sockname")[:2],
            "client": (self.transport.get_extra_info("peername") or ("", 0))[:2],
            "root_path": "",
            "path": unquote(path),
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self._headers,
            "subprotocols": [each.strip() for each in protocols.split(",") if each.strip()],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as exc:  # noqa: BLE001  (one connection must not end the server)
            _log.error("[HTTP] a WebSocket failed", exc_info=exc)
            if not self._answered:
                self._respond(500, [], b"Internal Server Error\n")
            else:
                self._say_goodbye(INTERNAL_ERROR, "internal error")
        else:
            if not self._answered:
                self._respond(403, [], b"Forbidden\n")
            elif not self._refusing:
                self._say_goodbye(NORMAL, "")

    def _take(self, opcode: int, payload: bytes) -> None:
        if self._closed and opcode != _CLOSE:
            return
        match opcode:
            case _ if opcode == _PING:
                self._write(frame(_PONG, payload))
            case _ if opcode == _PONG:
                self._waits_for_pong = False
            case _ if opcode == _CLOSE:
                code = _close_code(payload)
                self._disconnect(code, payload[2:].decode())
                self._write_close(close_payload(code, ""))
                self.transport.close()
            case _ if opcode == _TEXT:
                try:
                    self._put({"type": "websocket.receive", "text": payload.decode()}, len(payload))
                except UnicodeDecodeError as exc:
                    raise FrameError(INVALID_DATA, "a text is not UTF-8") from exc
            case _:
                self._put({"type": "websocket.receive", "bytes": payload}, len(payload))

    def _put(self, message: dict[str, Any], size: int) -> None:
        self._queue.append(message)
        self._queued += size + 64
        if self._queued > _QUEUED_BYTES:
            self.transport.pause_reading()
        self._arrived.set()

    def _disconnect(self, code: int, reason: str) -> None:
        """Tell the application, once."""
        if not self._closed:
            self._closed = True
            self._put({"type": "websocket.disconnect", "code": code, "reason": reason}, 0)

    # ---- what the application says ----

    async def _receive(self) -> dict[str, Any]:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        message = self._queue.popleft()
        if not self._queue:
            self._queued = 0
            if not self.transport.is_closing():
                self.transport.resume_reading()
        if message["type"] == "websocket.disconnect":
            self._queue.append(message)  # whoever asks again hears it again
        return message

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.http.response.start":
            self._answered = self._refusing = True
            self._refusal = [message["status"], message.get("headers", ()), b""]
        elif kind == "websocket.http.response.body":
            self._refusal[2] += message.get("body", b"")
            if not message.get("more_body", False):
                self._respond(*self._refusal)
        elif kind == "websocket.close":
            if not self._answered:
                self._respond(403, [], b"Forbidden\n")
            else:
                self._say_goodbye(message.get("code", NORMAL), message.get("reason") or "")
        elif not self._closed:
            text = message.get("text")
            opcode, data = (_BINARY, message["bytes"]) if text is None else (_TEXT, text.encode())
            self._write(frame(opcode, data))
            await self._writable.wait()
        if kind == "websocket.send" and self._closed:
            raise OSError("the client has closed the WebSocket")

    def _accept(self, message: Any) -> None:
        digest = hashlib.sha1(self._key + _ACCEPT, usedforsecurity=False).digest()
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", base64.b64encode(digest)),
            *message.get("headers", ()),
        ]
        if message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        self._answered = True
        self._write(_head(101, headers))
        self._later(PING_S, self._ping)

    def _respond(self, status: int, headers: Any, body: bytes) -> None:
        """Refuse the change with an ordinary answer."""
        self._answered = self._refusing = True
        given = {name.lower() for name, _ in headers}
        more = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        if b"content-type" not in given:
            more.append((b"content-type", b"text/plain; charset=utf-8"))
        kept = [pair for pair in headers if pair[0].lower() != b"content-length"]
        self._write(_head(status, [*kept, *more]) + body)
        self._disconnect(ABNORMAL, "refused")
        self.transport.close()

    def _say_goodbye(self, code: int, reason: str) -> None:
        self._write_close(close_payload(code, reason))
        self._later(CLOSE_S, self.transport.abort)
        self._closed = True

    def _write_close(self, payload: bytes) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._write(frame(_CLOSE, payload))

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _ping(self) -> None:
        if self._waits_for_pong:
            self.transport.abort()
            return
        self._waits_for_pong = True
        self._write(frame(_PING, b""))
        self._later(PING_S, self._ping)

    def _later(self, seconds: float | None, call: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None and call is not None:
            self._timer = self._loop.call_later(seconds, call)


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False


def _head(status: int, headers: Any) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%s: %s" % pair for pair in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
