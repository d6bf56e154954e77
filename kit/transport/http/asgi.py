"""An HTTP/1.1 server for an ASGI application that nobody can hold up: deadlines and caps.

uvicorn's protocol for httptools does the talking; what it leaves out is added here: it waits for
ever for a head, for a body, and for a client that does not read. WebSockets are spoken by
:mod:`kit.transport.http.websocket`.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, TypeAlias, cast

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from kit import log
from kit.transport.host import ListenAddress, announced_host, join_host_port
from kit.transport.http.websocket import WebSocketConnection
from kit.transport.lines import say
from kit.transport.tls import ServerTls, server_context

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

PROTOCOLS = ("http/1.1",)
"""Of ALPN: what is spoken here."""
GONE = "kit.gone"
"""In a scope: a deque; tasks that are put into it are cancelled when the client goes away.

It keeps the last ones only, as many as a connection can have at a time: nobody has to take out a
task that has ended.
"""

_log = log.get_logger()

_BACKLOG = 1_024
_CHUNKED_BYTES = 6
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
)
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


# uvicorn writes statuses up to 599 only; errors of a service may have any of three digits.
for _status in range(600, 1000):
    STATUS_LINE.setdefault(_status, b"HTTP/1.1 %d status code %d\r\n" % (_status, _status))


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Whether something is wrong here: neither with what a client sent nor at a forced stop."""
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return record.levelno >= logging.ERROR and not cancelled


_uvicorn_log = logging.getLogger(__name__)
_uvicorn_log.addFilter(_worth_a_line)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may take.

    Attributes:
        connections: at the same time; more are answered 503 and closed.
        head_bytes: request line and headers together; also what is neither, beside a body in
            chunks.
        head_s: seconds for them, from the first byte, or from the beginning of the connection.
        body_s: seconds for the body, from the end of the head.
        write_s: seconds for the client to take what it was sent.
        keep_alive_s: seconds that a connection may be idle between requests.
        pipelined: requests that wait on a connection behind the one that is answered.
        body_rate: bytes a second that buy a body ``body_s`` more; ``None`` when that is all it has.
    """

    connections: int = 1_000
    head_bytes: int = 64 << 10
    head_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 30.0
    keep_alive_s: int = 75
    pipelined: int = 16
    body_rate: float | None = None


def busy_json(who: str) -> Callable[[int], bytes]:
    """What :class:`AsgiServer` answers when too many connections are open, as JSON."""
    return lambda limit: (
        b'{"message":"%s is busy: %d connections are open"}'
        % (
            who.encode(),
            limit,
        )
    )


class AsgiServer:
    """Serves an ASGI application; a :class:`kit.transport.Server`.

    Args:
        app: what answers; it has to answer its own exceptions.
        address: ``host:port``; a wildcard host takes IPv4 and IPv6, port 0 lets the system choose.
        limits: what a client may take.
        tls: the server's identity; without it plain text.
        endpoint: the URL to announce in place of the one found out.
        websockets: let clients change to WebSocket.
        busy: the JSON body for a connection too many, by the number allowed.

    Raises:
        ValueError: ``address`` cannot be understood.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        address: str,
        limits: HttpLimits | None = None,
        tls: ServerTls | ssl.SSLContext | None = None,
        endpoint: str | None = None,
        websockets: bool = False,
        busy: Callable[[int], bytes] = busy_json("the server"),  # noqa: B008  (a constant)
    ) -> None:
        self._address = ListenAddress.parse(address)
        self._limits = limits or HttpLimits()
        self._identity = tls
        self._tls = server_context(tls, PROTOCOLS) if isinstance(tls, ServerTls) else tls
        self._given_endpoint = endpoint
        self._busy = busy(self._limits.connections)
        self._config = Config(
            cast("Any", app),
            http=HttpToolsProtocol,
            ws=cast("Any", WebSocketConnection) if websockets else "none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=self._limits.keep_alive_s,
        )
        self._config.load()
        self._state = _State()
        self._socket: socket.socket | None = None
        self._listening_on = ""
        self._endpoint: str | None = None
        self._server: asyncio.Server | None = None
        self._stopping = False
        self._stopped = asyncio.Event()

    @property
    def endpoint(self) -> str | None:
        """``http://host:port``, ``https://`` with TLS; ``None`` before :meth:`listen`."""
        return self._endpoint

    async def listen(self) -> None:
        """Bind the address; connections wait in the kernel until :meth:`serve`.

        Raises:
            OSError: the address is taken, is not ours, or needs rights.
        """
        if self._socket is not None:
            return
        self._socket = _bound(self._address)
        host, port = self._socket.getsockname()[:2]
        self._listening_on = join_host_port(host, port)
        announced = announced_host(self._address.host)
        address = join_host_port(announced or "127.0.0.1", port)
        if isinstance(self._identity, ServerTls):
            found = self._identity.endpoint("http", address)
        else:
            found = f"{'http' if self._tls is None else 'https'}://{address}"
        self._endpoint = self._given_endpoint or found

    async def serve(self) -> None:
        """Accept requests until :meth:`stop`; return when the last one was answered."""
        await self.listen()
        if self._stopping:
            return
        assert self._socket is not None, "listen has bound it"
        self._state.tell_date()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._config, self._state, self._limits, self._busy),
            sock=self._socket,
            backlog=_BACKLOG,
            ssl=self._tls,
        )
        where = self._listening_on
        say(
            _log.info,
            f"[HTTP] server listening on: {where}",
            "[HTTP] server listening",
            addr=where,
        )
        try:
            while not self._stopped.is_set():
                try:
                    async with asyncio.timeout(1):
                        await self._stopped.wait()
                except TimeoutError:
                    self._state.tell_date()
            await self._state.drained()
        except asyncio.CancelledError:
            await self.stop(0)
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Take no new requests, let those that are answered finish, then cut the rest.

        May be called again, with less grace, while it waits.
        """
        if not self._stopping:
            self._stopping = True
            _log.info("[HTTP] server stopping")
            if self._server is not None:
                self._server.close()
            elif self._socket is not None:
                self._socket.close()
        for connection in self._state.open:
            connection.shutdown()
        try:
            async with asyncio.timeout(grace):
                await self._state.drained()
        except TimeoutError:
            if grace:
                _log.warning("[HTTP] server couldn't stop gracefully in time, doing force stop")
        finally:
            self._state.cut()
            self._stopped.set()
        await self._state.drained()


class _State(ServerState):
    """What connections share, and when all of them are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = asyncio.Event()

    @property
    def open(self) -> "list[_Connection | WebSocketConnection]":
        """The connections of now."""
        kinds = (_Connection, WebSocketConnection)
        return [each for each in self.connections if isinstance(each, kinds)]

    def tell_date(self) -> None:
        """Bring the Date header up to the second."""
        self.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]

    def cut(self) -> None:
        """End whatever is still going on."""
        for connection in self.open:
            connection.transport.abort()
        for task in self.tasks:
            task.cancel()

    async def drained(self) -> None:
        """Wait until no connection is open and no request is handled."""
        while self.connections or self.tasks:
            self.changed.clear()
            tasks = list(self.tasks)
            if tasks:
                await asyncio.wait(tasks)
            else:
                await self.changed.wait()


