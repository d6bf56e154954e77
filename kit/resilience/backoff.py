"""Pauses between tries."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Doubling pauses with jitter: between half of the step and all of it.

    Attributes:
        first: seconds of the first pause, before jitter.
        ceiling: seconds that no pause exceeds.
        chance: a number from 0 to 1.

    Raises:
        ValueError: a pause would be negative.

    >>> [BackOff(0.1, 1.0, chance=lambda: 1.0).pause(tries) for tries in (1, 2, 3, 9)]
    [0.1, 0.2, 0.4, 1.0]
    """

    first: float = 0.05
    ceiling: float = 1.0
    chance: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.first < 0 or self.ceiling < 0:
            raise ValueError(f"back-off: {self.first} and {self.ceiling} must not be negative")

    def pause(self, tries: int) -> float:
        """Seconds to wait after so many tries, 1 or more."""
        step = min(self.first * 2.0 ** min(tries - 1, 30), self.ceiling)
        return step * (1 + self.chance()) / 2
