"""The contract of a barrier as a suite that any database and driver can be put to.

::

    async def test_my_database_keeps_the_contract() -> None:
        await check_barrier(SqlBank(connect, add, effects))

Every check counts effects, not answers: a business that ran twice is seen wherever it ran. To see
each check as a test of its own, run :func:`check_barrier` once for each of :data:`BARRIER_CHECKS`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

from kit.dtm.barrier import BranchBarrier, Outcome
from kit.dtm.barrier.flow import Flow, arun, run
from kit.dtm.errors import DtmError, Duplicated, Failure
from kit.dtm.wire import QUERY_BRANCH_ID, Op, TransType

ORDERS = 1_000
"""Random orders of calls that :func:`check_barrier` tries."""

_TRIES = 20
"""Of one call, as a coordinator repeats it: databases may refuse one of two that meet."""

_MEETINGS = 25
"""Times that an action and its compensation are called at once."""

_ORDERS_AT_ONCE = 100
"""Over one connection."""

_FAILING = 0.2
"""The share of businesses that raise."""

_STILL_WAITING = 0.15
"""Seconds after which an answer that does not wait would long be there."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One use of a barrier: ``amount`` is the effect, ``error`` is raised after it."""

    key: str
    amount: int
    error: Exception | None = None


Call: TypeAlias = tuple[BranchBarrier, Step]


class Bank(Protocol):
    """A database in which branches have effects that can be counted."""

    async def calls(self, calls: Sequence[Call]) -> list[Outcome | Exception]:
        """Use each barrier for its step, one after the other; gives what came out or was raised."""
        ...

    async def query(self, barrier: BranchBarrier) -> None:
        """Answer whether a message's local transaction committed.

        Raises:
            Failure: it did not.
        """
        ...

    def hold(self, barrier: BranchBarrier, step: Step) -> AbstractAsyncContextManager[None]:
        """A local transaction that is open inside the block; an error rolls it back."""
        ...

    async def effects(self, key: str) -> list[int]:
        """The effects under ``key``, in the order in which they happened."""
        ...

    @property
    def isolated(self) -> bool:
        """Whether there are transactions; without them nothing can be held open."""
        ...


BarrierCheck: TypeAlias = Callable[[Bank], Awaitable[None]]

BARRIER_CHECKS: list[BarrierCheck] = []
"""Every check; the name of each says what it pins."""

__all__ = ["BARRIER_CHECKS", "Bank", "BarrierCheck", "SqlBank", "Step", "check_barrier"]


async def check_barrier(bank: Bank, checks: Iterable[BarrierCheck] = BARRIER_CHECKS) -> None:
    """Run ``checks``, all by default, on ``bank``; each uses transactions of its own.

    Raises:
        AssertionError: a promise is not kept; a note names the check.
    """
    for check in checks:
        try:
            await check(bank)
        except Exception as exc:
            exc.add_note(f"check_barrier: {check.__name__.replace('_', ' ')}")
            raise


