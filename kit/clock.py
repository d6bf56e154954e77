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
