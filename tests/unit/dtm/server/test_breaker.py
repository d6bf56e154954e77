"""The circuit breaker, and the lanes that keep targets apart."""

import asyncio
import random

import pytest

from kit.dtm.core import Branch, Transaction
from kit.dtm.server import lanes as module
from kit.dtm.server.breaker import FIRST_PAUSE_S, MAX_PAUSE_S, OPENS_AFTER, Breaker
from kit.dtm.server.callers import BranchAnswer
from kit.dtm.server.lanes import Lanes
from kit.dtm.wire import Result, Status, TransType
from kit.errors.codes import GrpcCode
from kit.testing import ManualClock

TX = Transaction("g", TransType.MSG, Status.SUBMITTED)
BRANCH = Branch("01", "action", "h:1/a.B/C")
OK = BranchAnswer(Result.SUCCESS)
DOWN = BranchAnswer(Result.UNKNOWN, "refused", GrpcCode.UNAVAILABLE)


class Target:
    """Answers as it is told; holds calls while ``gate`` is closed."""

    def __init__(self, answer: BranchAnswer = OK) -> None:
        self.answer = answer
        self.calls = 0
        self.limits: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        self.calls += 1
        self.limits.append(limit)
        await self.gate.wait()
        return self.answer


def test_pauses_grow_to_a_ceiling_and_an_answer_ends_them() -> None:
    breaker, now = Breaker(random.Random(1)), 0.0
    assert [breaker.failed(now, "x", probe=False) for _ in range(OPENS_AFTER)][-1]
    pauses = []
    for _ in range(12):
        began = now
        while not breaker.probe(now):
            now += 0.01
        pauses.append(now - began)
        assert not breaker.probe(now)  # one at a time
        breaker.failed(now, "x", probe=True)
    assert pauses[0] <= FIRST_PAUSE_S + 0.02
    assert pauses[3] > pauses[0]
    assert MAX_PAUSE_S / 2 - 0.1 <= max(pauses) <= MAX_PAUSE_S + 0.1
    breaker.answered()
    assert not breaker.open
    assert breaker.failures == 0


async def test_a_target_that_is_away_is_not_called_until_a_probe_finds_it_back() -> None:
    clock, target = ManualClock(), Target(DOWN)
    lanes = Lanes(clock, rng=random.Random(1))

    async def call() -> BranchAnswer:
        return await lanes.call("h:1", target, TX, BRANCH, 3.0)

    for _ in range(OPENS_AFTER):
        assert await call() == DOWN
    refused = await call()
    assert refused.result is Result.UNKNOWN
    assert refused.code == GrpcCode.UNAVAILABLE
    assert refused.text == "target h:1: circuit open after 5 failures, last: refused"
    assert target.calls == OPENS_AFTER
    clock.advance(FIRST_PAUSE_S)
    assert await call() == DOWN  # the probe
    assert (await call()).text.startswith("target h:1: circuit open after 6 failures")
    clock.advance(2 * FIRST_PAUSE_S)
    target.answer = OK
    assert [await call() for _ in range(3)] == [OK] * 3


@pytest.mark.parametrize(
    "said",
    [
        BranchAnswer(Result.FAILURE, "no", 10),
        BranchAnswer(Result.ONGOING, "", 9),
        BranchAnswer(Result.UNKNOWN, "boom", GrpcCode.INTERNAL),
    ],
)
async def test_any_answer_in_between_keeps_the_breaker_closed(said: BranchAnswer) -> None:
    target = Target(DOWN)
    lanes = Lanes(ManualClock())
    for _ in range(3):
        for answer in [DOWN] * (OPENS_AFTER - 1) + [said]:
            target.answer = answer
            assert await lanes.call("h:1", target, TX, BRANCH, 3.0) == answer


async def test_a_cancelled_probe_leaves_the_next_call_to_look() -> None:
    clock, target = ManualClock(), Target(DOWN)
    lanes = Lanes(clock)
    for _ in range(OPENS_AFTER):
        await lanes.call("h:1", target, TX, BRANCH, 3.0)
    clock.advance(FIRST_PAUSE_S)
    target.gate.clear()
    probe = asyncio.create_task(lanes.call("h:1", target, TX, BRANCH, 3.0))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.wait([probe])
    target.gate.set()
    target.answer = OK
    assert await lanes.call("h:1", target, TX, BRANCH, 3.0) == OK
    assert lanes.in_flight == 0


async def test_a_target_gets_its_share_and_others_wait_for_nothing() -> None:
    lanes = Lanes(ManualClock(), per_target=5, total=100)
    hung = [Target() for _ in range(20)]
    waiting = []
    for n, target in enumerate(hung):
        target.gate.clear()
        waiting += [
            asyncio.create_task(lanes.call(f"hung{n}", target, TX, BRANCH, 60.0)) for _ in range(10)
        ]
    await asyncio.sleep(0.01)
    assert max(target.calls for target in hung) <= 5
    assert lanes.in_flight < 100
    healthy = Target()
    async with asyncio.timeout(10):
        for _ in range(50):
            assert await lanes.call("healthy", healthy, TX, BRANCH, 1.0) == OK
    for target in hung:
        target.gate.set()
    assert await asyncio.gather(*waiting) == [OK] * 200  # and whoever waited got his turn
    assert lanes.in_flight == 0


async def test_who_waits_for_room_gives_up_after_half_of_his_time() -> None:
    lanes, target = Lanes(ManualClock(), per_target=1), Target()
    target.gate.clear()
    first = asyncio.create_task(lanes.call("t", target, TX, BRANCH, 60.0))
    await asyncio.sleep(0)
    answer = await lanes.call("t", target, TX, BRANCH, 0.1)
    assert answer.code == GrpcCode.RESOURCE_EXHAUSTED
    assert "Targets.Concurrency" in answer.text
    late = asyncio.create_task(lanes.call("t", target, TX, BRANCH, 10.0))
    dropped = asyncio.create_task(lanes.call("t", target, TX, BRANCH, 10.0))
    await asyncio.sleep(0)
    dropped.cancel()
    target.gate.set()
    assert [await first, await late] == [OK, OK]
    assert target.limits == [60.0, 5.0]
    assert lanes.in_flight == 0


async def test_an_opening_breaker_sends_those_away_who_wait() -> None:
    lanes, target = Lanes(ManualClock(), per_target=OPENS_AFTER), Target(DOWN)
    target.gate.clear()
    calls = [
        asyncio.create_task(lanes.call("t", target, TX, BRANCH, 60.0))
        for _ in range(OPENS_AFTER + 10)
    ]
    await asyncio.sleep(0)
    target.gate.set()
    answers = await asyncio.gather(*calls)
    assert sum("circuit open" in answer.text for answer in answers) >= 10 - OPENS_AFTER
    assert lanes.in_flight == 0


async def test_targets_and_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TARGETS", 10)
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    lanes, target = Lanes(ManualClock(), per_target=1), Target()
    for n in range(100):
        await lanes.call(f"t{n}", target, TX, BRANCH, 1.0)
    assert lanes.tracked == 10
    target.gate.clear()
    calls = [asyncio.create_task(lanes.call("t", target, TX, BRANCH, 60.0)) for _ in range(3)]
    await asyncio.sleep(0)
    answer = await lanes.call("t", target, TX, BRANCH, 60.0)
    assert "2 more wait already" in answer.text
    target.gate.set()
    assert await asyncio.gather(*calls) == [OK] * 3
