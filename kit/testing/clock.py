"""Time that a test moves by hand."""

import asyncio
import heapq
from itertools import count


class ManualClock:
    """A :class:`kit.clock.Clock` that stands still until :meth:`advance` moves it.

    Reading it is safe from any thread; sleeping and advancing belong to one event loop.

    Args:
        start_ms: the instant it shows first, milliseconds since the epoch.

    >>> clock = ManualClock(start_ms=1_000)
    >>> clock.advance(2.5)
    >>> clock.now_ms(), clock.monotonic()
    (3500, 2.5)
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self._elapsed_ns = 0
        self._order = count()  # sleepers of one instant wake in the order in which they lay down
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._start_ms + self._elapsed_ns // 1_000_000

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._elapsed_ns / 1e9

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by ``seconds``; zero only lets others run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_ns + _ns(seconds), next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds`` and wake, soonest first, who slept no longer than that.

        The sleepers run when the caller next awaits, and find the clock where it stands by then:
        one that sleeps in a loop wakes once for each call.

        Raises:
            ValueError: ``seconds`` is negative; time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"advance({seconds}): a clock does not go back")
        self._elapsed_ns += _ns(seconds)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_ns:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():  # its sleeper may have been cancelled
                woken.set_result(None)

    @property
    def next_wake(self) -> float | None:
        """Seconds until the next sleeper wakes, ``None`` when nobody sleeps.

        What to advance by when nothing else is going on.
        """
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return (self._sleepers[0][0] - self._elapsed_ns) / 1e9 if self._sleepers else None


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
