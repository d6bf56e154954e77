"""The lean engine's server: accepts connections, runs a handler in a task for every call.

The common call, one message in and one out without metadata of its own, is answered by three frames
written as one: see :meth:`ServerConnection._reply`. Everything else takes the longer way through
:meth:`~kit.transport.lean.connection.Http2Connection.send_body`.
"""

import asyncio
import errno
import socket
import ssl
import time
from collections import deque
from collections.abc import Coroutine
from math import inf
from struct import Struct
from typing import Any

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    RawMetadata,
    Route,
    Router,
    RpcFailed,
    StreamHandler,
    UnaryHandler,
    UnaryRoute,
)
from kit.transport.host import join_host_port
from kit.transport.lean.calls import (
    ACCEPT_ENCODING,
    CONTENT_TYPE,
    ENCODING,
    Malformed,
    RequestHead,
    check_trailers,
    metadata_block,
    request_head,
    sent_pairs,
    status_pairs,
)
from kit.transport.lean.connection import PingPatience, Stream
from kit.transport.lean.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGEST_STREAM_ID,
    PING,
    ErrorCode,
    StreamFailure,
    frame,
    goaway,
    pack_header,
)
from kit.transport.lean.guard import Guard
from kit.transport.lean.headers import Block, literal
from kit.transport.lean.messages import (
    PREFIX_BYTES,
    Inbox,
    framed,
    unpack_prefix,
    weight,
)
from kit.transport.lean.tls import TlsSocket, server_context
from kit.transport.lean.wire import Wire
from kit.transport.tls import ServerTls

_BACKLOG = 1_024
_ROUTES_KEPT = 10_000
_OPEN = ((":status", "200"), CONTENT_TYPE, ACCEPT_ENCODING)
_OK = (("grpc-status", "0"),)
_DRAIN_PING = b"kit-away"
_DRAIN_WAIT = 1.0
_FIRST_MESSAGE_WAIT = 0.05
_EARLY = 0.1  # seconds that a client's deadline may pass ahead of the one noted here, at most
_NO_GRPC = b"This port speaks gRPC: POST, content-type application/grpc.\n"
_CUT = "Server shutting down"


