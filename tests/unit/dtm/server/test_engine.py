"""The engine over a real store, with branches that answer as the test says."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kit.dtm.core import (
    Answer,
    Branch,
    Options,
    Outcome,
    Policy,
    Prepared,
    Request,
    Submitted,
    Transaction,
)
from kit.dtm.server.caller import BranchAnswer
from kit.dtm.server.claims import Claims
from kit.dtm.server.engine import Engine
from kit.dtm.store import Change, Store, StoreUnavailable
from kit.dtm.store.memory import MemoryStore
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType
from kit.testing import ManualClock

OK = BranchAnswer(Result.SUCCESS)
DOWN = BranchAnswer(Result.UNKNOWN, "connection refused", 14)


class Branches:
    """Answers calls by branch id; a branch can be held until the test lets it go."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.answers: dict[str, BranchAnswer] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.running: dict[tuple[str, str], int] = defaultdict(int)
        self.most_at_once = 0

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        key = tx.gid, branch.branch_id
        self.calls.append(key)
        self.running[key] += 1
        self.most_at_once = max(self.most_at_once, self.running[key])
        try:
            if gate := self.gates.get(branch.branch_id):
                await gate.wait()
            return self.answers.get(branch.branch_id, OK)
        finally:
            self.running[key] -= 1


def request(gid: str = "g1", *, wait: bool = True, steps: int = 2) -> Request:
    return Request(
        gid,
        TransType.MSG,
        branches=tuple(Branch(f"{n:02d}", Op.ACTION, "h:1/s/M") for n in range(1, steps + 1)),
        options=Options(wait_result=wait, request_timeout=600),
    )


class Coordinator:
    """An engine and its claims on a store, under one name."""

    def __init__(self, store: Store, clock: ManualClock, branches: Branches, owner: str) -> None:
        self.clock = clock
        self.store = store
        self.engine = Engine(store, branches, clock, Policy(), owner=owner)
        self.claims = Claims(store, self.engine, clock, owner=owner)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> "Coordinator":
        self.task = asyncio.create_task(self.claims.run())
        return self

    async def submit(self, gid: str = "g1", *, wait: bool = True, steps: int = 2) -> object:
        event = Submitted(self.clock.now_ms(), request(gid, wait=wait, steps=steps))
        return await self.engine.handle(event)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.engine.aclose(grace=0.01)


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Store]:
    made = (
        MemoryStore(clock) if request.param == "memory" else SqliteStore(tmp_path / "t.db", clock)
    )
    async with made as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def branches() -> Branches:
    return Branches()


@pytest.fixture
async def coordinator(
    store: Store, clock: ManualClock, branches: Branches
) -> AsyncIterator[Coordinator]:
    made = Coordinator(store, clock, branches, "one")
    yield made
    await made.stop()


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


async def status(store: Store, gid: str = "g1") -> Status | None:
    held = await store.load(gid)
    return held.tx.status if held else None


async def test_a_waiting_client_hears_of_success_after_it_is_stored(
    coordinator: Coordinator, store: Store, branches: Branches
) -> None:
    """The answer equals what a reader of the store finds, rows included."""
    answer = await coordinator.submit()
    assert answer == Answer(Outcome.SUCCESS)
    held = await store.load("g1")
    assert held is not None
    assert held.tx.status is Status.SUCCEED
    assert [b.status for b in held.tx.branches] == [BranchStatus.SUCCEED] * 2
    assert held.owner == ""
    assert branches.calls == [("g1", "01"), ("g1", "02")]
    assert coordinator.engine.live == 0


async def test_a_thousand_submits_of_one_gid_are_one_transaction(
    coordinator: Coordinator, branches: Branches
) -> None:
    """Each branch is called once, and everybody who waits hears the same, or that it is over."""
    answers = await asyncio.gather(*(coordinator.submit() for _ in range(1000)))
    assert branches.calls == [("g1", "01"), ("g1", "02")]
    texts = {(a.outcome, a.text) for a in answers}  # type: ignore[attr-defined]
    over = "current status 'succeed', cannot sumbmit. FAILURE"
    assert texts <= {(Outcome.SUCCESS, ""), (Outcome.FAILURE, over)}
    assert (Outcome.SUCCESS, "") in texts


async def test_a_middle_result_is_written_while_the_next_branch_takes_long(
    coordinator: Coordinator, store: Store, branches: Branches
) -> None:
    """A deferred save waits 50 ms for the next one, not for ever."""
    branches.gates["02"] = asyncio.Event()
    waiting = asyncio.create_task(coordinator.submit())
    await until(lambda: len(branches.calls) == 2, "second branch called")

    async with asyncio.timeout(5):
        while True:
            held = await store.load("g1")
            assert held is not None
            if held.tx.branches[0].status is BranchStatus.SUCCEED:
                break
            await asyncio.sleep(0.01)
    branches.gates["02"].set()
    assert await waiting == Answer(Outcome.SUCCESS)


async def test_a_branch_that_is_down_is_called_again_when_due(
    coordinator: Coordinator, clock: ManualClock, branches: Branches, store: Store
) -> None:
    """The client is told at once; the claim loop wakes at the due time and finishes."""
    coordinator.start()
    branches.answers["02"] = DOWN
    answer = await coordinator.submit()
    assert answer == Answer(Outcome.UNKNOWN, "connection refused", 14)
    branches.answers.clear()
    await until(lambda: clock.next_wake is not None, "the loop sleeps")
    for _ in range(30):
        clock.advance(1)
        await asyncio.sleep(0.01)
        if await status(store) is Status.SUCCEED:
            break
    assert await status(store) is Status.SUCCEED
    assert branches.calls == [("g1", "01"), ("g1", "02"), ("g1", "02")]