class SqlBank:
    """A bank over any driver that a barrier can join.

    Args:
        connect: gives a connection of its own, closed when the block is left. ``async with`` where
            the driver is awaited, else ``with``, entered in a thread.
        add: ``add(connection, key, amount)`` writes an effect, awaited where the driver is.
        effects: ``effects(connection, key)`` reads them, oldest first.
        awaited: whether the driver is.
        table: of the barrier.
    """

    isolated = True

    def __init__(
        self,
        connect: Callable[[], Any],
        add: Callable[[Any, str, int], Any],
        effects: Callable[[Any, str], Any],
        *,
        awaited: bool,
        table: str = "",
    ) -> None:
        self.table = table
        self._connect = connect
        self._add = add
        self._effects = effects
        self._awaited = awaited

    async def calls(self, calls: Sequence[Call]) -> list[Outcome | Exception]:
        """Each in a transaction of its own, all over one connection."""
        mine = {id(barrier): self._mine(barrier) for barrier, _ in calls}
        steps = [(mine[id(barrier)], step) for barrier, step in calls]
        return await self._with(partial(self._calls, steps))

    async def query(self, barrier: BranchBarrier) -> None:
        """Over a connection of its own."""
        mine = self._mine(barrier)
        ask = mine.aquery_prepared if self._awaited else mine.query_prepared

        def work(connection: Any) -> Flow[None]:
            yield partial(ask, connection)

        await self._with(work)

    @asynccontextmanager
    async def hold(self, barrier: BranchBarrier, step: Step) -> AsyncIterator[None]:
        """The transaction is open once the block is entered, and ends after it."""
        mine = self._mine(barrier)
        opened, closing = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        failed = False

        async def wait() -> None:
            opened.set()
            await closing.wait()
            if failed:
                raise _RolledBack

        def wait_here() -> None:
            asyncio.run_coroutine_threadsafe(wait(), loop).result()

        def work(connection: Any) -> Flow[None]:
            run_business = self._business(connection, step, wait if self._awaited else wait_here)
            yield partial(mine.acall if self._awaited else mine.call, connection, run_business)

        holder = asyncio.create_task(self._with(work))  # awaited below, whatever happens
        try:
            await opened.wait()
            yield
        except BaseException:
            failed = True
            raise
        finally:
            closing.set()
            try:
                await holder
            except _RolledBack:
                pass

    async def effects(self, key: str) -> list[int]:
        """Over a connection of its own."""

        def work(connection: Any) -> Flow[list[int]]:
            rows: list[int] = yield partial(self._effects, connection, key)
            return rows

        return await self._with(work)

    def _calls(self, calls: Sequence[Call], connection: Any) -> Flow[list[Outcome | Exception]]:
        results: list[Outcome | Exception] = []
        for barrier, step in calls:
            business = self._business(connection, step, None)
            call = barrier.acall if self._awaited else barrier.call
            try:
                results.append((yield partial(call, connection, business)))
            except Exception as exc:  # noqa: BLE001 - the check says which ones it wants
                results.append(exc)
        return results

    def _business(
        self, connection: Any, step: Step, then: Callable[[], Any] | None
    ) -> Callable[[], Any]:
        def work() -> Flow[None]:
            yield partial(self._add, connection, step.key, step.amount)
            if then is not None:
                yield then
            if step.error is not None:
                raise step.error

        return (lambda: arun(work())) if self._awaited else (lambda: run(work()))

    async def _with(self, work: Callable[[Any], Flow[T]]) -> T:
        if self._awaited:
            connection: AbstractAsyncContextManager[Any] = self._connect()
            async with connection as opened:
                return await arun(work(opened))

        def there() -> T:
            mine: AbstractContextManager[Any] = self._connect()
            with mine as opened:
                return run(work(opened))

        return await asyncio.to_thread(there)

    def _mine(self, barrier: BranchBarrier) -> BranchBarrier:
        return BranchBarrier(
            barrier.trans_type, barrier.gid, barrier.branch_id, barrier.op, table=self.table
        )


class _RolledBack(Exception):
    """Ends a transaction that is held."""


class _Unlucky(Exception):
    """What a business raises that fails."""


_run = random.Random()  # noqa: S311 - names that no other run has used


def _gid(name: str) -> str:
    return f"{name}-{_run.getrandbits(48):x}"


def _saga(gid: str, op: str, branch_id: str = "01") -> BranchBarrier:
    return BranchBarrier(TransType.SAGA, gid, branch_id, op)


def _tcc(gid: str, op: str) -> BranchBarrier:
    return BranchBarrier(TransType.TCC, gid, "01", op)


def _msg(gid: str) -> BranchBarrier:
    return BranchBarrier(TransType.MSG, gid, QUERY_BRANCH_ID, Op.MSG)


async def _one(bank: Bank, barrier: BranchBarrier, step: Step) -> Outcome:
    (outcome,) = await _handler(bank, barrier, [step])
    return outcome


async def _handler(bank: Bank, barrier: BranchBarrier, steps: Sequence[Step]) -> list[Outcome]:
    """Use one barrier for each of ``steps``; an error ends the handler."""
    outcomes = []
    for result in await bank.calls([(barrier, step) for step in steps]):
        if isinstance(result, Exception):
            raise result
        outcomes.append(result)
    return outcomes


async def _until_answered(bank: Bank, barrier: BranchBarrier, step: Step) -> Outcome:
    """As a coordinator calls: again when the answer is unknown."""
    for _ in range(_TRIES - 1):
        try:
            return await _one(bank, _again(barrier), step)
        except DtmError:
            raise
        except Exception:  # noqa: BLE001 - whatever the driver calls it, it is unknown
            await asyncio.sleep(0.01 * _run.random())
    return await _one(bank, _again(barrier), step)


def _again(barrier: BranchBarrier) -> BranchBarrier:
    return BranchBarrier(barrier.trans_type, barrier.gid, barrier.branch_id, barrier.op)


async def _raises(kind: type[Exception], doing: Awaitable[object]) -> None:
    try:
        await doing
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def _check(check: BarrierCheck) -> BarrierCheck:
    BARRIER_CHECKS.append(check)
    return check


@_check
async def a_repeated_call_has_one_effect(bank: Bank) -> None:
    """Idempotence, of every op that stands alone; the repeat says that it was one."""
    for op in (Op.ACTION, Op.TRY, Op.CONFIRM):
        gid = _gid("repeat")
        assert await _one(bank, _saga(gid, op), Step(gid, 1)) is Outcome.DONE
        for _ in range(2):
            assert await _one(bank, _saga(gid, op), Step(gid, 1)) is Outcome.REPEATED
        assert await bank.effects(gid) == [1]


