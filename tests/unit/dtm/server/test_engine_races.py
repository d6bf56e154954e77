"""Requests, rounds, claims and renewals of one transaction that come at the same moment."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from kit.dtm.core import (
    Answer,
    Branch,
    Options,
    Outcome,
    Policy,
    Prepared,
    Reply,
    Request,
    Stopped,
    Submitted,
    Transaction,
)
from kit.dtm.server import engine as engine_module
from kit.dtm.server.caller import BranchAnswer
from kit.dtm.server.claims import Claims
from kit.dtm.server.engine import Engine
from kit.dtm.store import Change, StoreUnavailable
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Op, Result, Status, TransType
from kit.testing import ManualClock

OK = BranchAnswer(Result.SUCCESS)
NO = BranchAnswer(Result.FAILURE, "no")
DOWN = BranchAnswer(Result.UNKNOWN, "connection refused", 14)


class HeldStore(MemoryStore):
    """A save of the status in ``fails``, and each renewal, waits until the test lets it go."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.fails: Status | None = None
        self.error: Exception = StoreUnavailable("away")
        self.saving, self.go_on = asyncio.Event(), asyncio.Event()
        self.renewal: asyncio.Event | None = None

    async def save(self, change: Change) -> int:
        if change.tx.status is self.fails:
            self.saving.set()
            await self.go_on.wait()
            self.fails = None
            raise self.error
        return await super().save(change)

    async def renew(self, owner: str, held: object, *, lease_s: float = 10.0) -> set[str]:
        if self.renewal is not None:
            await self.renewal.wait()
        return await super().renew(owner, held, lease_s=lease_s)  # type: ignore[arg-type]


class Branches:
    """Answers by (branch_id, op); what has a gate answers when it opens."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.answers: dict[tuple[str, str], BranchAnswer] = {}
        self.gates: dict[tuple[str, str], asyncio.Event] = {}

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        self.calls.append(branch.key)
        if gate := self.gates.get(branch.key):
            await gate.wait()
        return self.answers.get(branch.key, OK)

    def hold(self, branch_id: str, op: str) -> asyncio.Event:
        return self.gates.setdefault((branch_id, op), asyncio.Event())


DUE = Transaction(
    "g1", TransType.MSG, Status.SUBMITTED, branches=(Branch("01", Op.ACTION, "h:1/s/M"),)
)


def saga(*, wait: bool = False) -> Request:
    rows = tuple(
        Branch(branch_id, op, f"h:1/s/{op}")
        for branch_id in ("01", "02")
        for op in (Op.COMPENSATE, Op.ACTION)
    )
    return Request("g1", TransType.SAGA, branches=rows, options=Options(wait_result=wait))


def message(*, wait: bool = True, concurrent: bool = True) -> Request:
    rows = tuple(Branch(branch_id, Op.ACTION, "h:1/s/M") for branch_id in ("01", "02"))
    options = Options(wait_result=wait, concurrent=concurrent, request_timeout=600)
    return Request("g1", TransType.MSG, branches=rows, options=options)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> HeldStore:
    return HeldStore(clock)


@pytest.fixture
def branches() -> Branches:
    return Branches()


@pytest.fixture
def engine(store: HeldStore, clock: ManualClock, branches: Branches) -> Engine:
    return made(store, clock, branches, "one")


def made(store: HeldStore, clock: ManualClock, branches: Branches, owner: str) -> Engine:
    return Engine(store, branches, clock, Policy(), owner=owner, coalesce=False)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_submit_that_waits_behind_a_failing_save_does_not_begin_the_saga_anew(
    store: HeldStore, engine: Engine, branches: Branches
) -> None:
    """The store holds an aborting saga, whose lease and fence are still this coordinator's."""
    branches.answers["02", Op.ACTION] = NO
    store.fails = Status.FAILED
    await engine.handle(Submitted(0, saga()))
    await store.saving.wait()
    again = asyncio.create_task(engine.handle(Submitted(0, saga())))
    await asyncio.sleep(0.01)
    store.go_on.set()
    answer = await again
    assert isinstance(answer, Reply)
    assert answer.outcome is Outcome.FAILURE
    held = await store.load("g1")
    assert held is not None
    assert held.tx.status is Status.ABORTING
    assert branches.calls.count(("01", Op.ACTION)) == 1


async def test_who_waits_behind_a_failing_save_is_served_by_a_round_that_counts(
    store: HeldStore, engine: Engine, branches: Branches
) -> None:
    """What was forgotten while a request waited for it is entered again."""
    store.fails = Status.SUCCEED
    await engine.handle(Submitted(0, message(wait=False)))
    await store.saving.wait()
    again = asyncio.create_task(engine.handle(Submitted(0, message())))
    await asyncio.sleep(0.01)
    store.go_on.set()
    async with asyncio.timeout(5):
        assert await again == Answer(Outcome.SUCCESS)
    assert engine.live == 0


@pytest.mark.parametrize(("last", "outcome"), [(OK, Outcome.FAILURE), (DOWN, Outcome.UNKNOWN)])
async def test_who_comes_after_the_first_failure_of_a_concurrent_message_is_answered(
    engine: Engine, branches: Branches, last: BranchAnswer, outcome: Outcome
) -> None:
    """Whether the last call of the round succeeds or not."""
    branches.answers = {("01", Op.ACTION): DOWN, ("02", Op.ACTION): last}
    gate = branches.hold("02", Op.ACTION)
    first = await engine.handle(Submitted(0, message()))
    assert first.outcome is Outcome.UNKNOWN
    second = asyncio.create_task(engine.handle(Submitted(0, message())))
    await asyncio.sleep(0.01)
    gate.set()
    async with asyncio.timeout(5):
        assert (await second).outcome is outcome