class ServerStream(Stream):
    """A call being served; see :class:`~kit.transport.grpc.engine.ServerCall`."""

    route: Route | None = None
    deadline: float | None = None
    task: asyncio.Task[None] | None = None
    begun = False  # the task has had its first turn
    ended = False  # nothing can be sent any more
    opened = False  # initial metadata is out
    trailing: RawMetadata = ()
    inbox: Inbox | None = None
    messages: deque[bytes] | None = None
    size = 0  # of all DATA, to be held against content-length
    grown = 0.0  # when it was first seen without progress; 0 for never
    taken = 0  # bytes of the body that were out then
    reader: asyncio.Future[None] | None = None
    writer: asyncio.Future[None] | None = None
    refusal: RpcFailed | None = None  # why nobody serves it
    failure: RpcFailed | None = None  # what reading meets after the messages
    gzip = False  # the answer is compressed

    def __init__(self, stream_id: int, connection: "ServerConnection", head: RequestHead) -> None:
        super().__init__(stream_id, connection.peer_window, connection.guard.stream_window)
        self.connection = connection
        self.head = head
        if connection.server.gzip and head.takes_gzip:
            self.gzip = True

    @property
    def peer(self) -> str:
        """The client's address."""
        return self.connection.peer

    @property
    def metadata(self) -> RawMetadata:
        """What the client sent along."""
        return self.head.metadata

    def cancelled(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self.ended

    async def send_initial_metadata(self, metadata: RawMetadata) -> None:
        """Send ``metadata`` ahead of the first message."""
        assert not self.opened, "initial metadata goes out once, ahead of the first message"
        self.connection.open_reply(self, metadata)

    def set_trailing_metadata(self, metadata: RawMetadata) -> None:
        """Send ``metadata`` with an OK status."""
        self.trailing = metadata

    async def read(self) -> bytes | None:
        """The next message."""
        messages = self.messages
        assert messages is not None, "a unary handler is given its message"
        while not messages:
            if self.failure is not None:
                raise self.failure
            if self.received or self.ended:
                return None
            self.reader = self.connection.loop.create_future()
            try:
                await self.reader
            finally:
                self.reader = None
        message = messages.popleft()
        connection = self.connection
        if not self.ended:
            connection.hold(self, -weight(message))
            if not messages:
                connection.grant(self)
        return message

    async def write(self, message: bytes) -> None:
        """Send one message; waits for window."""
        await self.written()  # a write that was cancelled is still under way
        if self.ended:
            raise asyncio.CancelledError
        if not self.opened:
            self.connection.open_reply(self, ())
        self.connection.send_body(self, framed(message, gzip=self.gzip), None)
        await self.written()

    async def written(self) -> None:
        """Wait until all of the last message is out."""
        while self.body is not None and not self.ended:
            if self.writer is None or self.writer.done():
                self.writer = self.connection.loop.create_future()
            await asyncio.shield(self.writer)


class ServerConnection(Wire):
    """One client."""

    streams: dict[int, ServerStream]  # type: ignore[assignment]

    __slots__ = ("_draining", "_final_id", "_patience", "limit", "server")

    def __init__(self, server: "LeanServer") -> None:
        super().__init__(
            client=False,
            guard=server.guard,
            keepalive=server.keepalive,
            most_streams=server.limits.streams_per_connection,
        )
        self.server = server
        self.limit = server.limits.receive_bytes
        self._patience = PingPatience(server.keepalive.accepted_interval, server.guard.ping_strikes)
        self._final_id: int | None = None  # calls beyond it are not taken: the server stops
        self._draining = False

    # Calls come in.

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Take the client, unless there are enough of them."""
        if self.server.admit(self):
            super().attach(transport)
        else:
            transport.close()
            self.lost = self.closed = True

    def on_headers(self, stream: Stream | None, stream_id: int, block: Block, *, end: bool) -> None:
        """A call, or the trailers of a request."""
        try:
            if stream is None:
                self._begin(stream_id, request_head(block), end=end)
                return
            check_trailers(block)
        except Malformed as exc:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, str(exc)) from exc
        assert isinstance(stream, ServerStream)
        if not end:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "HEADERS amid a body")
        self.on_data(stream, b"", end=True)

    def _begin(self, stream_id: int, head: RequestHead, *, end: bool) -> None:
        if self._final_id is not None and stream_id > self._final_id:
            raise StreamFailure(stream_id, ErrorCode.REFUSED_STREAM, "the server stops")
        server = self.server
        route = server.routes.get(head.method)
        failure = head.failure
        if route is None and failure is None and head.http_status == "200":
            found = server.find(head.method)
            if isinstance(found, RpcFailed):
                failure = found
            else:
                route = found
        if server.running >= server.limits.concurrent_calls and failure is None:
            failure = RpcFailed(GrpcCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
        stream = ServerStream(stream_id, self, head)
        stream.received = end
        self.streams[stream_id] = stream
        if failure is not None:
            self._turn_away(stream, failure, end=end)
            return
        stream.route = route
        if head.timeout is not None:
            stream.deadline = deadline = time.monotonic() + head.timeout
            self.watch(deadline)
        if route is not None and not isinstance(route, UnaryRoute):
            stream.messages = deque()
            self._run(stream, self._serve_stream(stream, route.handler))
        if end:
            self.on_data(stream, b"", end=True)

    def _turn_away(self, stream: ServerStream, failure: RpcFailed, *, end: bool) -> None:
        """Fail a call that nobody serves, once its message is there.

        grpcio's clients take it amiss when a call ends while they still write its first message.
        """
        if end:
            self.fail_call(stream, failure)
            return
        stream.refusal = failure
        self.loop.call_later(_FIRST_MESSAGE_WAIT, self.fail_call, stream, failure)

    def on_data(self, stream: Stream, payload: bytes, *, end: bool) -> None:
        """A part of a request."""
        assert isinstance(stream, ServerStream)
        head = stream.head
        if stream.refusal is not None:
            self.fail_call(stream, stream.refusal)
            return
        if head.length is not None:
            stream.size += len(payload)
            if stream.size > head.length or (end and stream.size < head.length):
                raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR, "content-length")
        route = stream.route
        if isinstance(route, UnaryRoute):
            if end and stream.inbox is None and len(payload) >= PREFIX_BYTES:
                flag, size = unpack_prefix(payload)
                if flag == 0 and size == len(payload) - PREFIX_BYTES and size <= self.limit:
                    self._run(
                        stream, self._serve_unary(stream, route.handler, payload[PREFIX_BYTES:])
                    )
                    return
            self._collect_unary(stream, route.handler, payload, end=end)
        elif route is not None:
            self._collect(stream, payload, end=end)
        elif end:
            self._answer_in_http(stream)
        else:
            self.grant(stream)

    def _answer_in_http(self, stream: ServerStream) -> None:
        """To something that is no gRPC: a status that anything which speaks HTTP understands."""
        stream.opened = True
        fields = ((":status", stream.head.http_status), ("content-type", "text/plain"))
        self.send_block(stream.id, b"".join(literal(*pair) for pair in fields))
        if self.send_body(stream, _NO_GRPC, ()):
            self._end(stream)
            self._finished(stream)

    def _collect_unary(
        self, stream: ServerStream, handler: UnaryHandler, payload: bytes, *, end: bool
    ) -> None:
        """A request in parts, compressed, too large, or not one message."""
        if stream.inbox is None:
            stream.inbox = Inbox(self.limit, gzip=stream.head.gzip)
            stream.messages = deque()
        assert stream.messages is not None
        stream.grown = 0.0
        try:
            messages = stream.inbox.feed(payload)
            if len(stream.messages) + len(messages) > 1 or (end and stream.inbox.size):
                raise _not_one_message()
            stream.messages.extend(messages)
            if end and not stream.messages:
                raise _not_one_message()
        except RpcFailed as failure:
            self.fail_call(stream, failure)
            return
        if end:
            self.hold(stream, -stream.held)
            stream.inbox = None
            self._run(stream, self._serve_unary(stream, handler, stream.messages.popleft()))
        else:
            self.hold(stream, len(payload))
            self.grant(stream)

    def _collect(self, stream: ServerStream, payload: bytes, *, end: bool) -> None:
        if stream.inbox is None:
            stream.inbox = Inbox(self.limit, gzip=stream.head.gzip)
        messages = stream.messages
        assert messages is not None
        if stream.failure is not None:
            return
        partly = stream.inbox.size
        try:
            complete = stream.inbox.feed(payload)
            if end and stream.inbox.size:
                raise RpcFailed(GrpcCode.INTERNAL, "grpc: the request ends inside a message")
        except RpcFailed as failure:
            stream.failure = failure
            complete = []
        messages.extend(complete)
        self.hold(stream, stream.inbox.size - partly + sum(map(weight, complete)))
        news = messages or end or stream.failure is not None
        if news and stream.reader is not None and not stream.reader.done():
            stream.reader.set_result(None)
        if not messages and stream.failure is None:
            self.grant(stream)  # a message larger than the window has to become whole

    # Handlers.

    def _run(self, stream: ServerStream, work: Coroutine[Any, Any, None]) -> None:
        self.server.running += 1
        stream.task = self.loop.create_task(work)

    async def _serve_unary(
        self, stream: ServerStream, handler: UnaryHandler, request: bytes
    ) -> None:
        stream.begun = True
        try:
            self._reply(stream, await handler(request, stream))
        except RpcFailed as failure:
            self.fail_call(stream, failure)
        finally:
            self._served(stream)

    async def _serve_stream(self, stream: ServerStream, handler: StreamHandler) -> None:
        stream.begun = True
        try:
            await handler(stream)
            await stream.written()
            if not stream.ended:
                if not stream.opened:
                    self.open_reply(stream, ())
                self._finish_with(stream, b"")
        except RpcFailed as failure:
            self.fail_call(stream, failure)
        finally:
            self._served(stream)

    def _served(self, stream: ServerStream) -> None:
        """The handler's task is over, however it ended."""
        stream.task = None
        if not stream.ended and stream.body is None:
            # Neither a reply nor a failure: it was cancelled by its own doing, or broke its promise
            # to raise nothing else, which asyncio reports.
            self.fail_call(stream, RpcFailed(GrpcCode.CANCELLED, "the handler gave up"))
        self.server.call_ended()

    # Answers go out.

    def _reply(self, stream: ServerStream, message: bytes) -> None:
        if stream.ended:
            return
        size = len(message) + PREFIX_BYTES
        if (
            stream.opened
            or stream.gzip
            or stream.trailing
            or size > self.window
            or size > stream.window
            or size > self.peer_frame
            or self.paused
        ):
            if not stream.opened:
                self.open_reply(stream, ())
            self._finish_with(stream, framed(message, gzip=stream.gzip))
            return
        self.window -= size
        self.answered += 1
        kept = self.encoder.kept
        start = kept.get("open") or self.encoder.stable("open", _OPEN)
        end = kept.get("ok") or self.encoder.stable("ok", _OK)
        stream_id = stream.id
        self.send(
            _pack_opening(0, len(start), HEADERS, END_HEADERS, stream_id)
            + start
            + _pack_body(size >> 8, size & 0xFF, DATA, 0, stream_id, 0, size - PREFIX_BYTES)
            + message
            + _pack_opening(0, len(end), HEADERS, END_HEADERS | END_STREAM, stream_id)
            + end
        )
        stream.ended = True
        del self.streams[stream_id]
        if self._draining or not stream.received:
            self._finished(stream)

    def open_reply(self, stream: ServerStream, metadata: RawMetadata) -> None:
        """Send the initial metadata."""
        if stream.ended:
            raise asyncio.CancelledError
        more = metadata_block(metadata)  # first: a block of the encoder has to be sent
        stream.opened = True
        block = self.encoder.kept.get("open") or self.encoder.stable("open", _OPEN)
        if stream.gzip:
            block += literal(*ENCODING)
        self.send_block(stream.id, block + more)

    def _finish_with(self, stream: ServerStream, body: bytes) -> None:
        """Send the last of a call that succeeded."""
        if self.send_body(stream, body, (*_OK, *sent_pairs(stream.trailing))):
            self._end(stream)
            self._finished(stream)

    def fail_call(self, stream: ServerStream, failure: RpcFailed) -> None:
        """End a call with a status."""
        if stream.ended:
            return
        stream.body = None
        self.blocked.pop(stream.id, None)
        status = b"".join(literal(*pair) for pair in status_pairs(failure))
        block = b""
        if failure.headers and not stream.opened:
            self.open_reply(stream, failure.headers)
        elif not stream.opened:
            block = self.encoder.kept.get("open") or self.encoder.stable("open", _OPEN)
        self._end(stream)
        self.answered += 1
        self.send_block(stream.id, block + status, end=True)
        self._finished(stream)

    def on_drained(self, stream: Stream) -> None:
        """A body went out that had to wait."""
        assert isinstance(stream, ServerStream)
        stream.grown = 0.0
        if stream.trailers is not None:
            self._end(stream)
            self._finished(stream)
        elif stream.writer is not None and not stream.writer.done():
            stream.writer.set_result(None)

    def _end(self, stream: ServerStream) -> None:
        stream.ended = True
        self.forget(stream.id)

    def _finished(self, stream: ServerStream) -> None:
        """After the answer: what the client still sends is not wanted."""
        if not stream.received:
            self.send_reset(stream.id, ErrorCode.NO_ERROR)
        if self._final_id is not None and not self.streams:
            self.close("Server shutting down")

    # Calls end early.

    def on_reset(self, stream: Stream, code: int) -> None:
        """The client gave a call up."""
        assert isinstance(stream, ServerStream)
        self._abandon(stream)
        if self._final_id is not None and not self.streams:
            self.close(_CUT)

    def _abandon(self, stream: ServerStream) -> None:
        """Nobody waits for this call: stop its handler."""
        stream.ended = True
        stream.body = None
        for waiter in (stream.reader, stream.writer):
            if waiter is not None and not waiter.done():
                waiter.cancel()
        if stream.task is not None:
            self.server.cancel(stream, stream.task)

    def on_deadline(self, now: float) -> float:
        """Cut the calls that nobody waits for any more."""
        following = inf
        for stream in list(self.streams.values()):
            deadline = stream.deadline
            if deadline is None:
                continue
            if deadline > now:
                following = min(following, deadline)
                continue
            self.fail_call(stream, RpcFailed(GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
            self._abandon(stream)
        return following

    def on_stall(self, now: float) -> None:
        """Give up unary requests that do not come, and answers that are not taken."""
        for stream in list(self.streams.values()):
            waits = stream.body is not None or (stream.task is None and not stream.received)
            if not waits:
                continue
            if not stream.grown or (stream.body is not None and stream.sent != stream.taken):
                stream.grown, stream.taken = now, stream.sent
            elif now - stream.grown > self.guard.stall:
                text = "grpc: no progress for too long"
                self.fail_call(stream, RpcFailed(GrpcCode.CANCELLED, text))
                self._abandon(stream)

    def on_ping(self) -> None:
        """A client may not ask too often."""
        self._patience.ping(self.answered)

    def premature(self, stream: Stream) -> bool:
        """A client that waited as long as it said it would takes nothing back."""
        assert isinstance(stream, ServerStream)
        timeout = stream.head.timeout
        if timeout is None or stream.deadline is None:
            return True
        return time.monotonic() < stream.deadline - min(_EARLY, timeout / 2)

    def on_lost(self, reason: str) -> None:
        """The client is gone."""
        streams = list(self.streams.values())
        self.streams.clear()
        self.blocked.clear()
        for stream in streams:
            self._abandon(stream)
        self.server.dismiss(self)

    # The server stops.

    def drain(self) -> None:
        """Take no new calls, and close after the last one that runs."""
        if self._draining or self.lost:
            return
        self._draining = True
        # In two steps, so that calls which are on their way are not lost: once the client has
        # answered the ping it knows that no new ones are wanted.
        self.send(goaway(LARGEST_STREAM_ID, ErrorCode.NO_ERROR) + frame(PING, 0, 0, _DRAIN_PING))
        self.loop.call_later(_DRAIN_WAIT, self._drain_finally)

    def on_pong(self, payload: bytes) -> None:
        """The client knows that the server stops."""
        if payload == _DRAIN_PING and self._draining:
            self._drain_finally()

    def _drain_finally(self) -> None:
        if self._final_id is not None or self.lost:
            return
        self._final_id = self.last_id
        self.send(goaway(self.last_id, ErrorCode.NO_ERROR))
        if not self.streams:
            self.close(_CUT)


class LeanServer:
    """Serves on the loop itself; see :class:`~kit.transport.grpc.engine.ServerEngine`.

    Args:
        router: finds what serves a method.
        tls: the identity, ``None`` for plain text.
        limits: what peers may take.
        keepalive: when silent peers are asked.
        gzip: compress answers to clients that take it.
        guard: what a peer may do to a connection.
    """

    def __init__(
        self,
        router: Router,
        *,
        tls: ServerTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self.limits = limits
        self.keepalive = keepalive
        self.gzip = gzip
        self.guard = guard or Guard()
        self.routes: dict[str, Route] = {}
        self.running = 0
        self._router = router
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[ServerConnection] = set()
        self._cancelled: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._quiet: asyncio.Event | None = None

    async def listen(self, host: str, port: int) -> int:
        """Bind ``host:port``."""
        if self._tls is not None:
            self._context = server_context(self._tls)
        self._socket = _bound(host, port)
        bound: int = self._socket.getsockname()[1]
        return bound

    async def start(self) -> None:
        """Accept calls."""
        assert self._socket is not None, "listen() comes before start()"
        self._server = await asyncio.get_running_loop().create_server(
            self._accepted, sock=self._socket, backlog=_BACKLOG
        )

    def _accepted(self) -> asyncio.Protocol:
        connection = ServerConnection(self)
        return connection if self._context is None else TlsSocket(connection, self._context)

    async def stop(self, grace: float | None) -> None:
        """Drain, then cut."""
        self._stopping = True
        if self._quiet is None:
            self._quiet = asyncio.Event()
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        for connection in list(self._connections):
            connection.drain()
        self._check_quiet()
        if grace != 0:
            try:
                async with asyncio.timeout(grace):
                    await self._quiet.wait()
            except TimeoutError:
                pass  # what still runs is cut below
        for connection in list(self._connections):
            connection.close(_CUT)
        await self._quiet.wait()

    # For its connections.

    def find(self, method: str) -> Route | RpcFailed:
        """What serves ``method``; kept in :attr:`routes`."""
        route = self._router(method)
        if not isinstance(route, RpcFailed) and len(self.routes) < _ROUTES_KEPT:
            self.routes[method] = route
        return route

    def admit(self, connection: ServerConnection) -> bool:
        """Whether one more client is welcome."""
        if self._stopping or len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def dismiss(self, connection: ServerConnection) -> None:
        """A client is gone."""
        self._connections.discard(connection)
        self._check_quiet()

    def call_ended(self) -> None:
        """A handler has ended."""
        self.running -= 1
        if self._stopping:
            self._check_quiet()

    def cancel(self, stream: ServerStream, task: asyncio.Task[None]) -> None:
        """Stop a handler; it may need a while to end, and counts until then."""
        self._cancelled.add(task)  # the loop itself would not keep it alive
        begun = stream.begun

        def ended(done: asyncio.Task[None]) -> None:
            self._cancelled.discard(done)
            if not begun:  # cancelled ahead of its first step, it never got to count itself out
                self.call_ended()

        task.add_done_callback(ended)
        task.cancel()

    def _check_quiet(self) -> None:
        if self._quiet is not None and not self.running and not self._connections:
            self._quiet.set()


def _not_one_message() -> RpcFailed:
    return RpcFailed(GrpcCode.INTERNAL, "grpc: a unary request has to be exactly one message")


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket: nobody else's port, IPv4 as well when it is ``::``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio turns Nagle's algorithm off only where it reads TCP there, or
    # a reply behind an answered PING waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        reason = (exc.strerror or str(exc)).lower()
        raise OSError(
            exc.errno or errno.EADDRNOTAVAIL,
            f"cannot listen on {join_host_port(host, port)}: {reason}",
        ) from exc
    return sock


_pack_opening = pack_header
_pack_body = Struct(">HBBBIBI").pack
