"""The contract of :class:`kit.dtm.store.Store` as a suite that any implementation can be put to.

::

    async def test_my_store_keeps_the_contract() -> None:
        await check_store(lambda clock: MyStore(clock=clock))

Each check gets an empty store of its own, and a clock that it moves by hand. To see each as a test
of its own, run :func:`check_store` once for each of :data:`STORE_CHECKS`; to see the values of a
failed assertion, call ``pytest.register_assert_rewrite("kit.testing.store")`` in a conftest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TypeAlias

from kit.dtm.core.model import Branch, Options, Round, Transaction
from kit.dtm.store import Change, GidExists, Held, LostLease, Store
from kit.dtm.wire import BranchStatus, Op, Protocol, Status, TransType
from kit.testing.clock import ManualClock

MakeStore: TypeAlias = Callable[[ManualClock], AbstractAsyncContextManager[Store]]
"""Gives a store that is empty once it was entered, and that tells the time by the clock."""

StoreCheck: TypeAlias = Callable[[Store, ManualClock], Awaitable[None]]

STORE_CHECKS: list[StoreCheck] = []
"""Every check, in the order of the contract; the name of each says what it pins."""

__all__ = ["STORE_CHECKS", "MakeStore", "StoreCheck", "check_store"]

UNFINISHED = (Status.PREPARED, Status.SUBMITTED, Status.ABORTING)
TERMINAL = (Status.SUCCEED, Status.FAILED)

ODD_GIDS = (
    "order-1", "order-10", "order-", "Order-1", "order-1 ", " order-1", "order_1", "order%",
    "'", '"', "';DROP TABLE trans_global;--", "?", "%s", "$1", "{a}", "a/b", "a:b", "a\\b", "*",
    "订单-1", "заказ", "é", "e\u0301", "🎫", "nul", "nul\0", "nul\0l",
    "1", "01", "1.0", "null", "[1]",
    "x" * 128, "x" * 127, "订" * 128,
)  # fmt: skip
"""Texts that must not be mistaken for one another, nor for anything but text."""


async def check_store(make: MakeStore, checks: Iterable[StoreCheck] = STORE_CHECKS) -> None:
    """Run ``checks``, all by default, each on a store of its own.

    Raises:
        AssertionError: a promise is not kept; a note names the check.
    """
    for check in checks:
        clock = ManualClock()
        try:
            async with make(clock) as store:
                await check(store, clock)
        except Exception as exc:
            exc.add_note(f"check_store: {check.__name__.replace('_', ' ')}")
            raise


def _check(check: StoreCheck) -> StoreCheck:
    STORE_CHECKS.append(check)
    return check


def transaction(gid: str, **changes: object) -> Transaction:
    """A submitted msg with two branches, to be changed where it matters."""
    tx = Transaction(
        gid,
        TransType.MSG,
        Status.SUBMITTED,
        branches=(
            Branch("01", Op.ACTION, "trans/TransOut", b"\x08\x1e"),
            Branch("02", Op.ACTION, "trans/TransIn", b"\x08\x1f"),
        ),
    )
    return replace(tx, **changes)  # type: ignore[arg-type]


def change(held: Held, owner: str, *branches: Branch, **changes: object) -> Change:
    """A change by ``owner`` that has read ``held`` and writes it back as it is."""
    return replace(Change(held.tx, branches, held.fence, owner), **changes)  # type: ignore[arg-type]


def finished(tx: Transaction, status: Status, at: int) -> Transaction:
    """``tx`` as its last write leaves it."""
    times = {"finish_time": at} if status is Status.SUCCEED else {"rollback_time": at}
    return replace(tx, status=status, next_cron_time=None, **times)  # type: ignore[arg-type]


async def stored(store: Store, gid: str) -> Held:
    """The transaction with this gid, which is there."""
    held = await store.load(gid)
    assert held is not None, f"{gid!r} is not stored"
    return held


async def refused(writing: Awaitable[object], error: type[Exception]) -> None:
    """See to it that ``writing`` raises ``error``."""
    try:
        await writing
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


async def finish(store: Store, gid: str, status: Status, at: int) -> None:
    """End a stored transaction that nobody holds."""
    held = await stored(store, gid)
    last = change(held, "a", tx=finished(held.tx, status, at), take=True, release=True)
    await store.save(last)


# create and load


@_check
async def a_transaction_reads_back_as_it_was_written(store: Store, clock: ManualClock) -> None:
    tx = Transaction(
        gid="g",
        trans_type=TransType.WORKFLOW,
        status=Status.ABORTING,
        protocol=Protocol.HTTP,
        query_prepared="http://localhost:8080/query?a=1&b=%20",
        custom_data='{"name":"订单","data":null}',
        options=Options(
            wait_result=True,
            timeout_to_fail=1,
            request_timeout=2,
            retry_interval=3,
            branch_headers={"x-b": "2", "x-a": '1 "quoted" é'},
            concurrent=True,
            retry_limit=4,
        ),
        branches=(
            Branch("02", Op.TRY, "a", bytes(range(256)), BranchStatus.SUCCEED, 11),
            Branch("01", Op.CONFIRM, "b", b"", BranchStatus.FAILED, 12),
            Branch("01", Op.CANCEL, "c é", b"\0", BranchStatus.PREPARED, None),
        ),
        create_time=1,
        update_time=2,
        finish_time=3,
        rollback_time=4,
        next_cron_interval=5,
        next_cron_time=6,
        rollback_reason='it\'s "so"\n',
        result="cmVzdWx0",
    )
    assert await store.create(tx) == 1
    assert await stored(store, "g") == Held(tx, fence=1)


@_check
async def a_transaction_without_anything_optional_reads_back(
    store: Store, clock: ManualClock
) -> None:
    tx = Transaction("g", TransType.MSG, Status.PREPARED)
    await store.create(tx)
    assert await stored(store, "g") == Held(tx, fence=1)


@_check
async def every_status_type_and_protocol_reads_back(store: Store, clock: ManualClock) -> None:
    txs = [
        Transaction(f"{kind}/{status}/{protocol}", kind, status, protocol)
        for kind in TransType
        for status in Status
        for protocol in Protocol
    ]
    await asyncio.gather(*(store.create(tx) for tx in txs))
    assert [(await stored(store, tx.gid)).tx for tx in txs] == txs


@_check
async def the_running_round_is_not_stored(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g", round=Round(frozenset({("01", Op.ACTION)}))))
    held = await stored(store, "g")
    assert held.tx.round is None
    await store.save(change(held, "a", tx=replace(held.tx, round=Round()), take=True))
    assert (await stored(store, "g")).tx.round is None


@_check
async def an_unknown_gid_loads_as_nothing(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g1"))
    assert await store.load("g") is None
    assert await store.load("g10") is None


@_check
async def a_thousand_branches_keep_their_order(store: Store, clock: ManualClock) -> None:
    branches = tuple(Branch(f"{n:x}", Op.ACTION, "u") for n in reversed(range(1_000)))
    tx = transaction("g", branches=branches, next_cron_time=0)
    await store.create(tx)
    assert (await stored(store, "g")).tx == tx
    [claimed] = await store.claim("a", 1)
    assert claimed.tx == tx


@_check
async def a_payload_of_a_mebibyte_reads_back(store: Store, clock: ManualClock) -> None:
    tx = transaction("g", branches=(Branch("01", Op.ACTION, "u", bytes(range(256)) * 4_096),))
    await store.create(tx)
    assert (await stored(store, "g")).tx == tx


@_check
async def create_takes_the_lease_for_an_owner(store: Store, clock: ManualClock) -> None:
    tx = transaction("g")
    assert await store.create(tx, owner="a", lease_s=2.5) == 1
    assert await stored(store, "g") == Held(tx, 1, "a", clock.now_ms() + 2_500)


@_check
async def a_gid_that_exists_is_refused_and_leaves_nothing(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"), owner="a")
    before = await stored(store, "g")
    other = transaction("g", status=Status.PREPARED, branches=(Branch("03", Op.ACTION, "u"),))
    await refused(store.create(other, owner="b"), GidExists)
    assert await stored(store, "g") == before


@_check
async def a_gid_exists_also_once_it_is_terminal(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"))
    await finish(store, "g", Status.SUCCEED, clock.now_ms())
    await refused(store.create(transaction("g")), GidExists)


@_check
async def twin_branches_are_refused_and_leave_nothing(store: Store, clock: ManualClock) -> None:
    twin = Branch("01", Op.ACTION, "u")
    await refused(store.create(transaction("g", branches=(twin, twin))), ValueError)
    assert await store.load("g") is None
    await store.create(transaction("g", branches=(twin, replace(twin, op=Op.COMPENSATE))))


@_check
async def gids_are_texts_and_no_two_are_confused(store: Store, clock: ManualClock) -> None:
    txs = [
        transaction(gid, branches=(Branch("01", Op.ACTION, f"u{n}"),), next_cron_time=n)
        for n, gid in enumerate(ODD_GIDS)
    ]
    await asyncio.gather(*(store.create(tx) for tx in txs))
    claimed = await store.claim("a", len(txs))
    assert [held.tx for held in claimed] == txs
    lost = ODD_GIDS[::3]
    names = [(held.tx.gid, 1 if held.tx.gid in lost else held.fence) for held in claimed]
    assert await store.renew("a", names) == set(lost)
    for held in claimed[::2]:
        ended = finished(held.tx, Status.SUCCEED, 1)
        await store.save(change(held, "a", replace(held.tx.branches[0], url="v"), tx=ended))
    assert await store.purge(2, len(txs)) == len(txs[::2])
    for held in claimed[1::2]:
        assert (await stored(store, held.tx.gid)).tx == held.tx


@_check
async def one_of_a_thousand_simultaneous_creates_wins(store: Store, clock: ManualClock) -> None:
    async def create(n: int) -> int | None:
        try:
            await store.create(transaction("g", custom_data=str(n)))
        except GidExists:
            return None
        return n

    winners = [n for n in await asyncio.gather(*map(create, range(1_000))) if n is not None]
    assert len(winners) == 1
    tx = transaction("g", custom_data=str(winners[0]))
    assert await stored(store, "g") == Held(tx, 1)


@_check
async def one_that_fails_does_not_fail_its_neighbours(store: Store, clock: ManualClock) -> None:
    await asyncio.gather(store.create(transaction("old")), store.create(transaction("taken")))
    old = await stored(store, "old")
    twin = Branch("01", Op.ACTION, "u")
    extra = Branch("03", Op.ACTION, "u")
    outcomes = await asyncio.gather(
        store.create(transaction("g1")),
        store.create(transaction("taken", branches=(extra,))),
        store.create(transaction("g2")),
        store.create(transaction("twins", branches=(extra, twin, twin))),
        store.save(change(old, "a", extra, fence=9, take=True)),
        store.save(change(old, "a", replace(extra, url="v"), take=True)),
        store.save(change(old, "b", replace(extra, url="w"), take=True)),
        store.create(transaction("g3")),
        return_exceptions=True,
    )
    kinds = [value if isinstance(value, int) else type(value) for value in outcomes]
    assert kinds == [1, GidExists, 1, ValueError, LostLease, 2, LostLease, 1]
    for gid in ("g1", "g2", "g3", "taken"):
        assert await stored(store, gid) == Held(transaction(gid), 1)
    assert await store.load("twins") is None
    assert (await stored(store, "old")).tx.branches == (
        *old.tx.branches,
        replace(extra, url="v"),
    )


@_check
async def a_cancelled_caller_leaves_all_or_nothing(store: Store, clock: ManualClock) -> None:
    tasks = [
        asyncio.create_task(store.create(transaction(f"g{n}")))  # awaited below
        for n in range(100)
    ]
    await asyncio.sleep(0)  # every one has asked
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1::2] == [1] * 50
    for n in range(100):
        held = await store.load(f"g{n}")
        if n % 2 or held is not None:
            assert held == Held(transaction(f"g{n}"), 1)


# save


@_check
async def save_writes_every_column(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"))
    held = await stored(store, "g")
    tx = replace(
        held.tx,
        trans_type=TransType.SAGA,
        status=Status.ABORTING,
        protocol=Protocol.HTTP,
        query_prepared="q",
        custom_data="{}",
        options=Options(retry_limit=3, branch_headers={"a": "b"}),
        create_time=1,
        update_time=2,
        finish_time=3,
        rollback_time=4,
        next_cron_interval=5,
        next_cron_time=6,
        rollback_reason="because",
        result="r",
    )
    await store.save(change(held, "a", tx=tx, take=True, release=True))
    assert (await stored(store, "g")).tx == tx


@_check
async def save_replaces_named_branches_and_appends_new_ones(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g"), owner="a")
    held = await stored(store, "g")
    first, second = held.tx.branches
    second = replace(second, status=BranchStatus.SUCCEED, finish_time=7, payload=b"p", url="u")
    third, fourth = Branch("03", Op.TRY, "t"), Branch("01", Op.CANCEL, "c", b"\xff")
    unwritten = replace(held.tx, branches=())
    await store.save(change(held, "a", third, second, fourth, tx=unwritten))
    expected = (first, second, third, fourth)
    assert (await stored(store, "g")).tx == replace(held.tx, branches=expected)


@_check
async def the_owner_keeps_its_lease_with_every_change(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"), owner="a", lease_s=10)
    clock.advance(9)
    held = await stored(store, "g")
    assert await store.save(change(held, "a", lease_s=20)) == 1
    assert await stored(store, "g") == Held(held.tx, 1, "a", clock.now_ms() + 20_000)


@_check
async def a_lease_is_given_back(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"), owner="a")
    held = await stored(store, "g")
    assert await store.save(change(held, "a", release=True)) == 1
    assert await stored(store, "g") == Held(held.tx, 1)


@_check
async def a_free_transaction_is_taken_and_its_fence_raised(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g"))
    held = await stored(store, "g")
    assert await store.save(change(held, "a", take=True, lease_s=3)) == 2
    assert await stored(store, "g") == Held(held.tx, 2, "a", clock.now_ms() + 3_000)


@_check
async def the_owner_may_take_its_own_lease_again(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"), owner="a")
    held = await stored(store, "g")
    assert await store.save(change(held, "a", take=True)) == 2
    await refused(store.save(change(held, "a", take=True)), LostLease)


@_check
async def one_change_takes_and_gives_back(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"))
    held = await stored(store, "g")
    assert await store.save(change(held, "a", take=True, release=True)) == 2
    assert await stored(store, "g") == Held(held.tx, 2)


@_check
async def a_held_transaction_is_taken_once_its_lease_is_over(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g"), owner="a", lease_s=10)
    held = await stored(store, "g")
    clock.advance(9.999)
    await refused(store.save(change(held, "b", take=True)), LostLease)
    clock.advance(0.001)
    assert await store.save(change(held, "b", take=True)) == 2


@_check
async def a_change_needs_the_stored_fence_and_the_lease(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("held"), owner="a")
    await store.create(transaction("free"))
    held, free = await stored(store, "held"), await stored(store, "free")
    again = await store.save(change(held, "a", take=True))
    held = replace(await stored(store, "held"), fence=again)
    more = Branch("03", Op.ACTION, "u")
    for wrong in (
        change(held, "a", more, fence=again - 1),
        change(held, "a", more, fence=again + 1),
        change(held, "a", more, fence=again - 1, take=True),
        change(held, "b", more),
        change(held, "b", more, take=True),
        change(held, "b", more, release=True),
        change(free, "a", more),
        change(free, "a", more, release=True),
        change(free, "a", more, tx=replace(free.tx, gid="unknown"), take=True),
    ):
        await refused(store.save(wrong), LostLease)
    assert await stored(store, "held") == held
    assert await stored(store, "free") == free
    assert await store.load("unknown") is None


@_check
async def an_owner_that_slept_cannot_write_over_its_successor(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g", next_cron_time=clock.now_ms()), owner="a", lease_s=10)
    slept = await stored(store, "g")
    clock.advance(10)
    [taken] = await store.claim("b", 1)
    ended = finished(slept.tx, Status.SUCCEED, 1)
    for stale in (change(slept, "a", tx=ended), change(slept, "a", tx=ended, take=True)):
        await refused(store.save(stale), LostLease)
    assert await store.renew("a", [("g", slept.fence)]) == {"g"}
    assert await stored(store, "g") == taken
    assert await store.save(change(taken, "b", release=True)) == taken.fence


@_check
async def an_owner_that_slept_alone_may_go_on(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"), owner="a", lease_s=10)
    held = await stored(store, "g")
    clock.advance(60)
    assert await store.save(change(held, "a")) == 1
    assert (await stored(store, "g")).lease_until == clock.now_ms() + 10_000


@_check
async def one_of_many_simultaneous_takers_wins(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"))
    held = await stored(store, "g")
    outcomes = await asyncio.gather(
        *(store.save(change(held, f"owner-{n}", take=True)) for n in range(50)),
        return_exceptions=True,
    )
    assert sum(outcome == 2 for outcome in outcomes) == 1
    assert sum(isinstance(outcome, LostLease) for outcome in outcomes) == 49


@_check
async def a_terminal_transaction_is_final(store: Store, clock: ManualClock) -> None:
    for status in TERMINAL:
        gid = str(status)
        await store.create(transaction(gid, next_cron_time=0), owner="a")
        held = await stored(store, gid)
        await store.save(change(held, "a", tx=replace(held.tx, status=status)))
        last = await stored(store, gid)
        more = Branch("03", Op.ACTION, "u")
        reopened = replace(last.tx, status=Status.SUBMITTED)
        for late in (
            change(last, "a", more),
            change(last, "a", more, tx=reopened),
            change(last, "a", more, take=True),
            change(last, "a", more, release=True),
        ):
            await refused(store.save(late), LostLease)
        assert await store.renew("a", [(gid, last.fence)]) == {gid}
        clock.advance(60)
        assert await store.claim("b", 10) == []
        assert await store.next_due() is None
        assert await stored(store, gid) == last


# claim


@_check
async def claim_takes_what_is_unfinished_due_and_free(store: Store, clock: ManualClock) -> None:
    now = clock.now_ms()
    for status in Status:
        await store.create(transaction(f"due {status}", status=status, next_cron_time=now))
    await store.create(transaction("later", next_cron_time=now + 1))
    await store.create(transaction("never", next_cron_time=None))
    await store.create(transaction("held", next_cron_time=now), owner="b")
    claimed = await store.claim("a", 100, lease_s=7)
    due = [transaction(f"due {status}", status=status, next_cron_time=now) for status in UNFINISHED]
    assert claimed == [Held(tx, 2, "a", now + 7_000) for tx in due]
    for held in claimed:
        assert await stored(store, held.tx.gid) == held
    assert await store.claim("b", 100) == []


@_check
async def claim_gives_the_most_overdue_first_and_no_more_than_asked(
    store: Store, clock: ManualClock
) -> None:
    now = clock.now_ms()
    for order in (5, 1, 4, 2, 3):
        await store.create(transaction(f"g{order}", next_cron_time=now - 100 + order))
    assert await store.claim("a", 0) == []
    assert [held.tx.gid for held in await store.claim("a", 2)] == ["g1", "g2"]
    assert [held.tx.gid for held in await store.claim("b", 2)] == ["g3", "g4"]
    assert [held.tx.gid for held in await store.claim("a", 2)] == ["g5"]


@_check
async def a_lease_that_ran_out_makes_overdue_from_its_end(store: Store, clock: ManualClock) -> None:
    now = clock.now_ms()
    await store.create(transaction("held", next_cron_time=now - 5_000), owner="a", lease_s=2)
    await store.create(transaction("free", next_cron_time=now + 1_000))
    await store.create(transaction("late", next_cron_time=now + 2_001))
    clock.advance(1.999)
    assert [held.tx.gid for held in await store.claim("b", 1)] == ["free"]
    assert await store.claim("b", 3) == []
    clock.advance(1)
    assert [held.tx.gid for held in await store.claim("b", 3)] == ["held", "late"]


@_check
async def a_claim_raises_the_fence_each_time(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g", next_cron_time=clock.now_ms()))
    for fence in (2, 3, 4):
        [held] = await store.claim("a", 1, lease_s=1)
        assert held.fence == fence
        clock.advance(1)


@_check
async def two_owners_claim_no_transaction_together(store: Store, clock: ManualClock) -> None:
    txs = [transaction(f"g{n}", next_cron_time=clock.now_ms() - n) for n in range(100)]
    await asyncio.gather(*(store.create(tx) for tx in txs))
    claims = await asyncio.gather(*(store.claim("ab"[n % 2], 7) for n in range(20)))
    gids = [held.tx.gid for claim in claims for held in claim]
    assert len(gids) == len(set(gids)) == 100
    assert all(len(claim) <= 7 for claim in claims)
    for n, claim in enumerate(claims):
        for held in claim:
            assert held.tx.branches == txs[0].branches
            assert await stored(store, held.tx.gid) == held
            assert held.owner == "ab"[n % 2]


@_check
async def a_transaction_given_back_is_claimed_when_its_time_comes(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g"), owner="a", lease_s=100)
    held = await stored(store, "g")
    retried = replace(held.tx, next_cron_time=clock.now_ms() + 1_000)
    await store.save(change(held, "a", tx=retried, release=True))
    assert await store.claim("b", 1) == []
    clock.advance(1)
    assert [held.tx for held in await store.claim("b", 1)] == [retried]


# renew


@_check
async def a_renewed_lease_lasts_from_now(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g", next_cron_time=0), owner="a", lease_s=10)
    held = await stored(store, "g")
    clock.advance(9)
    assert await store.renew("a", [("g", 1)], lease_s=10) == set()
    assert await stored(store, "g") == replace(held, lease_until=clock.now_ms() + 10_000)
    clock.advance(9.999)
    assert await store.claim("b", 1) == []
    clock.advance(0.001)
    assert len(await store.claim("b", 1)) == 1


@_check
async def renew_reports_what_was_lost_and_renews_the_rest(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("mine"), owner="a", lease_s=10)
    await store.create(transaction("raised"), owner="a", lease_s=10)
    await store.create(transaction("theirs"), owner="b", lease_s=10)
    await store.create(transaction("free"))
    await store.create(transaction("ended", status=Status.SUCCEED), owner="a")
    await store.save(change(await stored(store, "raised"), "a", take=True))
    others = ["raised", "theirs", "free", "ended"]
    before = [await stored(store, gid) for gid in others]
    clock.advance(1)
    asked = [(gid, 1) for gid in ["mine", *others, "unknown"]]
    assert await store.renew("a", asked, lease_s=10) == {*others, "unknown"}
    assert [await stored(store, gid) for gid in others] == before
    assert (await stored(store, "mine")).lease_until == clock.now_ms() + 10_000
    assert await store.renew("a", []) == set()


# next_due


@_check
async def next_due_is_the_soonest_that_can_be_claimed(store: Store, clock: ManualClock) -> None:
    now = clock.now_ms()
    assert await store.next_due() is None
    await store.create(transaction("never", next_cron_time=None))
    await store.create(transaction("ended", status=Status.FAILED, next_cron_time=now - 9))
    assert await store.next_due() is None
    await store.create(transaction("waits", next_cron_time=now + 60_000))
    assert await store.next_due() == now + 60_000
    await store.create(transaction("held", next_cron_time=now), owner="a", lease_s=20)
    assert await store.next_due() == now + 20_000
    await store.create(transaction("holds on", next_cron_time=now + 15_000), owner="a", lease_s=1)
    assert await store.next_due() == now + 15_000
    await store.create(transaction("overdue", next_cron_time=now - 5_000))
    assert await store.next_due() == now - 5_000
    await store.claim("a", 1, lease_s=30)
    assert await store.next_due() == now + 15_000


# purge


@_check
async def purge_deletes_what_ended_before(store: Store, clock: ManualClock) -> None:
    for at in (10, 20, 30):
        for status in TERMINAL:
            gid = f"{status} {at}"
            await store.create(transaction(gid, create_time=1, update_time=1))
            await finish(store, gid, status, at)
    assert await store.purge(20, 100) == 2
    assert [await store.load(f"{status} 10") for status in TERMINAL] == [None, None]
    for status in TERMINAL:
        assert (await stored(store, f"{status} 20")).tx.status is status
    assert await store.purge(31, 3) == 3
    assert await store.purge(31, 3) == 1
    assert await store.purge(31, 3) == 0


@_check
async def purge_takes_the_branches_along(store: Store, clock: ManualClock) -> None:
    await store.create(transaction("g"))
    await store.create(transaction("g1"))
    await finish(store, "g", Status.SUCCEED, 1)
    assert await store.purge(2, 1) == 1
    bare = transaction("g", branches=())
    await store.create(bare)
    assert await stored(store, "g") == Held(bare, 1)
    assert await stored(store, "g1") == Held(transaction("g1"), 1)


@_check
async def what_is_unfinished_is_never_purged(store: Store, clock: ManualClock) -> None:
    for status in UNFINISHED:
        tx = transaction(str(status), status=status, finish_time=1, rollback_time=1)
        await store.create(tx)
    clock.advance(365 * 86_400)
    assert await store.purge(clock.now_ms(), 100) == 0
    for status in UNFINISHED:
        assert (await stored(store, str(status))).tx.status is status


# the clock and the end


@_check
async def the_store_tells_the_time_of_its_clock(store: Store, clock: ManualClock) -> None:
    before = clock.now_ms()
    assert await store.now_ms() == before
    clock.advance(1.5)
    assert await store.now_ms() == before + 1_500


@_check
async def closing_finishes_what_was_accepted(store: Store, clock: ManualClock) -> None:
    creating = [
        asyncio.create_task(store.create(transaction(f"g{n}")))  # awaited below
        for n in range(50)
    ]
    await asyncio.sleep(0)  # every one has asked
    await store.__aexit__(None, None, None)
    assert await asyncio.gather(*creating) == [1] * 50
    await store.__aexit__(None, None, None)
