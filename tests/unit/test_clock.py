"""The machine's clock."""

import asyncio
import time

from kit.clock import Clock, SystemClock


def test_now_is_milliseconds_of_the_epoch() -> None:
    """Between two readings of the machine's own clock."""
    clock: Clock = SystemClock()
    before = time.time()
    now = clock.now_ms()
    assert int(before * 1000) <= now <= time.time() * 1000


def test_monotonic_never_goes_back() -> None:
    """And it is the clock that deadlines are compared with."""
    clock = SystemClock()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)
    assert abs(clock.monotonic() - time.monotonic()) < 1


async def test_sleep_lets_others_run_and_returns_after_its_time() -> None:
    """On the running loop."""
    clock = SystemClock()
    order = []

    async def other() -> None:
        order.append("other")

    task = asyncio.create_task(other())
    start = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - start >= 0.009
    order.append("slept")
    await task
    assert order == ["other", "slept"]