@_check
async def an_undo_follows_what_it_undoes_and_happens_once(bank: Bank) -> None:
    """Action, compensation, and the compensation again."""
    for op, undo in ((Op.ACTION, Op.COMPENSATE), (Op.TRY, Op.CANCEL)):
        gid = _gid("undo")
        assert await _one(bank, _saga(gid, op), Step(gid, 3)) is Outcome.DONE
        assert await _one(bank, _saga(gid, undo), Step(gid, -2)) is Outcome.DONE
        assert await _one(bank, _saga(gid, undo), Step(gid, -2)) is Outcome.REPEATED
        assert await bank.effects(gid) == [3, -2]


@_check
async def an_undo_without_its_action_changes_nothing(bank: Bank) -> None:
    """Null compensation, repeated; and the action that comes too late is kept out: hanging."""
    for op, undo in ((Op.ACTION, Op.COMPENSATE), (Op.TRY, Op.CANCEL)):
        gid = _gid("null")
        assert await _one(bank, _saga(gid, undo), Step(gid, 2)) is Outcome.NULL_COMPENSATION
        assert await _one(bank, _saga(gid, undo), Step(gid, 2)) is Outcome.REPEATED
        assert await _one(bank, _saga(gid, op), Step(gid, 5)) is Outcome.HANGING
        assert await _one(bank, _saga(gid, undo), Step(gid, 2)) is Outcome.REPEATED
        assert await bank.effects(gid) == []


@_check
async def branches_and_transactions_do_not_mix(bank: Bank) -> None:
    """Ids that are near each other are different ids."""
    key = _gid("near")
    gids = (f"{key}-1", f"{key}-10", f"{key}-1 ", f"{key}-A", f"{key}-a", f"{key}-é", f"{key}-'%s")
    for gid in gids:
        for branch_id in ("01", "0101", "1"):
            done = await _one(bank, _saga(gid, Op.ACTION, branch_id), Step(key, 1))
            assert done is Outcome.DONE, f"{gid!r}/{branch_id!r} is taken for another"
    assert await bank.effects(key) == [1] * (3 * len(gids))


@_check
async def two_uses_in_one_handler_are_two_barriers(bank: Bank) -> None:
    """Each has its effect once, over repeats of the handler and over its undo."""
    gid = _gid("twice")
    steps = [Step(gid, 1), Step(gid, 2)]
    assert await _handler(bank, _saga(gid, Op.ACTION), steps) == [Outcome.DONE] * 2
    assert await _handler(bank, _saga(gid, Op.ACTION), steps) == [Outcome.REPEATED] * 2
    undo = [Step(gid, -1), Step(gid, -2)]
    assert await _handler(bank, _saga(gid, Op.COMPENSATE), undo) == [Outcome.DONE] * 2
    assert await bank.effects(gid) == [1, 2, -1, -2]


@_check
async def a_handler_that_got_half_way_goes_on_where_it_stopped(bank: Bank) -> None:
    """The first of two uses committed, the second failed: the repeat does the second alone."""
    if not bank.isolated:
        return
    gid = _gid("half")
    first, second = Step(gid, 1), Step(gid, 2)
    failing = _handler(bank, _saga(gid, Op.ACTION), [first, Step(gid, 2, _Unlucky())])
    await _raises(_Unlucky, failing)
    again = await _handler(bank, _saga(gid, Op.ACTION), [first, second])
    assert again == [Outcome.REPEATED, Outcome.DONE]
    assert await bank.effects(gid) == [1, 2]


@_check
async def a_business_that_fails_leaves_no_trace(bank: Bank) -> None:
    """Neither its rows nor the barrier's: the repeat is the first."""
    if not bank.isolated:
        return
    gid = _gid("fail")
    for error in (_Unlucky(), Failure("no")):
        await _raises(type(error), _one(bank, _saga(gid, Op.ACTION), Step(gid, 1, error)))
    assert await bank.effects(gid) == []
    assert await _one(bank, _saga(gid, Op.ACTION), Step(gid, 1)) is Outcome.DONE
    assert await bank.effects(gid) == [1]


@_check
async def a_query_after_the_commit_says_yes(bank: Bank) -> None:
    """And says so again; the local transaction cannot happen a second time."""
    gid = _gid("asked")
    assert await _one(bank, _msg(gid), Step(gid, 1)) is Outcome.DONE
    for _ in range(2):
        await bank.query(_msg(gid))
    await _raises(Duplicated, _one(bank, _msg(gid), Step(gid, 1)))
    assert await bank.effects(gid) == [1]