class _Connection(HttpToolsProtocol):
    """A connection with deadlines for whatever the client has to do next."""

    def __init__(self, config: Config, state: _State, limits: HttpLimits, busy: bytes) -> None:
        super().__init__(config, state, {})
        self.logger = _uvicorn_log
        self.access_log = False
        self._state = state
        self._limits = limits
        self._busy = busy
        self._gone: deque[asyncio.Task[Any]] = deque(maxlen=limits.pipelined + 1)
        self._feeding = False
        self._wanted: float | None = None
        self._changes = False
        self._overhead = 0
        self._came = 0
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            transport.write(_BUSY % (len(self._busy), self._busy))
            self._close()
        else:
            self._read_within(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._read_within(None)
        self._write_within(None)
        super().connection_lost(exc)
        for task in self._gone:
            task.cancel()
        self._state.changed.set()

    def data_received(self, data: bytes) -> None:
        self._feeding = True
        if self._reading is None and not self._answering():
            self._read_within(self._limits.head_s)
        self._overhead += len(data)
        try:
            super().data_received(data)
        finally:
            self._feeding = False
        if self._changes:
            self._changes = False
            self._read_within(self._wanted)
        if self._overhead > self._limits.head_bytes and not self.transport.is_closing():
            if not self._answering():
                self.transport.write(_HEAD_TOO_LARGE)
            self._close()

    def on_message_begin(self) -> None:
        self._read_within(self._limits.head_s)
        super().on_message_begin()
        cast("Scope", self.scope)[GONE] = self._gone

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= self._limits.pipelined:
            raise ValueError("too many requests are sent at once")
        most = self._limits.head_bytes
        if self._overhead > most and sum(len(k) + len(v) for k, v in self.headers) > most:
            raise ValueError("the head is too large")  # it came in one piece
        self._came = 0
        self._read_within(self._limits.body_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        # a chunk of one byte travels as six
        self._overhead = max(0, self._overhead - _CHUNKED_BYTES * len(body))
        self._came += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        self._read_within(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._write_within(self._limits.write_s)

    def send_400_response(self, msg: str) -> None:
        if self._answering():  # it would be taken for the answer to the request before
            self.transport.abort()
        else:
            super().send_400_response(msg)
            self._write_within(self._limits.write_s)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_within(self._limits.write_s)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._write_within(None)

    def handle_websocket_upgrade(self) -> None:
        self._read_within(None)
        self._write_within(None)
        super().handle_websocket_upgrade()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _close(self) -> None:
        """Close when what was written is sent, and not much later."""
        self.transport.close()
        self._write_within(self._limits.write_s)

    def _read_within(self, seconds: float | None) -> None:
        if self._feeding:  # most requests come as a whole: what they want first and last is nothing
            self._wanted, self._changes = seconds, True
            return
        if self._reading is not None:
            self._reading.cancel()
        self._reading = (
            None if seconds is None else self.loop.call_later(seconds, self._read_too_long)
        )

    def _read_too_long(self) -> None:
        """Hang up on a client that does not finish what it began.

        One that we do not listen to, because an earlier request of it is answered, has time.
        """
        self._reading = None
        rate = self._limits.body_rate
        steady = rate is not None and self._came >= rate * self._limits.body_s
        if self.flow.read_paused or self.pipeline or steady:
            self._came = 0
            self._read_within(self._limits.body_s)
        else:
            self._close()

    def _write_within(self, seconds: float | None) -> None:
        if self._writing is not None:
            self._writing.cancel()
        self._writing = (
            None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
        )


def _bound(address: ListenAddress) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: it cannot be had; the text names the address.
    """
    host = address.resolve()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with the protocol spelt out asyncio turns Nagle's algorithm off, worth 40 ms a reply
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not address.wildcard)
        bound.bind((host, address.port))
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        where = join_host_port(host, address.port)
        raise OSError(
            error.errno, f"[HTTP] server cannot listen on {where}: {error.strerror}"
        ) from error
    return bound
