"""The formulas of kratos-wire §16, and the bounds of what the kit adds."""

import math
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.resilience import (
    BREAKER_V2,
    BREAKER_V3,
    BackOff,
    BbrLimiter,
    BreakerRule,
    CpuMeter,
    RetryBudget,
    SreBreaker,
    TokenBucket,
    container_cpu,
    process_cpu,
)
from kit.resilience.window import Window
from kit.testing.clock import ManualClock


class TestWindow:
    @given(
        st.integers(1, 12),
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=60),
    )
    def test_its_sums_are_those_of_the_entries_that_are_young_enough(
        self, buckets: int, steps: list[tuple[int, int]]
    ) -> None:
        """Against a plain list of all entries; a step is tenths of a bucket and a count."""
        window, entries, tenths = Window(1.0, buckets, 0.0), [], 0
        for passed, count in steps:
            tenths += passed
            window.add(tenths / 10, count, 1)
            entries.append((tenths // 10, count))
            young = [each for tick, each in entries if tick > tenths // 10 - buckets]
            assert window.totals(tenths / 10) == (sum(young), len(young))
            ticks = range(max(tenths // 10 - buckets + 1, 0), tenths // 10)
            assert list(window.completed(tenths / 10)) == [
                (
                    sum(each for at, each in entries if at == tick),
                    sum(1 for at, _ in entries if at == tick),
                )
                for tick in ticks
            ]


class TestSreBreaker:
    @pytest.mark.parametrize(("rule", "minimum"), [(BREAKER_V2, 100), (BREAKER_V3, 20)])
    def test_nothing_is_refused_below_the_minimum(self, rule: BreakerRule, minimum: int) -> None:
        breaker = SreBreaker(rule, chance=lambda: 0.0)
        for _ in range(minimum - 1):
            assert breaker.allow()
            breaker.failed()
        breaker.failed()
        assert not breaker.allow()

    @pytest.mark.parametrize("rule", [BREAKER_V2, BREAKER_V3])
    @given(failures=st.integers(0, 300), successes=st.integers(0, 300), chance=st.floats(0, 1))
    def test_the_probability_is_that_of_the_book(
        self, rule: BreakerRule, failures: int, successes: int, chance: float
    ) -> None:
        """§16.2: max(0, (total - K * success) / (total + 1))."""
        breaker = SreBreaker(rule, monotonic=lambda: 0.0, chance=lambda: chance)
        for _ in range(failures):
            breaker.failed()
        for _ in range(successes):
            breaker.succeeded()
        total = failures + successes
        refusing = max(0.0, (total - rule.k * successes) / (total + 1))
        allowed = total < rule.minimum or total < rule.k * successes or chance >= refusing
        assert breaker.allow() is allowed

    def test_the_last_chance_that_is_refused_is_just_below_that_probability(self) -> None:
        """30 calls of which 10 succeeded: (30 - 2 * 10) / 31."""
        for chance, allowed in ((10 / 31 - 1e-9, False), (10 / 31, True)):
            breaker = SreBreaker(
                BREAKER_V3, monotonic=lambda: 0.0, chance=lambda chance=chance: chance
            )
            for _ in range(20):
                breaker.failed()
            for _ in range(10):
                breaker.succeeded()
            assert breaker.allow() is allowed

    def test_it_heals_as_the_window_slides(self) -> None:
        clock = ManualClock()
        breaker = SreBreaker(BREAKER_V3, monotonic=clock.monotonic, chance=lambda: 0.0)
        for _ in range(50):
            breaker.failed()
        assert not breaker.allow()
        clock.advance(2.6)
        assert not breaker.allow()
        clock.advance(0.5)
        assert breaker.allow()

    def test_a_target_that_fails_nine_times_in_ten_is_hardly_called(self) -> None:
        """And one that works is called always."""
        clock, rng = ManualClock(), random.Random(7)
        breaker = SreBreaker(BREAKER_V3, monotonic=clock.monotonic, chance=rng.random)
        made = 0
        for _ in range(20_000):
            clock.advance(0.001)
            if not breaker.allow():
                breaker.failed()
                continue
            made += 1
            if rng.random() < 0.1:
                breaker.succeeded()
            else:
                breaker.failed()
        assert made < 0.05 * 20_000
        healthy = SreBreaker(BREAKER_V3, monotonic=clock.monotonic, chance=lambda: 0.0)
        for _ in range(1_000):
            clock.advance(0.001)
            assert healthy.allow()
            healthy.succeeded()

    @pytest.mark.parametrize(
        "values", [{"k": 0.5}, {"k": math.nan}, {"minimum": -1}, {"window": 0}, {"buckets": 0}]
    )
    def test_a_rule_that_makes_no_sense_is_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="breaker"):
            BreakerRule(**{"k": 2, "minimum": 1, **values})  # type: ignore[arg-type]


class Load:
    """A limiter, a clock and a processor that are moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.cpu = 0.0
        self.limiter = BbrLimiter(cpu=lambda: self.cpu, monotonic=self.clock.monotonic)

    def work(self, calls: int, seconds: float) -> None:
        """``calls`` at once that take ``seconds``."""
        running = [self.limiter.allow() for _ in range(calls)]
        self.clock.advance(seconds)
        for done in running:
            assert done is not None
            done()

    def enter(self) -> bool:
        return self.limiter.allow() is not None


class TestBbr:
    def test_an_idle_processor_refuses_nobody(self) -> None:
        load = Load()
        assert all(load.enter() for _ in range(1_000))

    def test_how_many_may_run_is_the_best_pass_times_the_best_time(self) -> None:
        """§16.1: 40 calls a bucket of 50 ms each: 40 * 50 * 10 / 1000 = 20."""
        load = Load()
        for _ in range(10):
            load.work(40, 0.05)
            load.clock.advance(0.05)
        assert load.limiter.max_in_flight() == 20
        load.cpu = 800.0
        assert [load.enter() for _ in range(25)] == [True] * 21 + [False] * 4

    def test_most_passes_and_shortest_time_may_come_from_different_buckets(self) -> None:
        """100 calls in one bucket, 19.5 ms each, so 20, in another: 100 * 20 * 10 / 1000 = 20."""
        load = Load()
        load.work(100, 0.09)
        load.clock.advance(0.06)
        load.work(2, 0.0195)
        load.clock.advance(0.2)
        assert load.limiter.max_in_flight() == 20

    def test_the_bucket_of_now_does_not_count(self) -> None:
        load = Load()
        load.work(500, 0.05)
        assert load.limiter.max_in_flight() == 0
        load.clock.advance(0.11)
        assert load.limiter.max_in_flight() == 250

    def test_without_any_record_a_busy_processor_lets_two_in(self) -> None:
        """In flight has to be above 1, and 1 * 1 * 10 / 1000 is no call at all."""
        load = Load()
        load.cpu = 1000.0
        assert [load.enter() for _ in range(4)] == [True, True, False, False]

    def test_after_the_first_refusal_it_stays_careful_for_a_second(self) -> None:
        load = Load()
        load.cpu = 900.0
        assert [load.enter() for _ in range(3)] == [True, True, False]
        load.cpu = 100.0
        load.clock.advance(0.9)
        assert not load.enter()
        load.clock.advance(0.2)
        assert load.enter()
        assert load.enter()

    def test_calls_that_end_make_room(self) -> None:
        load = Load()
        load.cpu = 900.0
        running = deque(load.limiter.allow() for _ in range(2))
        assert not load.enter()
        first = running.popleft()
        assert first is not None
        first()
        assert load.limiter.in_flight == 1
        assert load.enter()

    def test_values_that_make_no_sense_are_refused(self) -> None:
        for values in ({"window": 0.0}, {"buckets": 1}, {"threshold": 0.0}):
            with pytest.raises(ValueError, match="bbr"):
                BbrLimiter(**values)  # type: ignore[arg-type]


class TestCpu:
    def test_samples_are_smoothed_and_capped(self) -> None:
        """§16.1: 0.95 of before and 0.05 of now, every 500 ms, at most 1000."""
        clock, used = ManualClock(), [0.0]
        meter = CpuMeter(lambda: (used[0], 1.0), monotonic=clock.monotonic)
        assert meter() == 0.0
        for wanted in (50.0, 97.5, 142.625):
            clock.advance(0.5)
            used[0] += 0.5
            assert meter() == pytest.approx(wanted)
        clock.advance(0.4)
        assert meter() == pytest.approx(142.625)
        for _ in range(100):
            clock.advance(0.5)
            used[0] += 5.0
            meter()
        assert meter() == 1000.0

    def test_a_long_pause_counts_as_so_many_samples_of_its_mean(self) -> None:
        clock, used = ManualClock(), [0.0]
        meter = CpuMeter(lambda: (used[0], 2.0), monotonic=clock.monotonic)
        clock.advance(5.0)
        used[0] += 5.0
        assert meter() == pytest.approx(500 * (1 - 0.95**10))

    def test_both_sources_read_this_machine(self) -> None:
        for source in (process_cpu, container_cpu):
            before, cores = source()
            sum(range(2_000_000))
            assert source()[0] >= before
            assert cores > 0


class TestTokenBucket:
    @given(st.lists(st.floats(0, 3), max_size=50))
    def test_no_span_lets_more_in_than_burst_and_rate(self, pauses: list[float]) -> None:
        clock = ManualClock()
        bucket = TokenBucket(rate=2.0, burst=5, monotonic=clock.monotonic)
        taken = 0
        for pause in pauses:
            clock.advance(pause)
            taken += sum(bucket.take() for _ in range(10))
        assert taken <= 5 + 2.0 * clock.monotonic() + 1e-6

    def test_an_idle_bucket_saves_its_burst_and_no_more(self) -> None:
        clock = ManualClock()
        bucket = TokenBucket(rate=10, burst=3, monotonic=clock.monotonic)
        clock.advance(100)
        assert sum(bucket.take() for _ in range(10)) == 3
        clock.advance(0.11)
        assert bucket.allow() is not None
        assert bucket.allow() is None

    def test_a_bucket_that_lets_nobody_in_is_refused(self) -> None:
        for rate, burst in ((0, 1), (-1, 1), (1, 0), (math.nan, 1)):
            with pytest.raises(ValueError, match="token bucket"):
                TokenBucket(rate, burst)


class TestRetryBudget:
    @given(st.integers(0, 500), st.floats(0, 1), st.integers(1, 20))
    def test_retries_never_exceed_reserve_and_earnings(
        self, calls: int, ratio: float, reserve: int
    ) -> None:
        budget = RetryBudget(ratio, reserve)
        made = 0
        for _ in range(calls):
            budget.call()
            made += budget.retry()
        assert made <= reserve + ratio * calls + 1e-6

    def test_values_that_make_no_sense_are_refused(self) -> None:
        for ratio, reserve in ((-0.1, 1), (1.1, 1), (0.1, 0)):
            with pytest.raises(ValueError, match="retry budget"):
                RetryBudget(ratio, reserve)


@given(st.integers(1, 10_000))
def test_pauses_lie_between_half_of_their_step_and_all_of_it(tries: int) -> None:
    step = min(0.05 * 2.0 ** min(tries - 1, 30), 1.0)
    assert step / 2 <= BackOff().pause(tries) <= step


def test_a_negative_pause_is_refused() -> None:
    with pytest.raises(ValueError, match="back-off"):
        BackOff(-1, 1)
