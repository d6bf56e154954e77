"""The better of two random nodes, by how fast and how reliably they answered lately.

Each node has an exponentially weighted moving average of its latency and of its success, and the
calls that run on it now. What they say together is its weight:

====================  ==========================================================================
decay ``w``           ``exp(-Δt / 600 ms)``, Δt since the last call that ended; 0 while lag is 0
lag (ns, integer)     ``lag * w + sample * (1 - w)``
success               ``success * w + s * (1 - w)``, s is 1000 or 0; starts at 1000
inflight              starts at 1, +1 per pick, -1 per call that ended
predict               mean age of the calls that already run longer than lag, when these are at
                      least ``n // 2 + 1`` of the n running ones (200 are looked at), else 0
load                  ``100 000 * inflight`` while lag is 0, else
                      ``floor(sqrt(max(lag, predict) + 5 000 000)) * inflight``
weight                ``success * 10 000 / load``, kept for 5 ms; 100 for a fresh node
====================  ==========================================================================

A node that lost each comparison for 3 s is taken once, or it could never show that it recovered.

Source: go-kratos/kratos selector/p2c/p2c.go, selector/node/ewma/node.go.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence

from kit import errors
from kit.clock import Clock, SystemClock
from kit.selector import Done, Node

TAU_NS = 600_000_000
FORCED_AFTER_NS = 3_000_000_000
WEIGHT_KEPT_NS = 5_000_000
ZONE_GAP_NS = 5_000_000  # differences of latency below this do not matter
UNKNOWN_LAG_LOAD = 100_000
TRACKED_CALLS = 200


class P2C:
    """Power of two choices over moving averages.

    Args:
        rng: where chance comes from.
        clock: what latencies are measured with.
        counts_as_failure: a further rule for errors that speak against the node; timeouts,
            cancelled calls, the codes 499, 503 and 504, and errors of the network always do.
    """

    def __init__(
        self,
        rng: random.Random | None = None,
        clock: Clock | None = None,
        counts_as_failure: Callable[[BaseException], bool] | None = None,
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311  (load is not a secret)
        self._clock = clock or SystemClock()
        self._counts_as_failure = counts_as_failure
        self._averages: dict[str, _Average] = {}

    def pick(self, nodes: Sequence[Node]) -> tuple[Node, Done]:
        """The heavier of two random nodes, or the lighter one when it was left out for too long."""
        now = self._now()
        if len(self._averages) > 2 * len(nodes):  # vanished nodes; a filter may also hide a few
            addresses = {node.address for node in nodes}
            self._averages = {a: v for a, v in self._averages.items() if a in addresses}
        if len(nodes) == 1:
            return nodes[0], self._start(self._average(nodes[0], now), now)
        first = int(self._rng.random() * len(nodes))
        second = int(self._rng.random() * (len(nodes) - 1))
        second += second >= first
        winner, loser = nodes[first], nodes[second]
        won, lost = self._average(winner, now), self._average(loser, now)
        if lost.weight(now) > won.weight(now):
            winner, loser, won, lost = loser, winner, lost, won
        if now - lost.picked_at > FORCED_AFTER_NS:
            winner, won = loser, lost
        return winner, self._start(won, now)

    def _now(self) -> int:
        return int(self._clock.monotonic() * 1e9)

    def _average(self, node: Node, now: int) -> "_Average":
        average = self._averages.get(node.address)
        if average is None:
            average = self._averages[node.address] = _Average(now)
        return average

    def _start(self, average: "_Average", now: int) -> Done:
        call = average.start(now)

        def done(error: BaseException | None) -> None:
            failed = error is not None and (
                _speaks_against_node(error)
                or (self._counts_as_failure is not None and self._counts_as_failure(error))
            )
            average.end(call, now, self._now(), success=not failed)

        return done


class _Average:
    """What is known about one node; instants and durations are integer nanoseconds."""

    __slots__ = (
        "_calls",
        "_counter",
        "_weighed_at",
        "_weight",
        "ended_at",
        "inflight",
        "lag",
        "picked_at",
        "success",
    )

    def __init__(self, now: int) -> None:
        self.lag = 0
        self.success = 1000
        self.inflight = 1
        self.ended_at = now
        self.picked_at = now - FORCED_AFTER_NS - 1  # never picked is left out for long
        self._calls: dict[int, int] = {}  # running call -> its start
        self._counter = 0
        self._weight = 0.0
        self._weighed_at: int | None = None

    def start(self, now: int) -> int:
        self.picked_at = now
        self.inflight += 1
        self._counter += 1
        if len(self._calls) < TRACKED_CALLS:
            self._calls[self._counter] = now
        return self._counter

    def end(self, call: int, started: int, now: int, *, success: bool) -> None:
        self._calls.pop(call, None)
        self.inflight -= 1
        decay = math.exp(-max(now - self.ended_at, 0) / TAU_NS) if self.lag else 0.0
        self.ended_at = now
        self.lag = int(self.lag * decay + max(now - started, 0) * (1 - decay))
        self.success = int(self.success * decay + (1000 if success else 0) * (1 - decay))

    def weight(self, now: int) -> float:
        if self._weighed_at is None or now - self._weighed_at > WEIGHT_KEPT_NS:
            self._weight = self.success * 10_000 / self._load(now)
            self._weighed_at = now
        return self._weight

    def _load(self, now: int) -> int:
        if self.lag == 0:
            return UNKNOWN_LAG_LOAD * self.inflight
        return math.isqrt(max(self.lag, self._predict(now)) + ZONE_GAP_NS) * self.inflight

    def _predict(self, now: int) -> int:
        slow = [age for start in self._calls.values() if (age := now - start) > self.lag]
        return sum(slow) // len(slow) if len(slow) >= len(self._calls) // 2 + 1 else 0


def _speaks_against_node(error: BaseException) -> bool:
    if isinstance(error, TimeoutError | asyncio.CancelledError | OSError):
        return True
    return isinstance(error, errors.Error) and error.code in {499, 503, 504}
