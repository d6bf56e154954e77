"""Stops calling a target in proportion to how often it fails; when it heals, calls come back.

Over the last 3 s a client may make K times as many calls as succeeded. Beyond that a call is
refused with probability (total - K * success) / (total + 1): the worse it goes, the fewer get
through, and never none, so there is no state of half open. Refused calls count as failures.

Source: go-kratos/aegis circuitbreaker/sre/sre.go; Google's SRE book, Handling Overload.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from kit.resilience.window import Window


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When calls are refused.

    Attributes:
        k: calls allowed for each one that succeeded.
        minimum: calls in the window below which nothing is refused.
        window: seconds that are looked back at.
        buckets: in how many parts the window slides.

    Raises:
        ValueError: a value makes no sense.
    """

    k: float
    minimum: int
    window: float = 3.0
    buckets: int = 10

    def __post_init__(self) -> None:
        if not self.k >= 1:
            raise ValueError(f"breaker k: {self.k} would refuse a healthy target; use 1 or more")
        if self.minimum < 0 or not self.window > 0 or self.buckets < 1:
            raise ValueError(f"breaker rule {self}: minimum >= 0, window > 0 and buckets >= 1")


BREAKER_V2 = BreakerRule(k=1 / 0.6, minimum=100)
"""kratos v2: a success ratio of 0.6."""

BREAKER_V3 = BreakerRule(k=1 / (1 - 0.5), minimum=20)
"""kratos v3: a failure ratio of 0.5."""


class SreBreaker:
    """The record of one target.

    Args:
        rule: when it refuses.
        monotonic: seconds.
        chance: a number from 0 to 1 a call.
    """

    __slots__ = ("_chance", "_monotonic", "_rule", "_window")

    def __init__(
        self,
        rule: BreakerRule = BREAKER_V2,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._rule = rule
        self._monotonic = monotonic
        self._chance = chance
        self._window = Window(rule.window / rule.buckets, rule.buckets, monotonic())

    def allow(self) -> bool:
        """Whether the next call may be made; a refused one has to be told with :meth:`failed`."""
        total, success = self._window.totals(self._monotonic())
        excess = total - self._rule.k * success
        if total < self._rule.minimum or excess < 0:
            return True
        return self._chance() >= excess / (total + 1)

    def succeeded(self) -> None:
        """The target answered."""
        self._window.add(self._monotonic(), 1, 1)

    def failed(self) -> None:
        """The target did not answer, or the call was refused."""
        self._window.add(self._monotonic(), 1, 0)
