"""Keeps targets apart: each has its own limit, its own queue and its own circuit breaker.

A target is a scheme and an authority. What waits for a dead one holds nothing that a healthy one
needs. The bound over all of them is shared by a rule instead of a queue: a target may use as many
places as are free at the moment, and never more than its own limit. However much hangs, some places
stay free for the next target (as long as there are fewer targets than places), and who uses few
never waits for who uses many.

A call waits for half of its time at the most, so that one that leaves has time to be answered.
"""

import asyncio
import random
from collections import OrderedDict

from kit import log
from kit.clock import Clock
from kit.dtm.core import Branch, Transaction
from kit.dtm.server.breaker import Breaker
from kit.dtm.server.callers import BranchAnswer, Caller
from kit.dtm.wire import Result
from kit.duration import format_duration
from kit.errors.codes import GrpcCode

logger = log.get_logger()

PER_TARGET = 100
TOTAL = 2_000
"""Calls in flight at once."""

MAX_WAITING = 2_000
"""Calls that may wait for one target."""

MAX_TARGETS = 1_000
"""Targets that are remembered; an idle one makes room."""

_SILENT = frozenset({GrpcCode.UNAVAILABLE, GrpcCode.DEADLINE_EXCEEDED})
_SAYS_NOTHING = frozenset({GrpcCode.RESOURCE_EXHAUSTED, GrpcCode.PERMISSION_DENIED})


class _Lane:
    """One target."""

    __slots__ = ("breaker", "in_flight", "target", "waiting")

    def __init__(self, target: str, breaker: Breaker) -> None:
        self.target = target
        self.breaker = breaker
        self.in_flight = 0
        self.waiting: dict[asyncio.Future[bool], None] = {}  # in order of arrival


class Lanes:
    """Lets calls through to their targets.

    Args:
        clock: measures the pauses of breakers.
        per_target: calls to one target at once.
        total: calls at once; a target that is alone gets half of them.
        rng: spreads the probes.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        per_target: int = PER_TARGET,
        total: int = TOTAL,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._per_target = per_target
        self._total = total
        self._free = total
        self._rng = rng or random.Random()  # noqa: S311  (spreads probes, guards nothing)
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._crowded: OrderedDict[str, _Lane] = OrderedDict()

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self._total - self._free

    @property
    def tracked(self) -> int:
        """Targets that are remembered."""
        return len(self._lanes)

    async def call(
        self, target: str, caller: Caller, tx: Transaction, branch: Branch, limit: float
    ) -> BranchAnswer:
        """Make the call when ``target`` has room for it, unless its breaker is open."""
        lane = self._lane(target)
        breaker = lane.breaker
        probe = False
        if breaker.open:
            probe = breaker.probe(self._clock.monotonic())
            if not probe:
                return _refused(lane)
        if not probe and (lane.waiting or not self._room(lane)):
            trouble = await self._wait(lane, limit)
            if trouble is not None:
                return trouble
            limit /= 2
        self._enter(lane)
        answer = None
        try:
            answer = await caller.call(tx, branch, limit)
        finally:
            self._leave(lane)
            if answer is None:
                if probe:
                    breaker.gave_up()
            elif answer.result is not Result.UNKNOWN or answer.code not in _SILENT:
                if breaker.failures:
                    self._heard(lane, answer, probe=probe)
            else:
                self._silent(lane, answer, probe=probe)
            if self._crowded:
                self._admit()
        return answer

    def _lane(self, target: str) -> _Lane:
        lane = self._lanes.get(target)
        if lane is not None:
            self._lanes.move_to_end(target)
            return lane
        lane = self._lanes[target] = _Lane(target, Breaker(self._rng))
        if len(self._lanes) > MAX_TARGETS:
            idle = (x for x in self._lanes.values() if not x.in_flight and not x.waiting)
            oldest = next(idle)  # the new one at the latest
            if oldest is not lane:
                del self._lanes[oldest.target]
        return lane

    def _room(self, lane: _Lane) -> bool:
        return lane.in_flight < self._per_target and lane.in_flight < self._free

    async def _wait(self, lane: _Lane, limit: float) -> BranchAnswer | None:
        """Wait for room; give the answer when there was none, or the target is away by now."""
        if len(lane.waiting) >= MAX_WAITING:
            return _crowded(lane, f"{MAX_WAITING} more wait already")
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lane.waiting[turn] = None
        self._crowded[lane.target] = lane
        admitted = None
        try:
            async with asyncio.timeout(limit / 2):
                admitted = await turn
        except TimeoutError:
            return _crowded(lane, f"none ended in {format_duration(round(limit / 2, 3))}")
        finally:
            lane.waiting.pop(turn, None)
            self._settle(lane)
            if turn.done() and not turn.cancelled() and turn.result():
                self._leave(lane)  # the place that was kept; the caller takes it in this very step
                if admitted is None:
                    self._admit()  # or gives it up, because its time was over in the same moment
        return None if admitted else _refused(lane)

    def _enter(self, lane: _Lane) -> None:
        lane.in_flight += 1
        self._free -= 1

    def _leave(self, lane: _Lane) -> None:
        lane.in_flight -= 1
        self._free += 1

    def _admit(self) -> None:
        """Hand places that became free to who waits, one target after the other."""
        moved = True
        while moved:
            moved = False
            for lane in list(self._crowded.values()):
                if lane.waiting and self._room(lane):
                    turn = next(iter(lane.waiting))
                    del lane.waiting[turn]
                    if not turn.done():  # else whoever waited was cancelled just now
                        self._enter(lane)
                        turn.set_result(True)
                    moved = True
                self._settle(lane)

    def _settle(self, lane: _Lane) -> None:
        if not lane.waiting:
            self._crowded.pop(lane.target, None)

    def _heard(self, lane: _Lane, answer: BranchAnswer, *, probe: bool) -> None:
        if answer.result is Result.UNKNOWN and answer.code in _SAYS_NOTHING:
            if probe:
                lane.breaker.gave_up()
            return
        if lane.breaker.open:
            logger.info("target %s answers again", lane.target)
        lane.breaker.answered()

    def _silent(self, lane: _Lane, answer: BranchAnswer, *, probe: bool) -> None:
        if lane.breaker.failed(self._clock.monotonic(), answer.text, probe=probe):
            logger.warning(
                "target %s: circuit open after %d failures, last: %s",
                lane.target,
                lane.breaker.failures,
                answer.text,
            )
            waiting, lane.waiting = lane.waiting, {}
            self._settle(lane)
            for turn in waiting:
                if not turn.done():
                    turn.set_result(False)


def _refused(lane: _Lane) -> BranchAnswer:
    return BranchAnswer(
        Result.UNKNOWN,
        f"target {lane.target}: circuit open after {lane.breaker.failures} failures, "
        f"last: {lane.breaker.last}",
        GrpcCode.UNAVAILABLE,
    )


def _crowded(lane: _Lane, why: str) -> BranchAnswer:
    return BranchAnswer(
        Result.UNKNOWN,
        f"target {lane.target}: {lane.in_flight} calls are in progress and {why}; "
        "see the setting Targets.Concurrency",
        GrpcCode.RESOURCE_EXHAUSTED,
    )
