"""Pauses between tries that grow and never fall into step."""

import random


class Backoff:
    """Doubling pauses with jitter, so that many clients do not return at the same instant.

    Args:
        first: seconds of the first pause, before jitter.
        ceiling: seconds that no pause exceeds.
    """

    def __init__(self, first: float, ceiling: float) -> None:
        self._first = min(first, ceiling)
        self._ceiling = ceiling
        self._next = self._first

    def pause(self) -> float:
        """Seconds to wait now: between half of the step and all of it."""
        step, self._next = self._next, min(2 * self._next, self._ceiling)
        return step * random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains from guessing it

    def reset(self) -> None:
        """Start anew with the first pause: it worked."""
        self._next = self._first
