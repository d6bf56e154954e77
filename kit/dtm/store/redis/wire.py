"""One connection that speaks RESP2: many commands leave in one write, their replies come together.

redis-py's own connection awaits every reply by itself, under a timer each: with two hundred
commands in a pipeline that costs more than everything else here.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import hiredis

Reply: TypeAlias = Any
"""``bytes``, ``int``, ``None``, a list of them, or ``hiredis.ReplyError`` as a value."""

_NOTHING = object()


def pack(*words: str | bytes | int) -> bytes:
    """A command as it travels."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub says 1-tuple
    return packed


class Wire(asyncio.Protocol):
    """A connection that carries one exchange at a time.

    Attributes:
        lost: why nothing can be exchanged any more; empty while something can.
    """

    def __init__(self) -> None:
        self.lost = ""
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._replies: list[Reply] = []
        self._wanted = 0
        self._answered: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    async def exchange(self, commands: Sequence[bytes], deadline: float) -> list[Reply]:
        """Send ``commands``; give their replies in order.

        They are fewer than the commands when the connection ended, or when ``deadline``, an instant
        of the loop's clock, came first; the connection is of no more use then, and whether the
        commands without a reply ran is unknown.
        """
        assert self._answered is None, "one exchange at a time"
        if self.lost or self._transport is None:
            return []
        loop = asyncio.get_running_loop()
        self._wanted = len(commands)
        self._answered = loop.create_future()
        late = loop.call_at(deadline, self.close, "did not answer in time")
        try:
            self._transport.write(b"".join(commands))
            await self._answered
        finally:
            late.cancel()
            self._answered = None
        replies, self._replies = self._replies, []
        return replies

    def close(self, why: str) -> None:
        """End the connection without waiting for anything."""
        if not self.lost:
            self.lost = why
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                self._replies.append(reply)
        except hiredis.ProtocolError as exc:
            self.close(f"does not speak Redis: {exc}")
            return
        if len(self._replies) >= self._wanted:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.close(f"closed the connection{f': {exc}' if exc else ''}")

    def _wake(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)
