"""What several coordinators on one store owe each other beside a message's rounds."""

import asyncio
from collections.abc import Callable

import pytest

from kit.clock import SkippingClock
from kit.dtm.core import (
    Answer,
    Branch,
    Options,
    Outcome,
    Policy,
    Prepared,
    Registered,
    Reply,
    Request,
    Stopped,
    Submitted,
    Transaction,
)
from kit.dtm.server.callers import BranchAnswer
from kit.dtm.server.engine import Engine
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType

CUSTOM = '{"name":"trip","data":null}'


class Branches:
    """Each call waits until the test lets it answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.answer = BranchAnswer(Result.SUCCESS)
        self.gate = asyncio.Event()

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        self.calls.append((tx.gid, branch.branch_id, branch.op))
        await self.gate.wait()
        return self.answer


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
def store(clock: SkippingClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def branches() -> Branches:
    return Branches()


@pytest.fixture
def engine(store: MemoryStore, branches: Branches, clock: SkippingClock) -> Callable[[str], Engine]:
    def make(owner: str) -> Engine:
        return Engine(store, branches, clock, Policy(), owner=owner)

    return make


def workflow(**changed: object) -> Request:
    given: dict[str, object] = {
        "gid": "w",
        "trans_type": TransType.WORKFLOW,
        "query_prepared": "h:1/workflow.Workflow/Execute",
        "custom_data": CUSTOM,
    }
    return Request(**{**given, **changed})  # type: ignore[arg-type]


def progress(branch_id: str = "01") -> Request:
    row = Branch(branch_id, Op.ACTION, "", b"r", BranchStatus.SUCCEED)
    return Request("w", TransType.WORKFLOW, branches=(row,))


async def called_back(one: Engine, store: MemoryStore, branches: Branches) -> None:
    """A workflow whose callback ``one`` has sent and waits for."""
    now = 1_000
    assert (await one.handle(Prepared(now, workflow()))).outcome is Outcome.SUCCESS
    assert await store.reset_next_cron_time("w")
    [held] = await store.claim("one", 1)
    one.wake(held)
    async with asyncio.timeout(5):
        while not branches.calls:
            await asyncio.sleep(0.002)
    assert branches.calls == [("w", "00", "trip")]


async def test_a_workflow_reports_to_another_coordinator_than_the_one_that_called_it(
    engine: Callable[[str], Engine], store: MemoryStore, branches: Branches
) -> None:
    """Its callback waits for it, so neither progress nor the end may wait for the callback."""
    one, two = engine("one"), engine("two")
    await called_back(one, store, branches)
    async with asyncio.timeout(10):
        registered = await two.handle(Registered(2_000, progress()))
        again = await two.handle(Registered(2_000, progress()))
        ended = await two.handle(
            Submitted(3_000, workflow(final_status=Status.SUCCEED, result="cg=="))
        )
    assert registered.outcome is Outcome.SUCCESS
    assert again == Reply(Outcome.UNKNOWN, "storage: UniqueKeyConflict")
    assert ended.outcome is Outcome.SUCCESS
    branches.gate.set()
    await one.aclose()
    held = await store.load("w")
    assert held is not None
    assert (held.tx.status, held.tx.result) == (Status.SUCCEED, "cg==")
    assert [b.key for b in held.tx.branches] == [("01", "action")]


async def test_progress_reported_elsewhere_survives_the_end_of_the_round(
    engine: Callable[[str], Engine], store: MemoryStore, branches: Branches
) -> None:
    """The coordinator that called does not write over rows that it never saw."""
    one, two = engine("one"), engine("two")
    await called_back(one, store, branches)
    assert (await two.handle(Registered(2_000, progress()))).outcome is Outcome.SUCCESS
    branches.answer = BranchAnswer(Result.ONGOING, "ONGOING")
    branches.gate.set()
    await one.aclose()
    held = await store.load("w")
    assert held is not None
    assert held.tx.status is Status.PREPARED
    assert len(held.tx.branches) == 1


async def test_an_operator_stops_what_another_coordinator_works_on(
    engine: Callable[[str], Engine], store: MemoryStore, branches: Branches
) -> None:
    """The one that works hears of it with its next write, and writes nothing."""
    one, two = engine("one"), engine("two")
    request = Request(
        "g",
        TransType.MSG,
        branches=(Branch("01", Op.ACTION, "h:1/s/M"), Branch("02", Op.ACTION, "h:1/s/M")),
        options=Options(wait_result=True),
    )
    waiting = asyncio.create_task(one.handle(Submitted(1_000, request)))
    async with asyncio.timeout(5):
        while not branches.calls:
            await asyncio.sleep(0.002)
        stopped = await two.handle(Stopped(2_000, "g", "wrong account"))
        again = await two.handle(Stopped(2_000, "g"))
        branches.gate.set()
        answer = await waiting
    assert stopped.outcome is Outcome.SUCCESS
    assert again.outcome is Outcome.FAILURE
    assert isinstance(answer, Answer)
    assert answer.outcome is not Outcome.SUCCESS
    await one.aclose()
    held = await store.load("g")
    assert held is not None
    assert (held.tx.status, held.tx.rollback_reason) == (Status.FAILED, "wrong account")


async def test_a_repeated_submit_at_another_coordinator_is_accepted(
    engine: Callable[[str], Engine], branches: Branches
) -> None:
    """Whoever holds the lease runs the round that was asked for."""
    one, two = engine("one"), engine("two")
    request = Request("g", TransType.MSG, branches=(Branch("01", Op.ACTION, "h:1/s/M"),))
    async with asyncio.timeout(10):
        assert (await one.handle(Submitted(1_000, request))).outcome is Outcome.SUCCESS
        assert (await two.handle(Submitted(1_000, request))).outcome is Outcome.SUCCESS
    branches.gate.set()
    await one.aclose()
    await two.aclose()
    assert len(branches.calls) == 1


async def test_a_round_that_is_asked_for_has_ended_when_it_is_answered(
    engine: Callable[[str], Engine], store: MemoryStore, branches: Branches, clock: SkippingClock
) -> None:
    """For tests with a clock of their own; nobody has to guess how long to sleep."""
    one = engine("one")
    branches.gate.set()
    branches.answer = BranchAnswer(Result.UNKNOWN, "down", 14)
    request = Request("g", TransType.MSG, branches=(Branch("01", Op.ACTION, "h:1/s/M"),))
    await one.handle(Submitted(clock.now_ms(), request))
    await asyncio.sleep(0.05)
    branches.answer = BranchAnswer(Result.SUCCESS)
    assert await one.round("g")
    held = await store.load("g")
    assert held is not None
    assert held.tx.status is Status.SUCCEED
    assert not await one.round("nobody")
