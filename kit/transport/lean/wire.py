"""The socket of a connection: writes once per turn of the loop, timers, keepalive.

Deadlines cost nothing per call: one timer is set to the earliest of them, and when it goes off all
open calls are looked at. A later deadline does not move it, and a call that has ended does not stop
it.
"""

import asyncio
import time
from math import inf
from typing import Any, cast

from kit.transport.grpc.engine import Keepalive
from kit.transport.lean.connection import Http2Connection
from kit.transport.lean.frames import PING, frame
from kit.transport.lean.guard import Guard

_PING = b"kit-ping"
_LINGER = 5.0
_LATE = 0.0005  # a timer may go off a little early


class Wire(Http2Connection, asyncio.Protocol):
    """An :class:`Http2Connection` on a transport of asyncio or uvloop."""

    __slots__ = (
        "_deadline",
        "_deadline_timer",
        "_heard",
        "_hello_by",
        "_last_look",
        "_lingering",
        "_pinged",
        "_silence",
        "_transport",
        "keepalive",
        "loop",
        "lost",
        "peer",
    )

    def __init__(
        self, *, client: bool, guard: Guard, keepalive: Keepalive, most_streams: int = 0
    ) -> None:
        super().__init__(client=client, guard=guard, most_streams=most_streams)
        self.keepalive = keepalive
        self.loop = asyncio.get_running_loop()
        self.lost = False
        self.peer = ""
        self._transport: asyncio.Transport | None = None
        self._heard = 0.0
        self._pinged = 0.0
        self._hello_by = inf
        self._silence: asyncio.TimerHandle | None = None
        self._last_look = False
        self._lingering: asyncio.TimerHandle | None = None
        self._deadline = inf
        self._deadline_timer: asyncio.TimerHandle | None = None

    # What a subclass writes.

    def on_deadline(self, now: float) -> float:
        """End the calls whose deadline has passed; give the next one, infinity for none."""
        raise NotImplementedError

    def on_stall(self, now: float) -> None:
        """Time to look for calls that make no progress."""

    def on_lost(self, reason: str) -> None:
        """The connection is gone; every open call ends."""
        raise NotImplementedError

    # asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin in plain text."""
        self.attach(transport)
        if not self.lost:
            self.begin()

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there; with TLS both sides have still to agree, and then it begins."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self.peer = _address(transport.get_extra_info("peername"))
        self._heard = time.monotonic()
        self._hello_by = self._heard + self.guard.handshake
        first = min(self.guard.handshake, self.keepalive.interval)
        self._silence = self.loop.call_later(first, self._check_silence)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._heard = time.monotonic()
        self.receive(data)
        if self.closed:
            self.close("the peer broke a rule of HTTP/2")

    def eof_received(self) -> bool:
        """The peer has gone: half a connection is of no use."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._transport = None  # it refers to this object, which is to go with it
        self._gone("Socket closed" if exc is None else str(exc) or type(exc).__name__)

    def pause_writing(self) -> None:
        """The peer does not read."""
        self.paused = True
        if not self.client:
            # Whoever does not read answers is not read either. A client reads on, or two
            # of this kind would wait for each other.
            self._reading(on=False)

    def resume_writing(self) -> None:
        """The peer reads again."""
        if not self.client:
            self._reading(on=True)
        self.resume()

    def _reading(self, *, on: bool) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            (transport.resume_reading if on else transport.pause_reading)()

    # Out.

    def wake(self) -> None:
        """Write at the end of this turn."""
        self.loop.call_soon(self._flush)

    def hurry(self) -> None:
        """Write now; what comes until the end of the turn still goes then."""
        transport = self._transport
        # One that met an error tells of it a turn later; uvloop's raises when written until then.
        if self.out and not self.lost and transport is not None and not transport.is_closing():
            transport.write(self.take())
        else:
            self.out.clear()

    def _flush(self) -> None:
        self._scheduled = False
        self.hurry()

    def close(self, reason: str) -> None:
        """Write what is to be written, then close."""
        self.closed = True
        if self._transport is not None and not self.lost:
            self._flush()
            self._transport.close()
            # The peer may never take what is still to be written.
            self._lingering = self.loop.call_later(_LINGER, self._transport.abort)
        self._gone(reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._gone(reason)

    def _gone(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = self.closed = True
        for timer in (self._silence, self._deadline_timer):
            if timer is not None:
                timer.cancel()
        self.on_lost(reason)

    # Timers.

    def watch(self, deadline: float) -> None:
        """Have :meth:`on_deadline` called at ``deadline``, an instant of ``time.monotonic``."""
        if deadline < self._deadline:
            self._deadline = deadline
            if self._deadline_timer is not None:
                self._deadline_timer.cancel()
            delay = max(deadline - time.monotonic(), 0.0)
            self._deadline_timer = self.loop.call_later(delay, self._deadline_passed)

    def _deadline_passed(self) -> None:
        self._deadline = inf
        self._deadline_timer = None
        following = self.on_deadline(time.monotonic() + _LATE)
        if following < inf and not self.lost:
            self.watch(following)

    def _check_silence(self) -> None:
        """Ping a peer that has said nothing for the interval; give up one that does not answer."""
        now = time.monotonic()
        self.on_stall(now)
        if not self.settled and now >= self._hello_by:
            self.abort(f"no HTTP/2 within {self.guard.handshake} s")
        if self.lost:
            return
        keepalive = self.keepalive
        due = self._heard + keepalive.interval - now
        if self._heard < self._pinged:
            due = self._pinged + keepalive.timeout - now
            if due <= 0 and self._last_look:
                self.abort("keepalive watchdog timeout")
                return
            # When it was this process that stood still, the answer lies in the socket, unread.
            self._last_look = due <= 0
        elif due <= 0:
            due = keepalive.interval
            if self.settled and (self.streams or not self.client):
                self._pinged, due, self._last_look = now, keepalive.timeout, False
                self.send(frame(PING, 0, 0, _PING))
        due = min(due, keepalive.interval)  # stalled calls are looked for in any case
        if not self.settled:
            due = min(due, self._hello_by - now)
        self._silence = self.loop.call_later(max(due, 0.001), self._check_silence)


def _address(peername: Any) -> str:
    if isinstance(peername, tuple):
        host, port = str(peername[0]).removeprefix("::ffff:"), peername[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{peername or ''}"
