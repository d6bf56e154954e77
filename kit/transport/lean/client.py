"""The lean engine's client: one connection to one address, made when it is needed and made again.

A call waits while the first attempt to connect runs. After a failed attempt calls fail at once,
until the time for the next one has come; that time grows from 0.2 s to 2 s. A call that certainly
never reached the peer's code says so; one that lost a race with the end of a connection, or with
the peer's limit of streams, is sent again by itself.

Source: the connection states of gRPC's connectivity-semantics-and-api.md and connection-backoff.md;
transparent retries of gRFC A6.
"""

import asyncio
import os
import random
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    RawMetadata,
    Reply,
    RpcFailed,
)
from kit.transport.lean.calls import (
    ACCEPT_ENCODING,
    CONTENT_TYPE,
    ENCODING,
    Malformed,
    ReplyHead,
    metadata_block,
    reply_head,
    reset_failure,
    timeout_field,
)
from kit.transport.lean.connection import Stream
from kit.transport.lean.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    LARGEST_STREAM_ID,
    ErrorCode,
    StreamFailure,
    pack_header,
)
from kit.transport.lean.guard import Guard
from kit.transport.lean.headers import Block, Pair
from kit.transport.lean.messages import (
    PREFIX_BYTES,
    Inbox,
    framed,
    pack_prefix,
    too_large,
    unpack_prefix,
    weight,
)
from kit.transport.lean.tls import TlsSocket, client_context
from kit.transport.lean.wire import Wire
from kit.transport.tls import ClientTls

CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_MOST_S = 1.0, 8.0
"""How long an attempt to connect may take, doubled after each that took too long: or a machine that
is slow with many connections would never have one."""
BACKOFF_S, BACKOFF_MOST_S, BACKOFF_GROWTH, BACKOFF_JITTER = 0.2, 2.0, 1.6, 0.2
WAITING = 10_000
"""Calls of one connection that may wait for a stream; further ones are RESOURCE_EXHAUSTED."""
REFUSALS, REFUSED_PAUSE_S = 8, 0.002
"""How often a call that the peer did not begin is sent again, and after how long at first."""
_USER_AGENT = ("user-agent", "kit-grpc-lean/1")
_TE = ("te", "trailers")
_CLOSED = "the connection was closed"


class ClientCall(Stream):
    """A call that this side made, with its answer as far as it is there."""

    deadline: float | None = None
    data = b""
    head: ReplyHead | None = None
    inbox: Inbox | None = None
    failure: RpcFailed | None = None
    trailers_received: RawMetadata | None = None
    messages: deque[bytes] | None = None  # streams only
    waiter: asyncio.Future[None] | None = None  # of a stream: anything has come
    writer: asyncio.Future[None] | None = None
    future: asyncio.Future[Reply]  # unary only

    @property
    def ended(self) -> bool:
        """Whether the status is there."""
        return self.failure is not None or self.trailers_received is not None

    def stir(self) -> None:
        """Tell whoever waits that something has come."""
        for waiter in (self.waiter, self.writer if self.ended else None):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)


