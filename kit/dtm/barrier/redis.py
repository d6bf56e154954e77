"""A barrier around an account in Redis.

Redis has no transaction that could be joined, so check, barrier and adjustment are one script.

Source: dtm-labs/dtm client/dtmcli/barrier_redis.go.
"""

from functools import partial
from typing import Any

from kit.dtm.barrier.branch import FIRST_CALL, BranchBarrier
from kit.dtm.barrier.errors import BarrierError
from kit.dtm.barrier.flow import Flow, arun, run
from kit.dtm.barrier.rule import ORIGINS, Outcome
from kit.dtm.errors import Duplicated, Failure
from kit.dtm.wire import QUERY_BRANCH_ID, Op

DEFAULT_EXPIRE_S = 7 * 86_400

_ADJUST = """\
local balance = redis.call('GET', KEYS[1])
if balance == false or balance + ARGV[1] < 0 then
    return 'FAILURE'
end
local seen = redis.call('GET', KEYS[2])
if seen then
    return seen == 'rollback' and 'HANGING' or 'REPEATED'
end
redis.call('SET', KEYS[2], 'op', 'EX', ARGV[3])
if ARGV[2] ~= '' and redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('SET', KEYS[3], 'rollback', 'EX', ARGV[3])
    return 'NULL_COMPENSATION'
end
redis.call('INCRBY', KEYS[1], ARGV[1])
return 'DONE'
"""

_QUERY = """\
local seen = redis.call('GET', KEYS[1])
if not seen then
    redis.call('SET', KEYS[1], 'rollback', 'EX', ARGV[1])
    seen = 'rollback'
end
return seen == 'rollback' and 'FAILURE' or 'SUCCESS'
"""


def check_adjust(
    barrier: BranchBarrier,
    client: object,
    key: str,
    amount: int,
    *,
    expire_s: int = DEFAULT_EXPIRE_S,
) -> Outcome:
    """Add ``amount`` to the number at ``key``, at most once, unless it would go below zero.

    The balance is checked first: a repeat that takes money answers Failure once the balance is too
    low for another time, as in dtm.

    Args:
        barrier: its keys are ``gid-branch_id-op-01``; in a cluster a hash tag in the gid and in
            ``key`` has to bring them to one slot.
        client: of redis-py, not a pipeline: what happened has to be known.
        key: of the account.
        amount: negative takes.
        expire_s: seconds after which the barrier forgets; longer than any transaction runs.

    Raises:
        Failure: the account does not exist, or the balance is too low.
        Duplicated: a message's local transaction comes too late.
        BarrierError: ``client`` is a pipeline or is awaited, or ``expire_s`` is below 1.
    """
    _expect(client, awaited=False)
    return run(_adjust(barrier, client, key, amount, expire_s))


async def acheck_adjust(
    barrier: BranchBarrier,
    client: object,
    key: str,
    amount: int,
    *,
    expire_s: int = DEFAULT_EXPIRE_S,
) -> Outcome:
    """As :func:`check_adjust`, for clients of ``redis.asyncio``."""
    _expect(client, awaited=True)
    return await arun(_adjust(barrier, client, key, amount, expire_s))


def query_prepared(
    barrier: BranchBarrier, client: object, *, expire_s: int = DEFAULT_EXPIRE_S
) -> None:
    """Answer whether a message's adjustment happened; after a no it cannot happen any more.

    Raises:
        Failure: it did not happen.
    """
    _expect(client, awaited=False)
    run(_query(barrier, client, expire_s))


async def aquery_prepared(
    barrier: BranchBarrier, client: object, *, expire_s: int = DEFAULT_EXPIRE_S
) -> None:
    """As :func:`query_prepared`, for clients of ``redis.asyncio``."""
    _expect(client, awaited=True)
    await arun(_query(barrier, client, expire_s))


def _adjust(
    barrier: BranchBarrier, client: Any, key: str, amount: int, expire_s: int
) -> Flow[Outcome]:
    row = barrier.next_row()
    # dtm knows no origin for rollback here, as xa has no branches in Redis.
    origin = "" if row.op == Op.ROLLBACK else ORIGINS.get(row.op, "")  # type: ignore[call-overload]
    stem = f"{row.gid}-{row.branch_id}"
    keys = (key, f"{stem}-{row.op}-{row.barrier_id}", f"{stem}-{origin}-{row.barrier_id}")
    values = (amount, origin, _seconds(expire_s))
    word = _word((yield partial(client.eval, _ADJUST, len(keys), *keys, *values)))
    if word == "FAILURE":
        raise Failure(f"{key}: no such account, or its balance is too low")
    outcome = Outcome[word]
    if outcome.suppressed and row.op == Op.MSG:
        raise Duplicated
    return outcome


def _query(barrier: BranchBarrier, client: Any, expire_s: int) -> Flow[None]:
    key = f"{barrier.gid}-{QUERY_BRANCH_ID}-{Op.MSG}-{FIRST_CALL}"
    word = _word((yield partial(client.eval, _QUERY, 1, key, _seconds(expire_s))))
    if word == "FAILURE":
        raise Failure("the local transaction of the message did not happen")


def _word(answer: object) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _seconds(expire_s: int) -> int:
    if expire_s < 1:
        raise BarrierError(f"expire_s: {expire_s} is below 1 second; give whole seconds")
    return int(expire_s)


def _expect(client: object, *, awaited: bool) -> None:
    if any(cls.__name__.endswith("Pipeline") for cls in type(client).__mro__):
        raise BarrierError("client is a pipeline, which answers too late; give the client itself")
    is_awaited = any(cls.__module__.startswith("redis.asyncio") for cls in type(client).__mro__)
    if is_awaited is not awaited:
        raise BarrierError(
            "client is awaited: call acheck_adjust or aquery_prepared"
            if is_awaited
            else "client is not awaited: call check_adjust or query_prepared"
        )
