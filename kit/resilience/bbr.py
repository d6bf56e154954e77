"""Refuses calls when the processor is busy and more of them run than it ever finished in time.

How many may run at once follows from Little's law and the best of the last 10 s: the most calls
finished in 100 ms, times the shortest mean response time. It only matters while the processor is
at 80 % or more, and for a second after.

Source: go-kratos/aegis ratelimit/bbr/bbr.go; ``math.floor(x) + 0.5`` there is a floor.
"""

import math
import time
from collections.abc import Callable

from kit.resilience.cpu import CpuMeter
from kit.resilience.limiter import Done
from kit.resilience.window import Window

WINDOW_S = 10.0
BUCKETS = 100
CPU_THRESHOLD = 800.0
COOLING_S = 1.0


class BbrLimiter:
    """A limiter that adapts; one for all operations of a server.

    Args:
        cpu: how busy the processor is, 0 to 1000.
        threshold: of ``cpu``, from which on calls may be refused.
        window: seconds that are looked back at.
        buckets: in how many parts; the best is found a part.
        monotonic: seconds.

    Raises:
        ValueError: a value makes no sense.
    """

    def __init__(
        self,
        *,
        cpu: Callable[[], float] | None = None,
        threshold: float = CPU_THRESHOLD,
        window: float = WINDOW_S,
        buckets: int = BUCKETS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not window > 0 or buckets < 2 or not threshold > 0:
            raise ValueError(
                f"bbr: window {window}, buckets {buckets}, threshold {threshold}; "
                "window > 0, buckets >= 2 and threshold > 0 are needed"
            )
        self._cpu = CpuMeter(monotonic=monotonic) if cpu is None else cpu
        self._threshold = threshold
        self._monotonic = monotonic
        self._span = window / buckets
        now = monotonic()
        self._passed = Window(self._span, buckets, now)
        self._times = Window(self._span, buckets, now)  # milliseconds, and how many calls
        self._dropped_at: float | None = None
        self._most = 0
        self._most_until = -math.inf
        self.in_flight = 0
        """Calls that were allowed and have not ended."""

    def allow(self) -> Done | None:
        """Let a call in, or refuse it; see :class:`~kit.resilience.limiter.Limiter`."""
        started = self._monotonic()
        if self._drop(started):
            return None
        self.in_flight += 1

        def done() -> None:
            now = self._monotonic()
            self.in_flight -= 1
            took = math.ceil((now - started) * 1000)
            if took > 0:
                self._times.add(now, took, 1)
            self._passed.add(now, 1)

        return done

    def max_in_flight(self) -> int:
        """How many calls may run at once; found anew once a bucket."""
        now = self._monotonic()
        if now >= self._most_until:
            most_passed = max((count for count, _ in self._passed.completed(now)), default=0)
            means = (total / count for total, count in self._times.completed(now) if count)
            shortest = math.ceil(min(means, default=1))
            per_second = 1 / self._span
            self._most = math.floor(max(most_passed, 1) * max(shortest, 1) * per_second / 1000)
            self._most_until = now + self._span
        return self._most

    def _drop(self, now: float) -> bool:
        if self._cpu() < self._threshold:
            if self._dropped_at is None:
                return False
            if now - self._dropped_at > COOLING_S:
                self._dropped_at = None
                return False
            return self._full()
        full = self._full()
        if full and self._dropped_at is None:
            self._dropped_at = now
        return full

    def _full(self) -> bool:
        return self.in_flight > 1 and self.in_flight > self.max_in_flight()