class ClientConnection(Wire):
    """A connection that stands, or stood."""

    streams: dict[int, ClientCall]  # type: ignore[assignment]

    __slots__ = (
        "_authority",
        "_next_id",
        "_scheme",
        "_waiting",
        "gzip",
        "hello",
        "leaving",
        "limit",
    )

    def __init__(
        self,
        authority: str,
        scheme: str,
        limits: Limits,
        keepalive: Keepalive,
        guard: Guard,
        *,
        gzip: bool = False,
    ) -> None:
        super().__init__(client=True, guard=guard, keepalive=keepalive)
        self.limit = limits.receive_bytes
        self.hello: asyncio.Future[None] = self.loop.create_future()
        self.leaving = False  # the peer takes no new calls
        self.gzip = gzip
        self._authority = authority
        self._scheme = scheme
        self._next_id = 1
        self._waiting: list[asyncio.Future[None]] = []  # mostly none, and a deque takes 0.7 kB

    @property
    def usable(self) -> bool:
        """Whether a call may begin here."""
        return not (self.closed or self.leaving)

    # Calls go out.

    @property
    def full(self) -> bool:
        """Whether the peer takes no more calls at the moment."""
        return len(self.streams) >= self.peer_streams or bool(self._waiting)

    async def room(self, deadline: float | None) -> None:
        """Wait until the peer takes one more call.

        Raises:
            RpcFailed: too many wait already, the deadline passed, or the connection is gone.
        """
        while self.full and self.usable:
            if len(self._waiting) >= WAITING:
                raise RpcFailed(
                    GrpcCode.RESOURCE_EXHAUSTED,
                    f"{WAITING} calls wait for a stream already",
                    unsent=True,
                )
            turn: asyncio.Future[None] = self.loop.create_future()
            self._waiting.append(turn)
            try:
                async with asyncio.timeout(
                    None if deadline is None else max(deadline - time.monotonic(), 0.0)
                ):
                    await turn
            except BaseException as exc:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                self._next_turn()  # a turn that was given is not lost with the one who got it
                if isinstance(exc, TimeoutError):
                    raise _deadline_exceeded() from None
                raise
            if len(self.streams) < self.peer_streams:
                break
        if not self.usable:
            raise RpcFailed(GrpcCode.UNAVAILABLE, "the connection went away", unsent=True)

    def open(
        self, method: str, metadata: RawMetadata, deadline: float | None
    ) -> tuple[ClientCall, bytes]:
        """A new call, and the header block to send for it, next.

        Raises:
            RpcFailed: INTERNAL; no header can carry ``method``.
        """
        # All that cannot be written is found out first: then the call does not exist, and the
        # tables of both sides still agree.
        try:
            more = metadata_block(metadata) if metadata else b""
            block = self.encoder.kept.get(method) or self._new_block(method)
        except BaseException:
            self._next_turn()
            raise
        stream_id = self._next_id
        self._next_id = stream_id + 2
        if stream_id > LARGEST_STREAM_ID - 2:
            self.leaving = True
        self.last_id = stream_id
        call = ClientCall(stream_id, self.peer_window, self.guard.stream_window)
        self.streams[stream_id] = call
        if deadline is not None:
            call.deadline = deadline
            block += timeout_field(deadline - time.monotonic())
            if deadline < self._deadline:
                self.watch(deadline)
        return call, block + more

    def _new_block(self, method: str) -> bytes:
        if not (method.isascii() and method.isprintable()):
            text = f"grpc: the method {method!r} is not of printable ASCII and cannot be sent"
            raise RpcFailed(GrpcCode.INTERNAL, text, unsent=True)
        return self.encoder.stable(method, self._opening(method))

    def _opening(self, method: str) -> tuple[Pair, ...]:
        return (
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", method),
            (":authority", self._authority),
            _TE,
            CONTENT_TYPE,
            _USER_AGENT,
            ACCEPT_ENCODING,
            *((ENCODING,) if self.gzip else ()),
        )

    def unary(
        self, method: str, request: bytes, metadata: RawMetadata, deadline: float | None
    ) -> ClientCall:
        """Send a whole call; its ``future`` brings the reply."""
        call, block = self.open(method, metadata, deadline)
        call.future = self.loop.create_future()
        size = len(request) + PREFIX_BYTES
        if (
            size > self.window
            or size > call.window
            or size > self.peer_frame
            or len(block) > self.peer_frame
            or self.gzip
            or self.paused
        ):
            self.send_block(call.id, block)
            self.send_body(call, framed(request, gzip=self.gzip), ())
            return call
        self.window -= size
        call.window -= size
        self.answered += 1
        length = len(block)
        self.send(
            pack_header(length >> 8, length & 0xFF, HEADERS, END_HEADERS, call.id)
            + block
            + pack_header(size >> 8, size & 0xFF, DATA, END_STREAM, call.id)
            + pack_prefix(0, len(request))
            + request
        )
        return call

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> ClientCall:
        """Open a call with any number of messages."""
        call, block = self.open(method, metadata, deadline)
        call.messages = deque()
        self.send_block(call.id, block)
        return call

    def give_up(self, call: ClientCall, failure: RpcFailed) -> None:
        """End a call from this side."""
        if call.id in self.streams:
            self.send_reset(call.id, ErrorCode.CANCEL)
            self._settle(call, failure)

    # Answers come in.

    def on_headers(self, stream: Stream | None, stream_id: int, block: Block, *, end: bool) -> None:
        """The beginning of an answer, its end, or both."""
        assert isinstance(stream, ClientCall), "answers have calls"
        try:
            head = reply_head(block)
        except Malformed as exc:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, str(exc)) from exc
        if head.informational and not end:
            return
        if head.failure is not None:
            self._break(stream, _copy(head.failure))  # it is kept with the block, for others
            return
        if not end:
            if stream.head is not None:
                raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "HEADERS amid a body")
            stream.head = head
            stream.stir()
            return
        if head.status is GrpcCode.OK:
            self._succeed(stream, head)
            return
        status = GrpcCode.UNKNOWN if head.status is None else head.status
        message = head.message if head.status is not None else "grpc: the answer has no grpc-status"
        self._close(
            stream, RpcFailed(status, message, head.metadata, headers=self._initial(stream))
        )

    def on_data(self, stream: Stream, payload: bytes, *, end: bool) -> None:
        """A part of an answer."""
        assert isinstance(stream, ClientCall)
        if stream.head is None:
            raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR, "DATA ahead of HEADERS")
        if stream.messages is None and not stream.data and stream.inbox is None:
            stream.data = payload  # mostly this is all of it
        else:
            self._collect(stream, payload)
        if end and stream.id in self.streams:
            self._close(stream, RpcFailed(GrpcCode.INTERNAL, "grpc: the answer has no trailers"))

    def _collect(self, call: ClientCall, payload: bytes) -> None:
        if call.inbox is None:
            call.inbox = Inbox(self.limit, gzip=call.head is not None and call.head.gzip)
            if call.messages is None:
                call.messages = deque()
            payload = call.data + payload
            call.data = b""
        assert call.messages is not None
        partly = call.inbox.size
        try:
            complete = call.inbox.feed(payload)
        except RpcFailed as failure:
            self._break(call, failure)
            return
        call.messages.extend(complete)
        self.hold(call, call.inbox.size - partly + sum(map(weight, complete)))
        call.stir()
        if not call.messages:
            self.grant(call)

    def _succeed(self, call: ClientCall, head: ReplyHead) -> None:
        """The status is OK: a stream ends, a unary call has its one message."""
        if not hasattr(call, "future"):
            call.trailers_received = head.metadata
            self._close(call, None)
            return
        data = call.data
        message = None
        if data and call.inbox is None and len(data) >= PREFIX_BYTES:
            flag, size = unpack_prefix(data)
            if flag == 0 and size == len(data) - PREFIX_BYTES:
                if size > self.limit:
                    self._close(call, too_large(size, self.limit))
                    return
                message = data[PREFIX_BYTES:]
        if message is None:
            self._collect(call, b"")
            if call.failure is not None:
                return
            assert call.inbox is not None
            assert call.messages is not None
            if len(call.messages) != 1 or call.inbox.size:
                text = "grpc: a unary answer has to be exactly one message"
                self._close(call, RpcFailed(GrpcCode.INTERNAL, text))
                return
            message = call.messages[0]
        self._close(call, None)
        if not call.future.done():
            call.future.set_result(Reply(message, self._initial(call), head.metadata))

    def _initial(self, call: ClientCall) -> RawMetadata:
        return () if call.head is None else call.head.metadata

    def _break(self, call: ClientCall, failure: RpcFailed) -> None:
        """What the peer sends is of no use: take the call back."""
        if call.id in self.streams:
            self.send_reset(call.id, ErrorCode.CANCEL)
            self._settle(call, failure)

    def _close(self, call: ClientCall, failure: RpcFailed | None) -> None:
        """The peer has ended a call."""
        unfinished = call.body is not None or not self._half_closed(call)
        self.forget(call.id)
        if unfinished:
            self.send_reset(call.id, ErrorCode.CANCEL)
        self._settle(call, failure)

    def _half_closed(self, call: ClientCall) -> bool:
        return call.trailers == () or hasattr(call, "future")

    def _settle(self, call: ClientCall, failure: RpcFailed | None) -> None:
        """Say how a call went that is no longer among the open ones."""
        if failure is not None:
            call.failure = failure
            if hasattr(call, "future") and not call.future.done():
                call.future.set_exception(failure)
        call.stir()
        if self._waiting and len(self.streams) < self.peer_streams:
            self._next_turn()
        if self.leaving and not self.streams and not self.closed:
            self.close(_CLOSED)

    def _next_turn(self) -> None:
        free = self.peer_streams - len(self.streams)
        while self._waiting and free > 0:
            turn = self._waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def on_reset(self, stream: Stream, code: int) -> None:
        """The peer, or a rule that it broke, ended a call."""
        assert isinstance(stream, ClientCall)
        failure = reset_failure(code)
        if stream.head is not None:
            failure.unsent = False  # whatever it says: it had begun to answer
        late = stream.deadline is not None and time.monotonic() >= stream.deadline
        if late and failure.status is GrpcCode.CANCELLED:
            failure = _deadline_exceeded()
        self._settle(stream, failure)

    def on_drained(self, stream: Stream) -> None:
        """A message went out that had to wait."""
        assert isinstance(stream, ClientCall)
        if stream.writer is not None and not stream.writer.done():
            stream.writer.set_result(None)

    def on_goaway(self, last_id: int, code: int, text: str) -> None:
        """The peer takes no new calls; those that it did not get to may go elsewhere."""
        self.leaving = True
        reason = f"the peer went away: {text or ErrorCode(code).name if code < 14 else code}"
        for call in [call for call in self.streams.values() if call.id > last_id]:
            self.forget(call.id)
            never = call.head is None
            self._settle(call, RpcFailed(GrpcCode.UNAVAILABLE, reason, unsent=never))
        self._wake_waiting()
        if not self.streams and not self.closed:
            self.close(reason)

    def on_settings(self) -> None:
        """The peer has said hello, or what it takes has changed."""
        if not self.hello.done():
            self.hello.set_result(None)
        self._next_turn()

    def on_deadline(self, now: float) -> float:
        """End the calls whose time is over."""
        following = inf
        for call in list(self.streams.values()):
            deadline = call.deadline
            if deadline is None:
                continue
            if deadline <= now:
                self.give_up(call, _deadline_exceeded())
            elif deadline < following:
                following = deadline
        return following

    def on_lost(self, reason: str) -> None:
        """The connection is gone, and with it every open call."""
        calls = list(self.streams.values())
        self.streams.clear()
        self.blocked.clear()
        for call in calls:
            self._settle(
                call,
                RpcFailed(GrpcCode.UNAVAILABLE, reason, headers=self._initial(call)),
            )
        self._wake_waiting()
        if not self.hello.done():
            self.hello.set_exception(ConnectionError(reason))
            self.hello.exception()  # nobody may be left to ask

    def _wake_waiting(self) -> None:
        while self._waiting:
            turn = self._waiting.pop(0)
            if not turn.done():
                turn.set_result(None)


