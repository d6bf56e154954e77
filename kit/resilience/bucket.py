"""A fixed rate with room for bursts; whoever comes too soon is refused, not made to wait."""

import time
from collections.abc import Callable

from kit.resilience.limiter import Done


class TokenBucket:
    """Lets ``rate`` calls a second in, and ``burst`` at once after a rest.

    Args:
        rate: calls a second.
        burst: the most tokens it holds; it begins full.
        monotonic: seconds.

    Raises:
        ValueError: ``rate`` is not above 0, or ``burst`` below 1: nothing would ever come in.

    >>> bucket = TokenBucket(rate=1, burst=2)
    >>> [bucket.take() for _ in range(3)]
    [True, True, False]
    """

    __slots__ = ("_at", "_burst", "_monotonic", "_rate", "_tokens")

    def __init__(
        self, rate: float, burst: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if not rate > 0 or not burst >= 1:
            raise ValueError(f"token bucket: rate {rate} must be > 0 and burst {burst} >= 1")
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._at = monotonic()

    def take(self) -> bool:
        """Take a token; whether there was one."""
        now = self._monotonic()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def allow(self) -> Done | None:
        """Let a call in, or refuse it; see :class:`~kit.resilience.limiter.Limiter`."""
        return _nothing if self.take() else None


def _nothing() -> None:
    """A bucket does not ask how long a call took."""
