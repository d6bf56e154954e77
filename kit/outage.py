"""One log line when something is lost, one when it is back, however often it is tried between."""

from kit.clock import Clock, SystemClock
from kit.log import Logger


class Outage:
    """Whether any part of something is interrupted, told to the log when that changes.

    The parts share it: when a registry goes away, a process with a registration and ten watches
    says so once, and once more when the last of them is restored.

    Args:
        owner: what the lines begin with, such as ``registry``.
        logger: where they go.
        clock: measures how long it took.
    """

    def __init__(self, owner: str, logger: Logger, clock: Clock | None = None) -> None:
        self._owner = owner
        self._logger = logger
        self._clock = clock or SystemClock()
        self._down: set[OutagePart] = set()
        self._since = 0.0

    def part(self, subject: str) -> "OutagePart":
        """A part that is well so far; ``subject`` is what lines call it."""
        return OutagePart(self, subject)

    def lost(self, part: "OutagePart", cause: str) -> None:
        """Called by a part."""
        if not self._down:
            self._since = self._clock.monotonic()
            self._logger.warning(
                "%s: %s interrupted: %s; trying again", self._owner, part.subject, cause
            )
        self._down.add(part)

    def restored(self, part: "OutagePart") -> None:
        """Called by a part."""
        if self._down == {part}:
            seconds = self._clock.monotonic() - self._since
            self._logger.info("%s: %s restored after %.1f s", self._owner, part.subject, seconds)
        self._down.discard(part)

    def forgotten(self, part: "OutagePart") -> None:
        """Called by a part."""
        self._down.discard(part)


class OutagePart:
    """One thing that works or does not."""

    def __init__(self, outage: Outage, subject: str) -> None:
        self._outage = outage
        self.subject = subject

    def down(self, cause: str) -> None:
        """It does not work because of ``cause`` and is being tried again."""
        self._outage.lost(self, cause)

    def up(self) -> None:
        """It works."""
        self._outage.restored(self)

    def forget(self) -> None:
        """It is not wanted any more."""
        self._outage.forgotten(self)
