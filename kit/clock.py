"""The one place that reads the time.

Everything that needs a clock takes a :class:`Clock`; tests pass ``kit.testing.ManualClock``.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Instants for people and stores, durations for programs."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC: what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back: what durations are measured with."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(seconds)


class SkippingClock:
    """The machine's clock, running on, that can be moved ahead: hours of retries in a second.

    For development and tests; whoever sleeps on it wakes when its time has come either way.
    """

    def __init__(self) -> None:
        self._skipped_s = 0.0
        self._moved = asyncio.Event()

    def now_ms(self) -> int:
        """Milliseconds since the epoch, and what was skipped."""
        return time.time_ns() // 1_000_000 + round(self._skipped_s * 1000)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, and what was skipped."""
        return time.monotonic() + self._skipped_s

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has moved on by ``seconds``."""
        until = self.monotonic() + seconds
        while (left := until - self.monotonic()) > 0:
            moved = self._moved
            try:
                async with asyncio.timeout(left):
                    await moved.wait()
            except TimeoutError:
                return
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move ahead by ``seconds``.

        Raises:
            ValueError: it is negative; time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"advance({seconds}): a clock does not go back")
        self._skipped_s += seconds
        self._moved.set()
        self._moved = asyncio.Event()
