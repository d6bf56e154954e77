"""One connection that speaks RESP2: many commands leave in one write, their replies come together.

redis-py's own connection awaits every reply by itself, under a timer each: with two hundred
commands in a pipeline that costs more than everything else here.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import hiredis

Reply: TypeAlias = Any
"""``bytes``, ``int``, ``None``, a list of them, or ``hiredis.ReplyError`` as a value."""

_NOTHING = object()


def pack(*words: str | bytes | int) -> bytes:
    """A command as it travels."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub says 1-tuple
    return packed


class _Exchange:
    """Commands that were sent, and what has come back."""

    __slots__ = ("done", "replies", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.replies: list[Reply] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Wire(asyncio.Protocol):
    """A connection that carries exchanges; what is sent while one is open is answered after it.

    Attributes:
        lost: why nothing can be exchanged any more; empty while something can.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._open: deque[_Exchange] = deque()
        self._transport: asyncio.Transport | None = None

    async def exchange(self, commands: Sequence[bytes], deadline: float) -> list[Reply]:
        """Send ``commands``; give their replies in order.

        They are fewer than the commands when the connection ended, or when ``deadline``, an instant
        of the loop's clock, came first; the connection is of no more use then, and whether the
        commands without a reply ran is unknown.
        """
        if self.lost or self._transport is None:
            return []
        exchange = _Exchange(len(commands))
        self._open.append(exchange)
        late = asyncio.get_running_loop().call_at(deadline, self.close, "did not answer in time")
        try:
            self._transport.write(b"".join(commands))
            await exchange.done
        finally:
            late.cancel()
        return exchange.replies

    def retire(self, why: str) -> None:
        """End the connection as soon as what was sent is answered; take nothing more."""
        self.lost = self.lost or why
        if not self._open:
            self.close(why)

    def close(self, why: str) -> None:
        """End the connection without waiting for anything."""
        self.lost = self.lost or why
        if self._transport is not None:
            self._transport.abort()
        while self._open:
            _wake(self._open.popleft())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        # no isinstance: uvloop's transports are no subclasses of asyncio's
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                self._replied(reply)
        except hiredis.ProtocolError as exc:
            self.close(f"does not speak Redis: {exc}")
        if self.lost and not self._open:
            self.close(self.lost)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.close(f"closed the connection{f': {exc}' if exc else ''}")

    def _replied(self, reply: Reply) -> None:
        if not self._open:
            self.close(f"said {reply!r} without being asked")  # as in protected mode
            return
        exchange = self._open[0]
        exchange.replies.append(reply)
        if len(exchange.replies) == exchange.wanted:
            _wake(self._open.popleft())


def _wake(exchange: _Exchange) -> None:
    if not exchange.done.done():  # its task may have been cancelled
        exchange.done.set_result(None)
