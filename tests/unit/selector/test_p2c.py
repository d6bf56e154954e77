"""The moving averages of p2c, figure by figure; kratos-wire §6."""

import asyncio
import math
import random

import pytest

from kit import errors
from kit.selector import Done, Node
from kit.selector.p2c import P2C, _Average, _speaks_against_node
from kit.testing import ManualClock

MS = 1_000_000
A, B, C = Node("a"), Node("b"), Node("c")


class Chance(random.Random):
    """Draws what the test says, again and again."""

    def __init__(self, *values: float) -> None:
        self._values = values
        self._next = 0
        super().__init__()

    def random(self) -> float:
        self._next += 1
        return self._values[(self._next - 1) % len(self._values)]


def call(average: _Average, started: int, ended: int, *, success: bool = True) -> None:
    average.end(average.start(started), started, ended, success=success)


def test_a_fresh_node_weighs_100() -> None:
    """success 1000 * 10 000 / (100 000 * 1)"""
    assert _Average(0).weight(0) == 100


def test_the_first_call_sets_the_lag_and_later_ones_blend_in_by_their_distance() -> None:
    average = _Average(0)
    call(average, 0, 10 * MS)
    assert (average.lag, average.success, average.inflight) == (10 * MS, 1000, 1)
    call(average, 10 * MS, 40 * MS)
    decay = math.exp(-30 / 600)
    assert average.lag == int(10 * MS * decay + 30 * MS * (1 - decay))


def test_failures_lower_the_success() -> None:
    average = _Average(0)
    call(average, 0, 10 * MS)
    call(average, 10 * MS, 310 * MS, success=False)
    assert average.success == int(1000 * math.exp(-300 / 600))


def test_the_load_is_the_root_of_the_lag_times_the_running_calls() -> None:
    average = _Average(0)
    call(average, 0, 20 * MS)
    running = average.start(20 * MS)
    expected = 1000 * 10_000 / (math.isqrt(20 * MS + 5 * MS) * 2)
    assert average.weight(20 * MS) == expected
    average.end(running, 20 * MS, 21 * MS, success=True)
    assert average.weight(24 * MS) == expected, "kept for 5 ms"
    assert average.weight(26 * MS) != expected


def test_running_calls_that_are_already_slower_count_before_they_end() -> None:
    """Two of three run longer than the lag of 1 ms, 11 ms in the mean."""
    average = _Average(0)
    call(average, 0, 1 * MS)
    for started in (1 * MS, 3 * MS, 12 * MS + MS // 2):
        average.start(started)
    expected = 1000 * 10_000 / (math.isqrt(11 * MS + 5 * MS) * 4)
    assert average.weight(13 * MS) == expected


def test_one_slow_call_of_three_does_not_count() -> None:
    average = _Average(0)
    call(average, 0, 1 * MS)
    for started in (1 * MS, 13 * MS, 13 * MS):
        average.start(started)
    assert average.weight(13 * MS) == 1000 * 10_000 / (math.isqrt(1 * MS + 5 * MS) * 4)


def make(*chance: float) -> tuple[P2C, ManualClock]:
    clock = ManualClock()
    return P2C(Chance(*chance), clock), clock


def finish(
    done: Done, clock: ManualClock, seconds: float, error: BaseException | None = None
) -> None:
    clock.advance(seconds)
    done(error)


def test_the_two_nodes_of_a_draw_are_distinct() -> None:
    balancer = P2C(random.Random(3), ManualClock())
    for _ in range(200):
        node, _ = balancer.pick((A, B))
        assert node in (A, B)


def test_the_faster_node_wins() -> None:
    balancer, clock = make(0.0)
    for node, seconds in ((A, 0.2), (B, 0.01)):
        _, done = balancer.pick((node,))
        finish(done, clock, seconds)
    assert [balancer.pick((A, B))[0] for _ in range(3)] == [B, B, B]


def test_a_node_never_picked_goes_first_and_one_left_out_for_3_s_once() -> None:
    balancer, clock = make(0.0)
    _, done = balancer.pick((A,))
    finish(done, clock, 0.001)
    node, done = balancer.pick((A, B))
    assert node is B, "equal or not, B had no call yet"
    finish(done, clock, 0.5)
    assert balancer.pick((A, B))[0] is A
    clock.advance(3.1)
    balancer.pick((A,))
    assert balancer.pick((A, B))[0] is B
    assert balancer.pick((A, B))[0] is A


def test_vanished_nodes_are_forgotten() -> None:
    balancer, _ = make(0.0)
    for number in range(100):
        balancer.pick((Node(str(number)),))
    assert len(balancer._averages) <= 3


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (TimeoutError(), True),
        (asyncio.CancelledError(), True),
        (ConnectionResetError(), True),
        (errors.ServiceUnavailable("X"), True),
        (errors.GatewayTimeout("X"), True),
        (errors.ClientClosed("X"), True),
        (errors.NotFound("X"), False),
        (errors.InternalServer("X"), False),
        (ValueError(), False),
    ],
)
def test_only_some_errors_speak_against_a_node(error: BaseException, *, counts: bool) -> None:
    assert _speaks_against_node(error) is counts


def test_a_rule_of_the_user_adds_to_them() -> None:
    clock = ManualClock()
    balancer = P2C(Chance(0.0), clock, lambda error: isinstance(error, ValueError))
    _, done = balancer.pick((A,))
    finish(done, clock, 0.01, ValueError())
    assert balancer._averages["a"].success == 0
