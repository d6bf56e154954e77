"""What every limiter of load looks like."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

Done: TypeAlias = Callable[[], None]
"""Tells the limiter that the call it let in has ended, however it ended."""


class Limiter(Protocol):
    """Decides at once whether a call may come in; nobody waits."""

    def allow(self) -> Done | None:
        """What to call when the call has ended; ``None``: it is refused."""
        ...
