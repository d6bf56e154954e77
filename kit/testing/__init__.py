"""What a user of the kit tests with: time by hand, and checks for own implementations."""

from kit.testing.clock import ManualClock
from kit.testing.store import check_store

__all__ = ["ManualClock", "check_store"]
