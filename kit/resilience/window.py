"""Counts of the last seconds, in buckets of equal length that are used again and again."""

from collections.abc import Iterator


class Window:
    """Two sums a bucket over the last ``buckets`` spans of ``span`` seconds.

    The bucket of now is the last of them; what is older than the first is forgotten as the window
    slides.

    Args:
        span: seconds of one bucket.
        buckets: how many.
        now: where the first bucket begins, seconds of a monotonic clock.

    >>> window = Window(span=1.0, buckets=3, now=0.0)
    >>> window.add(0.5, first=2), window.add(1.5, first=1, second=1)
    (None, None)
    >>> window.totals(1.5), window.totals(3.5), window.totals(99)
    ((3, 1), (1, 1), (0, 0))
    """

    __slots__ = ("_first", "_firsts", "_length", "_second", "_seconds", "_span", "_start", "_tick")

    def __init__(self, span: float, buckets: int, now: float) -> None:
        assert span > 0, "a bucket lasts some time"
        assert buckets > 0, "a window has a bucket"
        self._span = span
        self._length = buckets
        self._start = now
        self._tick = 0
        self._firsts = [0] * buckets
        self._seconds = [0] * buckets
        self._first = 0
        self._second = 0

    def add(self, now: float, first: int = 0, second: int = 0) -> None:
        """Count into the bucket of ``now``."""
        self._slide(now)
        index = self._tick % self._length
        self._firsts[index] += first
        self._seconds[index] += second
        self._first += first
        self._second += second

    def totals(self, now: float) -> tuple[int, int]:
        """The sums over the whole window, the bucket of now included."""
        self._slide(now)
        return self._first, self._second

    def completed(self, now: float) -> Iterator[tuple[int, int]]:
        """The buckets that lie whole in the past, oldest first."""
        self._slide(now)
        for tick in range(max(self._tick - self._length + 1, 0), self._tick):
            index = tick % self._length
            yield self._firsts[index], self._seconds[index]

    def _slide(self, now: float) -> None:
        tick = int((now - self._start) / self._span)
        passed = tick - self._tick
        if passed <= 0:
            return
        for old in range(self._tick + 1, self._tick + 1 + min(passed, self._length)):
            index = old % self._length
            self._first -= self._firsts[index]
            self._second -= self._seconds[index]
            self._firsts[index] = self._seconds[index] = 0
        self._tick = tick
