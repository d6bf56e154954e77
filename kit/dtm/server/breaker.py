"""Stops calling a target that does not answer, and looks now and then whether it is back.

Closed, calls pass. After :data:`OPENS_AFTER` failures in a row it opens: calls are refused without
being made, until a pause is over; then a single call, the probe, is let through. A probe that is
answered closes the breaker, one that fails doubles the pause. Pauses begin short, so that whoever
tries again right after the target is back is refused for a moment at most.
"""

import random

OPENS_AFTER = 5
"""Failures in a row; any answer in between starts the count again."""

FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 10.0


class Breaker:
    """The state of one target; instants are seconds of a monotonic clock.

    Attributes:
        failures: in a row so far.
        last: what the latest failure was, for messages.
    """

    __slots__ = ("_pause", "_probing", "_rng", "_until", "failures", "last")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = 0.0
        self._until = 0.0
        self._probing = False
        self.failures = 0
        self.last = ""

    @property
    def open(self) -> bool:
        """Whether calls are refused, except for the probe."""
        return self._pause > 0

    def probe(self, now: float) -> bool:
        """Whether the call that asks may be made to see if the target is back.

        Who is told so has to report it: ``answered``, ``failed`` or ``gave_up``.
        """
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def gave_up(self) -> None:
        """The probe ended without saying anything about the target; the next call may be it."""
        self._probing = False

    def answered(self) -> None:
        """The target is there."""
        self._pause = 0.0
        self._probing = False
        self.failures = 0

    def failed(self, now: float, why: str, *, probe: bool) -> bool:
        """The target did not answer; tell whether that opened the breaker just now.

        Args:
            now: the instant.
            why: kept for messages.
            probe: it was the call that ``probe`` let through. Calls that were under way when the
                breaker opened fail as well, and say nothing new.
        """
        self.failures += 1
        self.last = why
        if self._pause:
            if probe:
                self._probing = False
                self._wait(now, self._pause * 2)
            return False
        if self.failures < OPENS_AFTER:
            return False
        self._wait(now, FIRST_PAUSE_S)
        return True

    def _wait(self, now: float, pause: float) -> None:
        self._pause = min(pause, MAX_PAUSE_S)
        self._until = now + self._pause * (1 + self._rng.random()) / 2
