"""What the engine remembers of prepared transactions, and that the store has the last word."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from kit.dtm.core import (
    Aborted,
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
from kit.dtm.server import engine as engine_module
from kit.dtm.server.caller import BranchAnswer
from kit.dtm.server.engine import REMEMBERED_BYTES, REMEMBERED_S, Engine
from kit.dtm.store import Held
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Op, Result, Status, TransType
from kit.testing import ManualClock

TCC = Request("g1", TransType.TCC, options=Options(wait_result=True))


class CountingStore(MemoryStore):
    """Counts what is read."""

    loads = 0

    async def load(self, gid: str) -> Held | None:
        self.loads += 1
        return await super().load(gid)


class Branches:
    """Says yes to all."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        self.calls.append(branch.key)
        return BranchAnswer(Result.SUCCESS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(clock: ManualClock) -> AsyncIterator[CountingStore]:
    async with CountingStore(clock) as opened:
        yield opened


@pytest.fixture
def branches() -> Branches:
    return Branches()


def made(store: MemoryStore, clock: ManualClock, branches: Branches, owner: str = "one") -> Engine:
    return Engine(store, branches, clock, Policy(), owner=owner)


def registered(branch_id: str, payload: bytes = b"") -> Registered:
    rows = tuple(Branch(branch_id, op, f"h:1/s/{op}", payload) for op in (Op.CONFIRM, Op.CANCEL))
    return Registered(0, replace(TCC, branches=rows))


async def test_a_tcc_of_one_client_is_read_from_the_store_never(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    engine = made(store, clock, branches)
    await engine.handle(Prepared(0, TCC))
    for branch_id in ("01", "02"):
        assert await engine.handle(registered(branch_id)) == Reply(Outcome.SUCCESS)
    assert await engine.handle(Submitted(0, TCC)) == Answer(Outcome.SUCCESS)
    assert store.loads == 0
    assert branches.calls == [("02", Op.CONFIRM), ("01", Op.CONFIRM)]
    assert engine.live == 0


async def test_a_submit_after_prepare_of_a_message_is_one_write(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    engine = made(store, clock, branches)
    request = Request(
        "g1",
        TransType.MSG,
        query_prepared="h:1/s/Q",
        branches=(Branch("01", Op.ACTION, "h:1/s/M"),),
        options=Options(wait_result=True),
    )
    await engine.handle(Prepared(0, request))
    assert await engine.handle(Submitted(0, request)) == Answer(Outcome.SUCCESS)
    assert store.loads == 0


async def test_a_branch_that_another_coordinator_registered_is_confirmed_as_well(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    """What is remembered is older than the store here: the fence says so."""
    one, two = made(store, clock, branches), made(store, clock, branches, "two")
    await one.handle(Prepared(0, TCC))
    await one.handle(registered("01"))
    await two.handle(registered("02"))
    assert await one.handle(Submitted(0, TCC)) == Answer(Outcome.SUCCESS)
    assert branches.calls == [("02", Op.CONFIRM), ("01", Op.CONFIRM)]


async def test_what_another_coordinator_aborted_is_neither_extended_nor_submitted(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    one, two = made(store, clock, branches), made(store, clock, branches, "two")
    await one.handle(Prepared(0, TCC))
    await one.handle(registered("01"))
    await two.handle(Aborted(0, TCC))
    for event in (registered("02"), Submitted(0, TCC), Prepared(0, TCC)):
        answer = await one.handle(event)
        assert isinstance(answer, Reply)
        assert answer.outcome is Outcome.FAILURE
    held = await store.load("g1")
    assert held is not None
    assert held.tx.status is Status.FAILED
    assert branches.calls == [("01", Op.CANCEL)]


async def test_what_another_coordinator_stopped_stays_stopped(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    one, two = made(store, clock, branches), made(store, clock, branches, "two")
    await one.handle(Prepared(0, TCC))
    await one.handle(registered("01"))
    await two.handle(Stopped(0, "g1", "by hand"))
    answer = await one.handle(Submitted(0, TCC))
    assert isinstance(answer, Reply)
    assert answer.outcome is Outcome.FAILURE
    assert branches.calls == []


async def test_a_refusal_is_never_said_from_memory(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    """Another coordinator has it submitted and ended: that is what the client hears."""
    one, two = made(store, clock, branches), made(store, clock, branches, "two")
    await one.handle(Prepared(0, TCC))
    await two.handle(Submitted(0, TCC))
    before = store.loads
    answer = await one.handle(Prepared(0, TCC))  # in memory it is still prepared: SUCCESS
    assert isinstance(answer, Reply)
    assert "current status 'succeed'" in answer.text
    assert store.loads > before


async def test_progress_of_a_workflow_is_always_read(
    store: CountingStore, clock: ManualClock, branches: Branches
) -> None:
    """Its rows are added without a new fence, so nothing would tell that the memory is old."""
    workflow = replace(TCC, trans_type=TransType.WORKFLOW, custom_data='{"name":"w","data":null}')
    engine = made(store, clock, branches)
    await engine.handle(Prepared(0, workflow))
    before = store.loads
    rows = (Branch("01", Op.ACTION, "", status=registered("01").request.branches[0].status),)
    await engine.handle(Registered(0, replace(workflow, branches=rows)))
    assert store.loads > before


@pytest.mark.parametrize("forgotten", ["age", "size", "number"])
async def test_memory_is_bounded(
    store: CountingStore,
    clock: ManualClock,
    branches: Branches,
    forgotten: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "MAX_REMEMBERED", 2)
    engine = made(store, clock, branches)
    await engine.handle(Prepared(0, TCC))
    match forgotten:
        case "age":
            clock.advance(REMEMBERED_S + 1)
        case "size":
            await engine.handle(registered("01", bytes(REMEMBERED_BYTES)))
        case "number":
            for number in range(2):
                await engine.handle(Prepared(0, replace(TCC, gid=f"other-{number}")))
    before = store.loads
    assert await engine.handle(registered("02")) == Reply(Outcome.SUCCESS)
    assert store.loads == before + 1
