"""The contract of :class:`kit.dtm.store.Store` as a suite that any implementation can be put to.

::

    async def test_my_store_keeps_the_contract() -> None:
        await check_store(lambda clock: MyStore(clock=clock))

Each check gets an empty store, and a clock that it moves by hand. Empty may mean: the tables of a
server, truncated when ``make(clock)`` is entered. To see each as a test of its own, run
:func:`check_store` once for each of :data:`STORE_CHECKS`; to see the values of a failed assertion,
call ``pytest.register_assert_rewrite("kit.testing.store")`` in a conftest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TypeAlias, TypeVar

from kit.dtm.core.model import Branch, Options, Round, Transaction
from kit.dtm.store import (
    BranchExists,
    Change,
    Filter,
    GidExists,
    Held,
    KeyValue,
    KvChanged,
    LostLease,
    Store,
    StoreUnavailable,
)
from kit.dtm.wire import BranchStatus, Op, Protocol, Status, TransType
from kit.testing.clock import ManualClock

MakeStore: TypeAlias = Callable[[ManualClock], AbstractAsyncContextManager[Store]]
"""Gives a store that is empty once it was entered, and that tells the time by the clock."""

StoreCheck: TypeAlias = Callable[[Store, ManualClock], Awaitable[None]]

STORE_CHECKS: list[StoreCheck] = []
"""Every check, in the order of the contract; the name of each says what it pins."""

__all__ = ["STORE_CHECKS", "MakeStore", "StoreCheck", "check_store"]

ODD_POSITIONS = ("x", "-1", "1.5", "1e3", "١", "0x1", "1; DROP TABLE kv", "9" * 40)
"""Texts that no page gives as the position of the next one."""

UNFINISHED = (Status.PREPARED, Status.SUBMITTED, Status.ABORTING)
TERMINAL = (Status.SUCCEED, Status.FAILED)

ODD_GIDS = (
    "order-1", "order-10", "order-", "Order-1", "order-1 ", " order-1", "order_1", "order%",
    "'", '"', "';DROP TABLE trans_global;--", "?", "%s", "$1", "{a}", "a/b", "a:b", "a\\b", "*",
    "订单-1", "заказ", "é", "e\u0301", "🎫", "\u200b", "tab\t", "line\n",
    "1", "01", "1.0", "null", "[1]",
    "x" * 128, "x" * 127, "订" * 128,
)  # fmt: skip
"""Texts that must not be mistaken for one another, nor for anything but text."""


EVERYTHING = Filter()

MOST_PAGES = 1_000
"""Of a walk that grows by a row a page: one that is longer has no end."""

Row = TypeVar("Row", Held, KeyValue)


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


def bare(held: Held) -> Held:
    """``held`` as a page shows it: without branches."""
    return replace(held, tx=replace(held.tx, branches=()))


async def walked(
    store: Store,
    limit: int,
    which: Filter = EVERYTHING,
    between: Callable[[], Awaitable[object]] | None = None,
) -> list[Held]:
    """What all pages hold; ``between`` is awaited after each that is not the last."""
    return await _walked(lambda position: store.scan(position, limit, which), between)


async def walked_kv(
    store: Store, cat: str, limit: int, between: Callable[[], Awaitable[object]] | None = None
) -> list[KeyValue]:
    """What all pages of a category hold."""
    return await _walked(lambda position: store.scan_kv(cat, position, limit), between)


async def _walked(
    turn: Callable[[str], Awaitable[tuple[list[Row], str]]],
    between: Callable[[], Awaitable[object]] | None,
) -> list[Row]:
    rows: list[Row] = []
    position = ""
    for _ in range(MOST_PAGES):
        page, position = await turn(position)
        rows += page
        if not position:
            return rows
        if between is not None:
            await between()
    raise AssertionError(f"no end after {MOST_PAGES} pages")


def numbered_pages(rows: list[Held] | list[KeyValue]) -> None:
    """See to it that what a store numbers comes newest first, each row once."""
    ids = [row.id for row in rows]
    if any(ids):
        assert ids == sorted(set(ids), reverse=True)


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
        retry_count=3,
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
async def a_payload_of_four_mebibytes_reads_back(store: Store, clock: ManualClock) -> None:
    branch = Branch("01", Op.ACTION, "u", bytes(range(256)) * 16_384)
    tx = transaction("g", branches=(branch,))
    await store.create(tx)
    held = await stored(store, "g")
    assert held.tx == tx
    turned = replace(branch, payload=branch.payload[::-1])
    await store.save(change(held, "a", turned, take=True))
    assert (await stored(store, "g")).tx.branches == (turned,)


@_check
async def long_texts_read_back(store: Store, clock: ManualClock) -> None:
    headers = {f"x-header-{n}": f"{n:04}" * 256 for n in range(100)}
    branch_ids = ("订" * 128, "订" * 127, "x" * 128)
    tx = transaction(
        "订" * 128,
        custom_data="x" * (1 << 20),
        options=Options(branch_headers=headers),
        query_prepared="http://localhost/" + "q" * 2_000,
        rollback_reason="订" * 1_024,
        result="r" * 100_000,
        branches=tuple(Branch(name, Op.ACTION, "u" * 2_000) for name in branch_ids),
    )
    await store.create(tx)
    held = await stored(store, tx.gid)
    assert held.tx == tx
    longer = replace(tx, custom_data="订" * (1 << 20), rollback_reason="🎫" * 1_024)
    await store.save(change(held, "a", tx=longer, take=True))
    assert (await stored(store, tx.gid)).tx == longer


@_check
async def a_retry_count_that_is_back_at_nothing_reads_back(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g", retry_count=9, options=Options(retry_limit=10)), owner="a")
    held = await stored(store, "g")
    assert held.tx.retry_count == 9
    await store.save(change(held, "a", tx=replace(held.tx, retry_count=0)))
    assert (await stored(store, "g")).tx == replace(held.tx, retry_count=0)


@_check
async def branches_tell_when_they_were_written_first_and_last(
    store: Store, clock: ManualClock
) -> None:
    began = clock.now_ms()
    tx = transaction("g", status=Status.PREPARED, next_cron_time=0)
    await store.create(tx)
    clock.advance(1)
    held = await stored(store, "g")
    third, fourth = (
        Branch("03", Op.TRY, "u", create_time=7, update_time=7),
        Branch("04", "try", "u"),
    )
    answered = replace(held.tx.branches[1], status=BranchStatus.SUCCEED)
    await store.save(change(held, "a", answered, third, take=True, release=True))
    clock.advance(1)
    await store.append("g", [fourth])
    clock.advance(1)
    expected = [
        (began, began),
        (began, began + 1_000),
        (began + 1_000, began + 1_000),
        (began + 2_000, began + 2_000),
    ]
    [claimed] = await store.claim("a", 1)
    for read in (await stored(store, "g"), claimed):
        assert [(row.create_time, row.update_time) for row in read.tx.branches] == expected


@_check
async def a_number_of_a_row_stays_and_belongs_to_one_alone(
    store: Store, clock: ManualClock
) -> None:
    for gid in ("g1", "g2"):
        await store.create(transaction(gid, next_cron_time=0))
    first = [(await stored(store, gid)).id for gid in ("g1", "g2")]
    assert first == [0, 0] or first[0] < first[1]
    await store.save(change(await stored(store, "g1"), "a", take=True, release=True))
    for many in (await store.claim("a", 2), await walked(store, 1)):
        assert {held.tx.gid: held.id for held in many} == dict(
            zip(("g1", "g2"), first, strict=True)
        )


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
        for tries_left in reversed(range(20)):
            try:
                await store.create(transaction("g", custom_data=str(n)))
            except GidExists:
                return None
            except StoreUnavailable:  # busy with the others, and said so in time: asked again
                if not tries_left:
                    raise
            else:
                return n
        raise AssertionError("the last try returns or raises")

    winners = [n for n in await asyncio.gather(*map(create, range(1_000))) if n is not None]
    assert len(winners) == 1
    tx = transaction("g", custom_data=str(winners[0]))
    assert await stored(store, "g") == Held(tx, 1)


@_check
async def one_of_two_simultaneous_creates_wins(store: Store, clock: ManualClock) -> None:
    for n in range(20):
        twice = (store.create(transaction(f"g{n}"), owner=owner) for owner in "ab")
        outcomes = await asyncio.gather(*twice, return_exceptions=True)
        kinds = [value if isinstance(value, int) else type(value) for value in outcomes]
        assert kinds in ([1, GidExists], [GidExists, 1])
        assert (await stored(store, f"g{n}")).owner == "ab"[kinds.index(1)]


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
        retry_count=2,
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
async def a_hundred_simultaneous_saves_are_all_written(store: Store, clock: ManualClock) -> None:
    gids = [f"g{n}" for n in range(100)]
    await asyncio.gather(*(store.create(transaction(gid), owner="a") for gid in gids))
    helds = await asyncio.gather(*(stored(store, gid) for gid in gids))
    more = [Branch("03", Op.ACTION, held.tx.gid, held.tx.gid.encode()) for held in helds]
    assert await asyncio.gather(
        *(
            store.save(change(held, "a", branch, tx=replace(held.tx, custom_data=held.tx.gid)))
            for held, branch in zip(helds, more, strict=True)
        )
    ) == [1] * len(gids)
    for held, branch in zip(helds, more, strict=True):
        tx = (await stored(store, held.tx.gid)).tx
        assert (tx.custom_data, tx.branches) == (tx.gid, (*held.tx.branches, branch))


@_check
async def claims_and_saves_meet_and_one_of_them_wins(store: Store, clock: ManualClock) -> None:
    gids = [f"g{n}" for n in range(60)]
    await asyncio.gather(*(store.create(transaction(gid, next_cron_time=0)) for gid in gids))
    helds = await asyncio.gather(*(stored(store, gid) for gid in gids))
    saves = [store.save(change(held, "saver", take=True)) for held in helds]
    claims = [store.claim("claimer", 7) for _ in range(10)]
    mixed = [work for six in zip(*[iter(saves)] * 6, strict=True) for work in (*six, claims.pop())]
    outcomes = await asyncio.gather(*mixed, return_exceptions=True)
    claimed = [held.tx.gid for work in outcomes if isinstance(work, list) for held in work]
    answers = [work for work in outcomes if not isinstance(work, list)]
    saved = [gid for gid, answer in zip(gids, answers, strict=True) if answer == 2]
    assert sum(isinstance(answer, LostLease) for answer in answers) == len(claimed)
    assert sorted(claimed + saved) == sorted(gids)
    for gid in gids:
        held = await stored(store, gid)
        assert (held.fence, held.owner) == (2, "saver" if gid in saved else "claimer")


@_check
async def an_end_is_forced_whoever_holds_the_lease(store: Store, clock: ManualClock) -> None:
    for status in TERMINAL:
        gid = str(status)
        await store.create(transaction(gid, next_cron_time=0), owner="a", lease_s=60)
        held = await stored(store, gid)
        ended = finished(held.tx, status, 1)
        answered = replace(held.tx.branches[0], status=BranchStatus.SUCCEED)
        forced = change(held, "b", answered, tx=ended, take=True, release=True, force=True)
        await refused(store.save(replace(forced, fence=2)), LostLease)
        await refused(store.save(replace(forced, force=False)), LostLease)
        assert await stored(store, gid) == held
        assert await store.save(forced) == 2
        branches = (answered, *held.tx.branches[1:])
        assert await stored(store, gid) == Held(replace(ended, branches=branches), 2)
        await refused(store.save(change(held, "a")), LostLease)
        await refused(store.save(replace(forced, fence=2)), LostLease)
        assert await store.renew("a", [(gid, 1)]) == {gid}


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


# append


@_check
async def appended_branches_stand_behind_and_the_holder_goes_on(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g", status=Status.PREPARED), owner="a", lease_s=10)
    held = await stored(store, "g")
    first, second = held.tx.branches
    third, fourth = (
        Branch("01", Op.TRY, "t", b"\xff", BranchStatus.SUCCEED, 5),
        Branch("04", "x", "u"),
    )
    await store.append("g", [third])
    await store.append("g", [])
    clock.advance(1)
    expected = replace(held, tx=replace(held.tx, branches=(first, second, third)))
    assert await stored(store, "g") == expected
    assert await store.save(change(held, "a", fourth, release=True)) == 1
    assert (await stored(store, "g")).tx.branches == (first, second, third, fourth)
    await store.append("g", [Branch("05", Op.TRY, "u"), Branch("03", Op.TRY, "u")])
    ids = [branch.branch_id for branch in (await stored(store, "g")).tx.branches]
    assert ids == ["01", "02", "01", "04", "05", "03"]


@_check
async def a_branch_that_is_there_is_not_appended_nor_its_neighbours(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g", status=Status.PREPARED))
    await store.create(transaction("g1", status=Status.PREPARED))
    before = await stored(store, "g")
    new, other = Branch("03", Op.ACTION, "u"), Branch("04", Op.ACTION, "u")
    twin = replace(before.tx.branches[1], url="v", payload=b"v")
    for wrong in ([twin], [new, twin], [twin, new], [new, other, new]):
        await refused(store.append("g", wrong), BranchExists)
    assert await stored(store, "g") == before
    await store.append("g", [new])
    await refused(store.append("g", [new]), BranchExists)
    await store.append("g1", [new])


@_check
async def nothing_is_appended_to_what_is_not_prepared(store: Store, clock: ManualClock) -> None:
    new = Branch("03", Op.ACTION, "u")
    others = [status for status in Status if status is not Status.PREPARED]
    for status in others:
        await store.create(transaction(str(status), status=status))
        for branches in ([new], [transaction("g").branches[0]]):
            await refused(store.append(str(status), branches), LostLease)
        assert (await stored(store, str(status))).tx.branches == transaction("g").branches
    await refused(store.append("unknown", [new]), LostLease)
    await refused(store.append("unknown", []), LostLease)
    assert await store.load("unknown") is None
    await store.create(transaction("unknown", branches=(new,)))


@_check
async def simultaneous_appends_are_all_written_and_one_of_twins(
    store: Store, clock: ManualClock
) -> None:
    await store.create(transaction("g", status=Status.PREPARED, branches=()), owner="a")
    held = await stored(store, "g")
    twins = [Branch("twin", Op.TRY, f"u{n}") for n in range(20)]
    outcomes = await asyncio.gather(
        *(store.append("g", [Branch(f"{n}", Op.TRY, "u")]) for n in range(20)),
        *(store.append("g", [twin]) for twin in twins),
        store.save(change(held, "a", Branch("saved", Op.TRY, "u"))),
        return_exceptions=True,
    )
    assert outcomes[:20] == [None] * 20
    assert outcomes[-1] == 1
    winners = [twin for twin, won in zip(twins, outcomes[20:-1], strict=True) if won is None]
    assert sum(isinstance(outcome, BranchExists) for outcome in outcomes) == 19
    branches = (await stored(store, "g")).tx.branches
    assert [row for row in branches if row.branch_id == "twin"] == winners
    assert {row.branch_id for row in branches} == {*map(str, range(20)), "twin", "saved"}
    assert len(branches) == 22


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


# expired and delete


@_check
async def expired_shows_what_purge_would_delete(store: Store, clock: ManualClock) -> None:
    for at in (10, 20, 30):
        for status in TERMINAL:
            gid = f"{status} {at}"
            await store.create(transaction(gid, create_time=1, update_time=1))
            await finish(store, gid, status, at)
    for status in UNFINISHED:
        tx = transaction(str(status), status=status, finish_time=1, rollback_time=1)
        await store.create(tx)
    for before, limit in ((30, 100), (30, 3), (10, 100), (30, 0)):
        shown = await store.expired(before, limit)
        old = [f"{status} {at}" for at in (10, 20) if at < before for status in TERMINAL]
        assert len(shown) == min(limit, len(old))
        assert {tx.gid for tx in shown} <= set(old)
        for tx in shown:
            assert tx == (await stored(store, tx.gid)).tx
    shown = await store.expired(30, 3)
    assert await store.delete([tx.gid for tx in shown]) == 3
    assert len(await store.expired(30, 100)) == 1
    assert await store.purge(30, 100) == 1


@_check
async def only_what_is_terminal_is_deleted(store: Store, clock: ManualClock) -> None:
    for status in Status:
        await store.create(transaction(str(status), status=status))
    gids = [*Status, "unknown", Status.FAILED]
    assert await store.delete([]) == 0
    assert await store.delete(gids) == 2
    assert await store.delete(gids) == 0
    for status in Status:
        held = await store.load(str(status))
        expected = None if status in TERMINAL else Held(transaction(str(status), status=status), 1)
        assert held == expected
    again = transaction(str(Status.FAILED), branches=())
    await store.create(again)
    assert await stored(store, again.gid) == Held(again, 1)


@_check
async def of_odd_gids_only_the_named_ones_are_deleted(store: Store, clock: ManualClock) -> None:
    ended = [transaction(gid, status=Status.SUCCEED) for gid in ODD_GIDS]
    await asyncio.gather(*(store.create(tx) for tx in ended))
    assert await store.delete(ODD_GIDS[::2]) == len(ODD_GIDS[::2])
    for n, tx in enumerate(ended):
        assert await store.load(tx.gid) == (Held(tx, 1) if n % 2 else None)
    for tx in ended[::2]:
        await store.create(tx)
    for gid in ODD_GIDS:  # one that is mistaken for another takes that one along
        assert await store.delete([gid]) == 1


# scan


@_check
async def pages_hold_every_row_while_more_are_created(store: Store, clock: ManualClock) -> None:
    gids = [f"g{n:02}" for n in range(25)]
    for gid in gids:
        await store.create(transaction(gid, next_cron_time=0))
    later = iter(range(MOST_PAGES))

    async def create() -> None:
        await store.create(transaction(f"later {next(later)}"))

    rows = await walked(store, 10, between=create)
    assert {*gids} <= {held.tx.gid for held in rows}
    numbered_pages(rows)
    everything = await walked(store, 1_000)
    assert {held.tx.gid for held in rows} <= {held.tx.gid for held in everything}
    first, _ = await store.scan("", 10, EVERYTHING)
    if any(held.id for held in first):
        newest = f"later {next(later) - 1}" if len(everything) > 25 else gids[-1]
        assert (len(first), first[0].tx.gid) == (10, newest)


@_check
async def a_page_shows_everything_but_branches(store: Store, clock: ManualClock) -> None:
    assert await walked(store, 10) == []
    await store.create(transaction("free", custom_data="é", retry_count=2))
    await store.create(transaction("held", options=Options(retry_limit=3)), owner="a")
    await store.create(transaction("ended", status=Status.FAILED, rollback_reason="because"))
    await store.save(change(await stored(store, "held"), "a", take=True))
    rows = {held.tx.gid: held for held in await walked(store, 2)}
    assert rows == {gid: bare(await stored(store, gid)) for gid in ("free", "held", "ended")}


@_check
async def a_walk_goes_on_when_its_rows_are_deleted(store: Store, clock: ManualClock) -> None:
    gids = [f"g{n:02}" for n in range(25)]
    for gid in gids:
        await store.create(transaction(gid, status=Status.SUCCEED))
    page, position = await store.scan("", 10, EVERYTHING)
    seen = {held.tx.gid for held in page}
    await store.delete(sorted(seen))
    while position:
        page, position = await store.scan(position, 10, EVERYTHING)
        seen |= {held.tx.gid for held in page}
    assert seen == {*gids}


@_check
async def every_filter_that_is_set_holds(store: Store, clock: ManualClock) -> None:
    txs = [
        Transaction(f"{kind}/{status}/{at}", kind, status, create_time=at)
        for kind in TransType
        for status in Status
        for at in (1_000, 2_000, 3_000)
    ]
    await asyncio.gather(*(store.create(tx) for tx in txs))
    for which in (
        EVERYTHING,
        Filter(status=Status.ABORTING),
        Filter(status=Status.SUCCEED),
        Filter(status=Status.FAILED),
        Filter(trans_type=TransType.SAGA),
        Filter(created_from=2_000),
        Filter(created_from=0, created_until=2_999),
        Filter(created_from=2_001, created_until=2_999),
        Filter(Status.PREPARED, TransType.TCC, 2_000, 2_000),
        Filter(Status.FAILED, TransType.MSG, created_until=2_000),
        Filter(status="unknown"),
        Filter(trans_type="unknown"),
        Filter(status="' OR 1=1 --"),
    ):
        expected = {
            tx.gid
            for tx in txs
            if which.status in ("", tx.status)
            and which.trans_type in ("", tx.trans_type)
            and (which.created_from or 0) <= tx.create_time <= (which.created_until or 9_999)
        }
        assert {held.tx.gid for held in await walked(store, 7, which)} == expected, which


@_check
async def a_status_that_changes_changes_its_list(store: Store, clock: ManualClock) -> None:
    for gid in ("g1", "g2"):
        await store.create(transaction(gid))
    await finish(store, "g1", Status.SUCCEED, 1)
    for status, gids in ((Status.SUBMITTED, ["g2"]), (Status.SUCCEED, ["g1"])):
        rows = await walked(store, 10, Filter(status=status))
        assert [held.tx.gid for held in rows] == gids


@_check
async def a_position_that_no_page_gave_is_refused(store: Store, clock: ManualClock) -> None:
    for position in ODD_POSITIONS:
        await refused(store.scan(position, 10, EVERYTHING), ValueError)
        await refused(store.scan_kv("topics", position, 10), ValueError)


# making due


@_check
async def a_reset_makes_due_at_once(store: Store, clock: ManualClock) -> None:
    now = clock.now_ms()
    for gid, at in (("later", now + 60_000), ("never", None), ("overdue", now - 5_000)):
        await store.create(transaction(gid, next_cron_time=at, update_time=1))
    clock.advance(1)
    for gid in ("later", "never"):
        before = await stored(store, gid)
        assert await store.reset_next_cron_time(gid)
        due = replace(before.tx, next_cron_time=now + 1_000)
        assert await stored(store, gid) == replace(before, tx=due)
    assert not await store.reset_next_cron_time("unknown")
    assert await store.load("unknown") is None
    claimed = await store.claim("a", 10)
    assert claimed[0].tx.gid == "overdue"
    assert {held.tx.gid for held in claimed} == {"later", "never", "overdue"}


@_check
async def a_reset_leaves_what_is_terminal_as_it_is(store: Store, clock: ManualClock) -> None:
    for status in TERMINAL:
        await store.create(transaction(str(status)))
        await finish(store, str(status), status, 1)
        before = await stored(store, str(status))
        assert await store.reset_next_cron_time(str(status))
        assert await stored(store, str(status)) == before
    assert await store.next_due() is None
    assert await store.claim("a", 10) == []


@_check
async def a_reset_takes_no_lease_and_the_holder_has_the_last_word(
    store: Store, clock: ManualClock
) -> None:
    now = clock.now_ms()
    await store.create(transaction("g", next_cron_time=now + 60_000), owner="a", lease_s=10)
    held = await stored(store, "g")
    assert await store.reset_next_cron_time("g")
    due = replace(held, tx=replace(held.tx, next_cron_time=now))
    assert await stored(store, "g") == due
    assert await store.claim("b", 1) == []
    assert await store.next_due() == now + 10_000
    assert await store.save(change(held, "a", release=True)) == 1
    assert await store.next_due() == now + 60_000
    assert await store.claim("b", 1) == []
    assert await store.reset_next_cron_time("g")
    assert [claimed.tx for claimed in await store.claim("b", 1)] == [due.tx]


@_check
async def a_held_transaction_that_was_reset_is_claimed_when_its_lease_is_over(
    store: Store, clock: ManualClock
) -> None:
    now = clock.now_ms()
    await store.create(transaction("g", next_cron_time=now + 60_000), owner="a", lease_s=10)
    await store.reset_next_cron_time("g")
    clock.advance(9.999)
    assert await store.claim("b", 1) == []
    clock.advance(0.001)
    assert [held.fence for held in await store.claim("b", 1)] == [2]


@_check
async def many_are_made_due_and_the_rest_is_told(store: Store, clock: ManualClock) -> None:
    now = clock.now_ms()
    for n in range(11):
        await store.create(transaction(f"later {n}", next_cron_time=now + 10_001 + n))
    await store.create(transaction("held", next_cron_time=now + 60_000), owner="a", lease_s=20)
    await store.create(transaction("soon", next_cron_time=now + 10_000))
    await store.create(transaction("never", next_cron_time=None))
    for status in TERMINAL:
        await store.create(transaction(str(status), status=status, next_cron_time=now + 60_000))
    others = [await stored(store, gid) for gid in ("soon", "never", *TERMINAL)]
    assert await store.reset_cron_time(now + 60_000, 5) == (0, False)
    assert await store.reset_cron_time(now + 10_000, 5) == (5, True)
    assert await store.reset_cron_time(now + 10_000, 6) == (6, True)
    assert await store.reset_cron_time(now + 10_000, 1) == (1, False)
    assert await store.reset_cron_time(now + 10_000, 1) == (0, False)
    for held in others:
        assert await stored(store, held.tx.gid) == held
    held = await stored(store, "held")
    assert (held.owner, held.fence, held.tx.next_cron_time) == ("a", 1, now)
    claimed = await store.claim("b", 100)
    assert {held.tx.gid for held in claimed} == {f"later {n}" for n in range(11)}
    assert {held.tx.next_cron_time for held in claimed} == {now}
    assert await store.next_due() == now + 10_000
    assert await store.reset_cron_time(0, 100) == (13, False), "what has no time is not later"


# key-values


@_check
async def a_key_value_lives_from_create_to_delete(store: Store, clock: ManualClock) -> None:
    assert await store.find_kv("topics", "t") == []
    await store.create_kv("topics", "t", '[{"url":"é"}]')
    began = clock.now_ms()
    [read] = await store.find_kv("topics", "t")
    assert read == KeyValue("topics", "t", '[{"url":"é"}]', 1)
    assert (read.create_time, read.update_time) == (began, began)
    clock.advance(1)
    await store.update_kv(read, "")
    [again] = await store.find_kv("topics", "t")
    assert again == KeyValue("topics", "t", "", 2)
    assert (again.create_time, again.update_time, again.id) == (began, began + 1_000, read.id)
    assert await store.delete_kv("topics", "t")
    assert not await store.delete_kv("topics", "t")
    assert await store.find_kv("topics", "t") == []
    assert await walked_kv(store, "topics", 10) == []
    await store.create_kv("topics", "t", "again")
    assert await store.find_kv("topics", "t") == [KeyValue("topics", "t", "again", 1)]


@_check
async def a_key_value_of_a_mebibyte_reads_back(store: Store, clock: ManualClock) -> None:
    await store.create_kv("topics", "k" * 128, "é" * (1 << 19))
    [read] = await store.find_kv("topics", "k" * 128)
    assert read.value == "é" * (1 << 19)
    await store.update_kv(read, "x" * (1 << 20))
    assert [kv.value for kv in await store.find_kv("", "k" * 128)] == ["x" * (1 << 20)]


@_check
async def a_key_that_exists_is_refused(store: Store, clock: ManualClock) -> None:
    await store.create_kv("topics", "t", "1")
    await refused(store.create_kv("topics", "t", "2"), KvChanged)
    assert await store.find_kv("topics", "t") == [KeyValue("topics", "t", "1", 1)]


@_check
async def an_update_needs_the_version_that_is_there(store: Store, clock: ManualClock) -> None:
    await store.create_kv("topics", "t", "1")
    [read] = await store.find_kv("topics", "t")
    await refused(store.update_kv(replace(read, version=2), "x"), KvChanged)
    await store.update_kv(read, "2")
    await refused(store.update_kv(read, "3"), KvChanged)
    [read] = await store.find_kv("topics", "t")
    assert (read.value, read.version) == ("2", 2)
    await refused(store.update_kv(replace(read, key="T"), "x"), KvChanged)
    await refused(store.update_kv(replace(read, cat="Topics"), "x"), KvChanged)
    await store.delete_kv("topics", "t")
    await refused(store.update_kv(read, "x"), KvChanged)
    assert await store.find_kv("", "") == []


@_check
async def one_of_twenty_simultaneous_updates_wins(store: Store, clock: ManualClock) -> None:
    await store.create_kv("topics", "t", "")
    for version in (1, 2, 3):
        [read] = await store.find_kv("topics", "t")
        outcomes = await asyncio.gather(
            *(store.update_kv(read, f"{n}") for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(outcome, KvChanged) for outcome in outcomes) == 19
        expected = KeyValue("topics", "t", str(outcomes.index(None)), version + 1)
        assert await store.find_kv("topics", "t") == [expected]


@_check
async def one_of_twenty_simultaneous_creates_of_a_key_wins(
    store: Store, clock: ManualClock
) -> None:
    outcomes = await asyncio.gather(
        *(store.create_kv("topics", "t", f"{n}") for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(outcome, KvChanged) for outcome in outcomes) == 19
    expected = KeyValue("topics", "t", str(outcomes.index(None)))
    assert await store.find_kv("topics", "t") == [expected]


@_check
async def key_values_are_found_by_category_by_key_and_by_both(
    store: Store, clock: ManualClock
) -> None:
    entries = [KeyValue(cat, key, f"{cat}-{key}") for key in ("c", "a", "b") for cat in ("y", "x")]
    for kv in entries:
        await store.create_kv(kv.cat, kv.key, kv.value)
    assert await store.find_kv("x", "b") == [KeyValue("x", "b", "x-b")]
    assert await store.find_kv("x", "") == [KeyValue("x", key, f"x-{key}") for key in "abc"]
    found = await store.find_kv("", "a")
    assert {kv.value for kv in found} == {"x-a", "y-a"}
    everything = await store.find_kv("", "")
    assert [kv.key for kv in everything] == ["a", "a", "b", "b", "c", "c"]
    assert await store.find_kv("z", "") == await store.find_kv("x", "d") == []


@_check
async def keys_and_categories_are_texts_and_no_two_are_confused(
    store: Store, clock: ManualClock
) -> None:
    names = [
        *(("topics", key) for key in ODD_GIDS),
        ("Topics", "t"), ("topic", "t"), ("topics", "t"), ("topics ", "t"), ("topics_", "t"),
        ("a", "b_c"), ("a_b", "c"), ("a", "b-c"), ("a-b", "c"), ("a", "b:c"), ("a:b", "c"),
    ]  # fmt: skip
    entries = [KeyValue(cat, key, f"{n}") for n, (cat, key) in enumerate(names)]
    await asyncio.gather(*(store.create_kv(kv.cat, kv.key, kv.value) for kv in entries))
    for kv in entries:
        assert await store.find_kv(kv.cat, kv.key) == [kv]
    for cat in {cat for cat, _ in names}:
        expected = {kv.key: kv for kv in entries if kv.cat == cat}
        assert {kv.key: kv for kv in await walked_kv(store, cat, 10)} == expected
        assert {kv.key: kv for kv in await store.find_kv(cat, "")} == expected
    for kv in entries[::2]:
        assert await store.delete_kv(kv.cat, kv.key)
    for n, kv in enumerate(entries):
        assert await store.find_kv(kv.cat, kv.key) == ([kv] if n % 2 else [])


@_check
async def pages_of_key_values_hold_every_row_while_more_are_created(
    store: Store, clock: ManualClock
) -> None:
    keys = [f"k{n:02}" for n in range(25)]
    for key in keys:
        await store.create_kv("topics", key, "v")
        await store.create_kv("others", key, "v")
    later = iter(range(MOST_PAGES))

    async def create() -> None:
        await store.create_kv("topics", f"later {next(later)}", "v")

    rows = await walked_kv(store, "topics", 10, between=create)
    assert {*keys} <= {kv.key for kv in rows}
    assert {kv.cat for kv in rows} == {"topics"}
    numbered_pages(rows)
    assert await walked_kv(store, "unknown", 10) == []


# the clock and the end


@_check
async def a_cleared_store_is_as_new(store: Store, clock: ManualClock) -> None:
    for status in Status:
        await store.create(transaction(str(status), status=status, next_cron_time=0), owner="a")
        await store.create_kv("topics", str(status), "v")
    await store.clear()
    assert await walked(store, 10) == []
    assert await store.find_kv("", "") == []
    assert await store.next_due() is None
    clock.advance(60)
    assert await store.claim("b", 10) == []
    for status in Status:
        tx = transaction(str(status), branches=())
        assert await store.create(tx) == 1
        assert await stored(store, tx.gid) == Held(tx, 1)
        await store.create_kv("topics", str(status), "v")
    await store.clear()
    await store.clear()
    assert await store.load(str(Status.PREPARED)) is None


@_check
async def weaknesses_are_told_in_sentences(store: Store, clock: ManualClock) -> None:
    assert isinstance(store.weaknesses, tuple)
    for weakness in store.weaknesses:
        assert "; " in weakness, "the loss, and the way out"


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