async def test_a_slow_branch_is_not_called_twice_by_two_coordinators(
    store: Store, clock: ManualClock, branches: Branches
) -> None:
    """The lease is renewed while the round runs, however long it takes (G6, G10)."""
    one = Coordinator(store, clock, branches, "one").start()
    two = Coordinator(store, clock, branches, "two").start()
    branches.gates["01"] = asyncio.Event()
    waiting = asyncio.create_task(one.submit())
    await until(lambda: branches.calls, "first branch called")
    for _ in range(100):
        clock.advance(1)
        await asyncio.sleep(0.005)
        await status(store)  # behind what the coordinators have asked: time waits for the disk
    assert branches.calls == [("g1", "01")]
    branches.gates["01"].set()
    assert await waiting == Answer(Outcome.SUCCESS)
    assert branches.most_at_once == 1
    await one.stop()
    await two.stop()


async def test_another_coordinator_takes_over_from_a_dead_one(
    store: Store, clock: ManualClock, branches: Branches
) -> None:
    """No renewal, so the lease ends and the due transaction is claimed by the other."""
    dead = Coordinator(store, clock, branches, "dead")
    branches.gates["02"] = asyncio.Event()
    waiting = asyncio.create_task(dead.submit())
    await until(lambda: len(branches.calls) == 2, "second branch called")
    other = Coordinator(store, clock, branches, "other").start()
    await until(lambda: clock.next_wake is not None, "the loop sleeps")
    for _ in range(40):
        clock.advance(1)
        await asyncio.sleep(0.005)
        await status(store)  # time waits for the disk
        if len(branches.calls) > 2:
            break
    assert branches.calls[2:] == [("g1", "02")]
    branches.gates["02"].set()
    async with asyncio.timeout(5):
        while await status(store) is not Status.SUCCEED:
            await asyncio.sleep(0.01)
    answer = await waiting
    assert isinstance(answer, Answer)  # the thawed one is refused by the fence, or sees the end
    assert answer.outcome in (Outcome.UNKNOWN, Outcome.SUCCESS)
    assert await status(store) is Status.SUCCEED
    await dead.stop()
    await other.stop()


async def test_stopping_gives_leases_back(
    store: Store, clock: ManualClock, branches: Branches
) -> None:
    """What a stopping coordinator cannot finish is free at once, and its clients are told."""
    one = Coordinator(store, clock, branches, "one")
    branches.gates["01"] = asyncio.Event()
    waiting = asyncio.create_task(one.submit())
    await until(lambda: branches.calls, "first branch called")
    await one.stop()
    answer = await waiting
    assert isinstance(answer, Answer)
    assert answer.outcome is Outcome.UNKNOWN
    held = await store.load("g1")
    assert held is not None
    assert (held.owner, held.tx.status) == ("", Status.SUBMITTED)
    with pytest.raises(StoreUnavailable):
        await one.submit("g2")


async def test_a_prepared_message_is_decided_by_its_sender_when_it_times_out(
    coordinator: Coordinator, clock: ManualClock, branches: Branches, store: Store
) -> None:
    """Query-prepared says no: failed, and no branch was ever called."""
    coordinator.start()
    branches.answers["00"] = BranchAnswer(Result.FAILURE, "never happened", 10)
    asked = Request(
        "g1",
        TransType.MSG,
        branches=request().branches,
        query_prepared="h:1/s/Query",
    )
    await coordinator.engine.handle(Prepared(clock.now_ms(), asked))
    for _ in range(60):
        clock.advance(1)
        await asyncio.sleep(0.01)
        if await status(store) is Status.FAILED:
            break
    assert await status(store) is Status.FAILED
    assert branches.calls == [("g1", "00")]


class _Away:
    """A store whose writes do not arrive while ``away``."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.away = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def create(self, tx: Transaction, **kwargs: object) -> int:
        self._check()
        return await self._inner.create(tx, **kwargs)  # type: ignore[arg-type]

    async def save(self, change: Change) -> int:
        self._check()
        return await self._inner.save(change)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the disk is full")


@asynccontextmanager
async def away_store(clock: ManualClock) -> AsyncIterator[_Away]:
    async with MemoryStore(clock) as inner:
        yield _Away(inner)


async def test_a_store_that_is_away_is_said_and_nothing_is_called(
    clock: ManualClock, branches: Branches
) -> None:
    """Not accepted means not accepted: the same request works once the store is back."""
    async with away_store(clock) as store:
        one = Coordinator(store, clock, branches, "one")  # type: ignore[arg-type]
        store.away = True
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await one.submit()
        assert branches.calls == []
        assert one.engine.live == 0
        store.away = False
        assert await one.submit() == Answer(Outcome.SUCCESS)
        await one.stop()


async def test_a_result_that_cannot_be_written_is_unknown_to_the_client_and_asked_again(
    clock: ManualClock, branches: Branches
) -> None:
    """G12: no success is told that the store does not hold."""
    async with away_store(clock) as store:
        one = Coordinator(store, clock, branches, "one").start()  # type: ignore[arg-type]
        branches.gates["02"] = asyncio.Event()
        waiting = asyncio.create_task(one.submit())
        await until(lambda: len(branches.calls) == 2, "second branch called")
        store.away = True
        branches.gates["02"].set()
        answer = await waiting
        assert isinstance(answer, Answer)
        assert answer.outcome is Outcome.UNKNOWN
        store.away = False
        for _ in range(60):
            clock.advance(1)
            await asyncio.sleep(0.01)
            if await status(store) is Status.SUCCEED:  # type: ignore[arg-type]
                break
        assert await status(store) is Status.SUCCEED  # type: ignore[arg-type]
        await one.stop()
