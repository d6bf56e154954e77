"""Time that stands still until it is moved."""

import asyncio

import pytest

from kit.testing import ManualClock


async def _started(clock: ManualClock, log: list[str], name: str, seconds: float) -> asyncio.Task:
    async def sleeper() -> None:
        await clock.sleep(seconds)
        log.append(name)

    task = asyncio.create_task(sleeper())
    await asyncio.sleep(0)
    return task


async def test_sleepers_wake_in_the_order_of_their_instants() -> None:
    """Not in the order in which they lay down, unless they share an instant."""
    clock, log = ManualClock(), []
    tasks = [await _started(clock, log, f"{s}-{n}", s) for n, s in enumerate((3, 1, 2, 1))]
    clock.advance(2)
    await asyncio.gather(*tasks[1:])
    assert log == ["1-1", "1-3", "2-2"]
    assert clock.next_wake == 1
    clock.advance(1)
    await tasks[0]
    assert clock.next_wake is None


async def test_nobody_wakes_before_its_instant() -> None:
    """A millisecond early is early."""
    clock, log = ManualClock(), []
    task = await _started(clock, log, "a", 1.5)
    clock.advance(1.499)
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(0.001)
    await task


async def test_a_sleep_of_no_time_lets_others_run() -> None:
    """Like asyncio.sleep(0), it ends without an advance."""
    clock, log = ManualClock(), []
    task = asyncio.create_task(asyncio.sleep(0))
    await clock.sleep(0)
    await clock.sleep(-1)
    assert task.done()
    assert log == []


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    """It neither wakes nor counts as the next one to wake."""
    clock, log = ManualClock(), []
    first, second = await _started(clock, log, "1", 1), await _started(clock, log, "2", 2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert clock.next_wake == 2
    clock.advance(5)
    await second
    assert log == ["2"]


def test_both_clocks_move_together_and_do_not_drift() -> None:
    """Ten tenths are one second."""
    clock = ManualClock(start_ms=5)
    for _ in range(10):
        clock.advance(0.1)
    assert (clock.now_ms(), clock.monotonic()) == (1_005, 1.0)


def test_time_does_not_go_back() -> None:
    """An argument that says so is refused."""
    with pytest.raises(ValueError, match="does not go back"):
        ManualClock().advance(-1)