@_check
async def a_query_before_the_commit_says_no_and_keeps_its_word(bank: Bank) -> None:
    """The local transaction that comes too late is refused."""
    gid = _gid("early")
    for _ in range(2):
        await _raises(Failure, bank.query(_msg(gid)))
    await _raises(Duplicated, _one(bank, _msg(gid), Step(gid, 1)))
    await _raises(Failure, bank.query(_msg(gid)))
    assert await bank.effects(gid) == []


@_check
async def a_query_waits_for_an_open_local_transaction(bank: Bank) -> None:
    """Its answer is what became of that, never a guess."""
    if not bank.isolated:
        return
    for commits in (True, False):
        gid = _gid("open")
        try:
            async with bank.hold(_msg(gid), Step(gid, 1)):
                asked = asyncio.create_task(_answer(bank, gid))  # awaited below
                await asyncio.wait([asked], timeout=_STILL_WAITING)
                assert not (asked.done() and asked.result() is not None), "it did not wait"
                if not commits:
                    raise _Unlucky
        except _Unlucky:
            pass
        answer = await asked
        if answer is None:  # the database refused instead of waiting: the coordinator asks again
            answer = await _answer(bank, gid)
        assert answer is commits
        assert await bank.effects(gid) == ([1] if commits else [])


async def _answer(bank: Bank, gid: str) -> bool | None:
    """Yes, no, or ``None`` for unknown."""
    try:
        await bank.query(_msg(gid))
    except Failure:
        return False
    except Exception:  # noqa: BLE001 - busy, conflict: each driver has its own
        return None
    return True


@_check
async def repeats_that_meet_have_one_effect(bank: Bank) -> None:
    """Four calls of one action at once."""
    for _ in range(5):
        gid = _gid("crowd")
        calls = (_until_answered(bank, _saga(gid, Op.ACTION), Step(gid, 1)) for _ in range(4))
        outcomes = await asyncio.gather(*calls)
        assert sorted(outcomes) == sorted([Outcome.DONE, *[Outcome.REPEATED] * 3])
        assert await bank.effects(gid) == [1]


@_check
async def an_action_and_its_undo_that_meet_are_in_order(bank: Bank) -> None:
    """Either both happen, the action first, or neither does."""
    for _ in range(_MEETINGS):
        gid = _gid("meet")
        action, undo = await asyncio.gather(
            _until_answered(bank, _saga(gid, Op.ACTION), Step(gid, 1)),
            _until_answered(bank, _saga(gid, Op.COMPENSATE), Step(gid, -1)),
        )
        effects = await bank.effects(gid)
        if undo is Outcome.DONE:
            assert (action, effects) == (Outcome.DONE, [1, -1])
        else:
            assert (undo, action) == (Outcome.NULL_COMPENSATION, Outcome.HANGING)
            assert effects == []


@_check
async def random_orders_have_each_effect_at_most_once(bank: Bank) -> None:
    """Repeats, failures and undos in any order; the message names the seed of an order."""
    seed = _run.getrandbits(32)
    for first in range(0, ORDERS, _ORDERS_AT_ONCE):
        key = _gid("random")
        numbers = range(first, min(first + _ORDERS_AT_ONCE, ORDERS))
        orders = [_order(bank, key, number, seed + number) for number in numbers]
        results = await bank.calls([call for order in orders for call, _ in order])
        wanted = [expected for order in orders for _, expected in order]
        effects: list[int] = []
        calls = (call for order in orders for call, _ in order)
        for (barrier, step), result, expected in zip(calls, results, wanted, strict=True):
            met = type(result) is expected if isinstance(expected, type) else result is expected
            assert met, f"seed {seed}, {barrier}: {result!r} is not {expected!r}"
            if result is Outcome.DONE:
                effects.append(step.amount)
        assert await bank.effects(key) == effects, f"seed {seed}"


def _order(
    bank: Bank, key: str, number: int, seed: int
) -> list[tuple[Call, Outcome | type[Exception]]]:
    """A few calls of one branch, and what has to become of each."""
    order = random.Random(seed)  # noqa: S311 - reproducible
    op, undo = order.choice(((Op.ACTION, Op.COMPENSATE), (Op.TRY, Op.CANCEL)))
    calls: list[tuple[Call, Outcome | type[Exception]]] = []
    done: set[Op] = set()
    null = False
    for _ in range(order.randint(2, 5)):
        called = order.choice((op, undo))
        error = _Unlucky() if bank.isolated and order.random() < _FAILING else None
        expected: Outcome | type[Exception]
        if called in done:
            expected = Outcome.HANGING if null and called is op else Outcome.REPEATED
        elif called is undo and op not in done:
            expected, null = Outcome.NULL_COMPENSATION, True
            done |= {op, undo}
        elif error is not None:
            expected = _Unlucky
        else:
            expected = Outcome.DONE
            done.add(called)
        step = Step(key, number + 1 if called is op else -number - 1, error)
        calls.append(((_tcc(f"{key}-{number}", called), step), expected))
    return calls