async def test_who_waits_for_a_round_that_another_coordinator_ended_is_told_to_ask_later(
    store: HeldStore, engine: Engine, clock: ManualClock, branches: Branches
) -> None:
    gate = branches.hold("01", Op.ACTION)
    waiting = asyncio.create_task(engine.handle(Submitted(0, saga(wait=True))))
    await until(lambda: branches.calls)
    await made(store, clock, branches, "two").handle(Stopped(0, "g1"))
    stopping = asyncio.create_task(engine.handle(Stopped(0, "g1")))
    await asyncio.sleep(0.01)
    clock.advance(1)  # it looks again
    refused = await stopping
    assert refused.outcome is Outcome.FAILURE
    gate.set()
    async with asyncio.timeout(5):
        assert (await waiting).outcome is Outcome.UNKNOWN
    assert engine.live == 0


async def test_a_round_that_fails_unexpectedly_at_its_start_keeps_no_lease(
    store: HeldStore, engine: Engine, clock: ManualClock, branches: Branches
) -> None:
    """Else it would be renewed for ever, and nobody could take the transaction up again."""
    await engine.handle(Prepared(clock.now_ms(), message()))  # nobody can be asked: it is sent
    clock.advance(60)
    [held] = await store.claim("one", 1)
    store.fails, store.error = Status.SUBMITTED, RuntimeError("not expected")
    store.go_on.set()
    engine.wake(held)
    await store.saving.wait()
    await asyncio.sleep(0.01)
    assert engine.live == 0


async def test_what_another_coordinator_did_meanwhile_counts_when_the_lease_comes_back(
    store: HeldStore, engine: Engine, clock: ManualClock, branches: Branches
) -> None:
    """A paused process claims what it believes to be calling still: the other one is undoing it."""
    gate = branches.hold("02", Op.ACTION)
    await engine.handle(Submitted(clock.now_ms(), saga()))
    await until(lambda: ("02", Op.ACTION) in branches.calls)
    clock.advance(60)  # longer than the lease
    others = Branches()
    others.answers = {("02", Op.ACTION): NO, ("02", Op.COMPENSATE): DOWN}
    other = made(store, clock, others, "two")
    [held] = await store.claim("two", 1)
    other.wake(held)
    await until(lambda: ("02", Op.COMPENSATE) in others.calls and other.live == 0)
    clock.advance(60)
    [held] = await store.claim("one", 1)
    assert held.tx.status is Status.ABORTING
    engine.wake(held)
    await asyncio.sleep(0.01)
    gate.set()
    await until(lambda: engine.live == 0)
    held_now = await store.load("g1")
    assert held_now is not None
    assert held_now.tx.status is Status.FAILED
    assert branches.calls[-2:] == [("02", Op.COMPENSATE), ("01", Op.COMPENSATE)]


async def test_a_renewal_that_comes_after_the_end_takes_nothing_from_who_waits(
    store: HeldStore, engine: Engine, clock: ManualClock, branches: Branches
) -> None:
    """The store says that the lease is gone: it was given back, with a new round's to be taken."""
    branches.answers["01", Op.ACTION] = DOWN
    first_gate = branches.hold("01", Op.ACTION)
    await engine.handle(Submitted(0, message(wait=False, concurrent=False)))
    await until(lambda: branches.calls)
    clock.advance(5)
    store.renewal = asyncio.Event()
    renewing = asyncio.create_task(engine.renew())
    await asyncio.sleep(0.01)
    # the round ends and gives its lease back; the next begins before the renewal is answered
    live = engine._live["g1"]
    live.users += 1  # as somebody else's request that has not ended
    first_gate.set()
    await until(lambda: not live.held)
    store.renewal.set()
    await renewing
    assert engine._live.get("g1") is live
    assert live.tx is not None


async def test_due_transactions_are_claimed_however_many_requests_are_being_served(
    store: HeldStore,
    engine: Engine,
    clock: ManualClock,
    branches: Branches,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls that hang hold up nothing but themselves; only claimed ones count, until they end."""
    monkeypatch.setattr(engine_module, "MAX_RECOVERING", 1)
    await engine.handle(Prepared(clock.now_ms(), message(wait=False)))
    clock.advance(60)
    gate = branches.hold("01", Op.ACTION)
    await engine.handle(Submitted(clock.now_ms(), replace(message(wait=False), gid="g2")))
    await until(lambda: len(branches.calls) == 2)
    claiming = asyncio.create_task(Claims(store, engine, clock, owner="one").run())
    await until(lambda: len(branches.calls) == 4)
    assert (engine.live, engine.room) == (2, 0)
    gate.set()
    await until(lambda: engine.live == 0)
    assert engine.room == 1
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)


async def test_what_is_expected_just_after_the_store_was_asked_is_not_slept_through(
    store: HeldStore, engine: Engine, clock: ManualClock, branches: Branches
) -> None:
    """The answer of the store is on its way when a round elsewhere in this process ends."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def next_due() -> int | None:
        due = await MemoryStore.next_due(store)
        asked.set()
        await answer.wait()
        return due

    store.next_due = next_due  # type: ignore[method-assign]
    claiming = asyncio.create_task(Claims(store, engine, clock, owner="one", poll_s=60).run())
    await asked.wait()
    engine.on_wake(clock.now_ms() + 20)
    await store.create(replace(DUE, next_cron_time=clock.now_ms() + 20))
    answer.set()
    await until(lambda: clock.next_wake is not None and clock.next_wake <= 0.06)
    clock.advance(0.06)
    await until(lambda: branches.calls == [("01", Op.ACTION)])
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
