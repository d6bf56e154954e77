"""Bounds how much of the load may be repeated calls, so that retries never finish a target off."""


class RetryBudget:
    """Every call earns a part of a retry, every retry costs one.

    When everything fails, ``ratio`` retries a call are made and no more; a service that fails
    rarely has saved enough for each of its failures. Time plays no part: tokens neither expire nor
    grow by waiting.

    Args:
        ratio: retries that a call earns.
        reserve: retries that may be made before anything was earned, and the most that is saved.

    Raises:
        ValueError: ``ratio`` is not between 0 and 1, or ``reserve`` below 1.

    >>> budget = RetryBudget(ratio=0.5, reserve=1)
    >>> budget.retry(), budget.retry(), budget.call(), budget.call(), budget.retry()
    (True, False, None, None, True)
    """

    __slots__ = ("_ratio", "_reserve", "_saved")

    def __init__(self, ratio: float = 0.1, reserve: float = 10.0) -> None:
        if not 0 <= ratio <= 1 or not reserve >= 1:
            raise ValueError(f"retry budget: ratio {ratio} must be 0..1 and reserve {reserve} >= 1")
        self._ratio = ratio
        self._reserve = reserve
        self._saved = float(reserve)

    def call(self) -> None:
        """A first try is made."""
        self._saved = min(self._saved + self._ratio, self._reserve)

    def retry(self) -> bool:
        """Spend a retry; whether there was one."""
        # sums of tenths fall a hair short of whole numbers
        if self._saved < 1 - 1e-9:
            return False
        self._saved -= 1
        return True