@dataclass(frozen=True, slots=True)
class _Address:
    """Where to connect: a host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""


def parse_address(text: str) -> _Address:
    """Read ``host:port``, ``dns:///host:port``, ``ipv4:…``, ``ipv6:…`` or ``unix:…``.

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith("unix-abstract:"):
        return _Address(path="\0" + text.removeprefix("unix-abstract:"))
    if text.startswith("unix:"):
        return _Address(path=text.removeprefix("unix:").removeprefix("//"))
    rest = text
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        if text.startswith(scheme):
            rest = text.removeprefix(scheme).removeprefix("///")
    host, _, port = rest.rpartition(":")
    if not host or "/" in rest or "," in rest or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"address {text!r} is not one that the lean engine connects to; write host:port, "
            "dns:///host:port or unix:/path, or take the engine grpcio"
        )
    return _Address(host.removeprefix("[").removesuffix("]"), int(port))


class LeanConnection:
    """The way to one address; see :class:`~kit.transport.grpc.engine.Connection`.

    Raises:
        ValueError: ``address`` cannot be understood.
    """

    def __init__(
        self,
        address: str,
        *,
        authority: str | None,
        tls: ClientTls | None,
        limits: Limits,
        keepalive: Keepalive,
        gzip: bool = False,
        guard: Guard | None = None,
    ) -> None:
        self._gzip = gzip
        self._address = parse_address(address)
        self._text = address
        self._tls = tls
        self._limits = limits
        self._keepalive = keepalive
        self._guard = guard or Guard()
        default = "localhost" if self._address.path else address.rpartition("/")[2]
        self._authority = (tls.server_name if tls else None) or authority or default
        self._context: ssl.SSLContext | None = None
        self._current: ClientConnection | None = None
        self._others: set[ClientConnection] = set()  # they end with their last call
        self._attempt: asyncio.Task[ClientConnection] | None = None
        self._failure: RpcFailed | None = None
        self._retry_at = 0.0
        self._backoff = BACKOFF_S
        self._allowed = CONNECT_TIMEOUT_S
        self._closed = False

    async def unary(
        self,
        method: str,
        request: bytes,
        metadata: RawMetadata,
        deadline: float | None,
        *,
        bare: bool = False,
    ) -> Reply:
        """Make one call; a reply always has its metadata, which is there in any case."""
        refused = 0
        while True:
            if deadline is not None and deadline <= time.monotonic():
                raise _deadline_exceeded()
            connection = self._current
            if connection is None or not connection.usable or connection.full:
                connection = await self._ready(deadline)
            # Nothing waits from here on: a turn that was given is used.
            call = connection.unary(method, request, metadata, deadline)
            try:
                return await call.future
            except asyncio.CancelledError:
                connection.give_up(call, RpcFailed(GrpcCode.CANCELLED, "the caller gave up"))
                if call.future.done() and not call.future.cancelled():
                    call.future.exception()  # the caller has gone and asks no more
                raise
            except RpcFailed as failure:
                if not failure.unsent or refused == REFUSALS:
                    raise
                if connection.usable:
                    # The peer has not yet cleared away a call whose answer is here already.
                    await asyncio.sleep(REFUSED_PAUSE_S * 2**refused)
                refused += 1

    def stream(self, method: str, metadata: RawMetadata, deadline: float | None) -> "LeanStream":
        """Open a streaming call."""
        return LeanStream(self, method, metadata, deadline)

    def ready(self) -> bool:
        """Whether the connection stands; when it does not, it starts to connect."""
        current = self._current
        if current is not None and current.usable:
            return True
        if not self._closed and self._attempt is None and time.monotonic() >= self._retry_at:
            self._connect()
        return False

    async def close(self) -> None:
        """Cut what is open."""
        self._closed = True
        attempt = self._attempt
        if attempt is not None:
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
        for connection in {self._current, *self._others} - {None}:
            assert connection is not None
            for call in list(connection.streams.values()):
                connection.give_up(call, RpcFailed(GrpcCode.CANCELLED, "the channel was closed"))
            connection.close(_CLOSED)
        self._current = None
        self._others.clear()

    async def open_stream(
        self, method: str, metadata: RawMetadata, deadline: float | None
    ) -> tuple[ClientConnection, ClientCall]:
        """A connection and a new call on it.

        Raises:
            RpcFailed: there is no connection.
        """
        connection = await self._ready(deadline)
        return connection, connection.stream(method, metadata, deadline)

    async def _ready(self, deadline: float | None) -> ClientConnection:
        """A connection that takes a call now."""
        while True:
            connection = self._current
            if connection is None or not connection.usable:
                connection = await self._connected(deadline)
                if not connection.usable:
                    raise RpcFailed(
                        GrpcCode.UNAVAILABLE, f"{self._text} closed at once", unsent=True
                    )
            if connection.full:
                try:
                    await connection.room(deadline)
                except RpcFailed as failure:
                    if failure.status is GrpcCode.UNAVAILABLE:
                        continue  # it went away while the call waited
                    raise
            return connection

    async def _connected(self, deadline: float | None) -> ClientConnection:
        if self._closed:
            raise RpcFailed(GrpcCode.CANCELLED, "the channel was closed", unsent=True)
        if self._attempt is None:
            if self._failure is not None and time.monotonic() < self._retry_at:
                raise _copy(self._failure)
            self._connect()
        assert self._attempt is not None
        wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        # The attempt goes on without this caller: others wait for it as well.
        done, _ = await asyncio.wait({self._attempt}, timeout=wait)
        if not done:
            raise _deadline_exceeded()
        attempt = done.pop()
        if attempt.cancelled():
            raise RpcFailed(GrpcCode.CANCELLED, "the channel was closed", unsent=True)
        failed = attempt.exception()
        if isinstance(failed, RpcFailed):
            raise _copy(failed)
        return attempt.result()

    def _connect(self) -> None:
        # Ends by itself within CONNECT_TIMEOUT_MOST_S, or in close().
        self._attempt = asyncio.get_running_loop().create_task(self._dial())
        self._attempt.add_done_callback(self._dialled)

    def _dialled(self, attempt: asyncio.Task[ClientConnection]) -> None:
        self._attempt = None
        if attempt.cancelled():
            return
        failed = attempt.exception()
        if isinstance(failed, RpcFailed):
            self._failure = failed
            spread = random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)  # noqa: S311
            self._retry_at = time.monotonic() + self._backoff * spread
            self._backoff = min(self._backoff * BACKOFF_GROWTH, BACKOFF_MOST_S)
        elif failed is None:
            self._failure = None
            self._backoff = BACKOFF_S
            self._allowed = CONNECT_TIMEOUT_S

    async def _dial(self) -> ClientConnection:
        """Connect, and wait for the peer's hello."""
        self._others = {other for other in self._others if not other.lost}
        if self._current is not None and not self._current.lost:
            self._others.add(self._current)
        self._current = None
        scheme = "http" if self._tls is None else "https"
        made = ClientConnection(
            self._authority, scheme, self._limits, self._keepalive, self._guard, gzip=self._gzip
        )
        try:
            async with asyncio.timeout(self._allowed):
                await self._socket(made)
                await made.hello
        except TimeoutError:
            reason = f"no answer within {self._allowed} s"
            self._allowed = min(2 * self._allowed, CONNECT_TIMEOUT_MOST_S)
        except OSError as exc:
            reason = _reason(exc)
        except asyncio.CancelledError:
            made.abort(_CLOSED)
            raise
        else:
            self._current = made
            return made
        made.abort(reason)  # also when the loop broke off: it may have told of the beginning only
        raise RpcFailed(
            GrpcCode.UNAVAILABLE, f"failed to connect to {self._text}: {reason}", unsent=True
        )

    async def _socket(self, made: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        where = self._address
        protocol: asyncio.Protocol = made
        if self._tls is not None:
            self._context = self._context or client_context(self._tls)
            protocol = TlsSocket(made, self._context, _host_of(self._authority))
        if where.path:
            await loop.create_unix_connection(lambda: protocol, where.path)
        else:
            await loop.create_connection(lambda: protocol, where.host, where.port)


class LeanStream:
    """A streaming call; see :class:`~kit.transport.grpc.engine.ClientStream`."""

    def __init__(
        self, owner: LeanConnection, method: str, metadata: RawMetadata, deadline: float | None
    ) -> None:
        # Awaited by the first use of the stream, ended by cancel().
        self._opening = asyncio.get_running_loop().create_task(
            owner.open_stream(method, metadata, deadline)
        )
        self._opening.add_done_callback(_asked)
        self._cancelled = False
        self._writing = asyncio.Lock()

    async def write(self, message: bytes) -> None:
        """Send one message."""
        connection, call = await self._open()
        async with self._writing:
            await self._written(connection, call)  # a write that was cancelled is still under way
            self._raise_if_over(call)
            connection.send_body(call, framed(message, gzip=connection.gzip), None)
            await self._written(connection, call)
            self._raise_if_over(call)

    async def done_writing(self) -> None:
        """Half-close."""
        connection, call = await self._open()
        async with self._writing:
            await self._written(connection, call)
            if not call.ended and call.trailers is None:
                connection.send_body(call, b"", ())

    async def read(self) -> bytes | None:
        """The next message."""
        connection, call = await self._open()
        assert call.messages is not None
        while not call.messages:
            if self._cancelled:
                raise asyncio.CancelledError
            if call.failure is not None:
                raise call.failure
            if call.ended:
                return None
            await self._something(connection, call)
        message = call.messages.popleft()
        if not call.ended:
            connection.hold(call, -weight(message))
            if not call.messages:
                connection.grant(call)
        return message

    async def headers(self) -> RawMetadata:
        """Initial metadata."""
        connection, call = await self._open()
        while call.head is None and not call.ended:
            await self._something(connection, call)
        return () if call.head is None else call.head.metadata

    async def trailers(self) -> RawMetadata:
        """Trailing metadata."""
        connection, call = await self._open()
        while not call.ended:
            await self._something(connection, call)
        if call.failure is not None:
            return call.failure.trailers
        return call.trailers_received or ()

    def cancel(self) -> None:
        """Give the call up."""
        self._cancelled = True
        if not self._opening.done():
            self._opening.cancel()
        elif not self._opening.cancelled() and self._opening.exception() is None:
            connection, call = self._opening.result()
            connection.give_up(call, RpcFailed(GrpcCode.CANCELLED, "the caller gave up"))

    async def _open(self) -> tuple[ClientConnection, ClientCall]:
        try:
            return await asyncio.shield(self._opening)
        except RpcFailed as failure:
            raise _copy(failure) from failure

    def _raise_if_over(self, call: ClientCall) -> None:
        if self._cancelled:
            raise asyncio.CancelledError
        if call.failure is not None:
            raise _copy(call.failure)
        if call.ended:
            raise RpcFailed(GrpcCode.CANCELLED, "the call has ended")

    async def _written(self, connection: ClientConnection, call: ClientCall) -> None:
        """Wait until all of the last message is out, or nothing can go out any more."""
        while call.body is not None and not call.ended:
            call.writer = connection.loop.create_future()
            await call.writer

    async def _something(self, connection: ClientConnection, call: ClientCall) -> None:
        """Wait until the answer has grown."""
        if call.waiter is None or call.waiter.done():
            call.waiter = connection.loop.create_future()
        await asyncio.shield(call.waiter)


def _asked(opening: asyncio.Task[tuple[ClientConnection, ClientCall]]) -> None:
    """A stream that nobody used has nobody to hear of its failure."""
    if not opening.cancelled():
        opening.exception()


def _deadline_exceeded() -> RpcFailed:
    return RpcFailed(GrpcCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def _copy(failure: RpcFailed) -> RpcFailed:
    """The same once more: an exception that is raised twice collects tracebacks."""
    return RpcFailed(
        failure.status,
        failure.message,
        failure.trailers,
        headers=failure.headers,
        unsent=failure.unsent,
    )


def _host_of(authority: str) -> str:
    host, _, port = authority.rpartition(":")
    host = host if port.isdecimal() and host else authority
    return host.removeprefix("[").removesuffix("]")


def _reason(error: OSError) -> str:
    """In the system's words, which loops replace by their own."""
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__


__all__: Sequence[str] = ["LeanConnection"]
