"""What a user of the kit tests with: time by hand, and checks for own implementations."""

from kit.testing.clock import ManualClock

__all__ = ["ManualClock"]
