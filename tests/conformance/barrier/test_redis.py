"""The barrier over Redis: the contract, and what is special."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
import redis
import redis.asyncio

from kit.dtm.barrier import BarrierError, BranchBarrier, Outcome
from kit.dtm.barrier.redis import acheck_adjust, aquery_prepared, check_adjust, query_prepared
from kit.dtm.errors import Duplicated, Failure
from kit.testing.barrier import BARRIER_CHECKS, BarrierCheck, Call, Step, check_barrier
from kit.testing.redis import redis_address

PLENTY = 1_000_000_000


class RedisBank:
    """Effects are seen as changes of the account, one after the other."""

    isolated = False

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._numbers = count()
        self._seen: dict[str, list[int]] = {}

    async def calls(self, calls: Sequence[Call]) -> list[Outcome | Exception]:
        results: list[Outcome | Exception] = []
        for barrier, step in calls:
            account = f"account-{step.key}"
            await self._client.set(account, PLENTY, nx=True)
            try:
                result = await acheck_adjust(barrier, self._client, account, step.amount)
            except Exception as exc:
                results.append(exc)
                continue
            if result is Outcome.DONE:
                self._seen.setdefault(step.key, []).append(step.amount)
            results.append(result)
        return results

    async def query(self, barrier: BranchBarrier) -> None:
        await aquery_prepared(barrier, self._client)

    @asynccontextmanager
    async def hold(self, barrier: BranchBarrier, step: Step) -> AsyncIterator[None]:
        del barrier, step
        raise NotImplementedError  # no transactions, nothing to hold open
        yield

    async def effects(self, key: str) -> list[int]:
        """What the answers said, as far as the balance agrees; order as answered."""
        seen = self._seen.get(key, [])
        balance = await self._client.get(f"account-{key}")
        assert balance is None or int(balance) - PLENTY == sum(seen)
        # Two calls that meet may be answered in the other order than they happened.
        return sorted(seen, reverse=True) if key.startswith("meet") else seen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address() -> AsyncIterator[str]:
    async with redis_address() as found:
        yield found


@pytest_asyncio.fixture
async def client(address: str) -> AsyncIterator[Any]:
    async with redis.asyncio.Redis.from_url(f"redis://{address}") as found:
        yield found


@pytest.mark.parametrize("check", BARRIER_CHECKS, ids=lambda check: check.__name__)
async def test_the_barrier_keeps_its_contract(client: Any, check: BarrierCheck) -> None:
    await check_barrier(RedisBank(client), [check])


def test_the_balance_is_checked_before_the_barrier(address: str) -> None:
    """dtm-labs/dtm client/dtmcli/barrier_redis.go: a repeat that takes money may answer FAILURE."""
    with redis.Redis.from_url(f"redis://{address}", decode_responses=True) as client:
        client.set("alice", 30)
        take = BranchBarrier("saga", "balance", "01", "action")
        assert check_adjust(take, client, "alice", -30) is Outcome.DONE
        repeat = BranchBarrier("saga", "balance", "01", "action")
        with pytest.raises(Failure, match="too low"):
            check_adjust(repeat, client, "alice", -30)
        with pytest.raises(Failure, match="no such account"):
            check_adjust(take, client, "nobody", 1)
        assert client.get("alice") == "0"


def test_the_keys_are_those_of_dtm_and_expire(address: str) -> None:
    with redis.Redis.from_url(f"redis://{address}", decode_responses=True) as client:
        client.set("bob", 1)
        undo = BranchBarrier("saga", "keys", "02", "compensate")
        assert check_adjust(undo, client, "bob", 1, expire_s=60) is Outcome.NULL_COMPENSATION
        assert client.get("keys-02-compensate-01") == "op"
        assert client.get("keys-02-action-01") == "rollback"
        assert 0 < client.ttl("keys-02-action-01") <= 60
        message = BranchBarrier("msg", "keys", "00", "msg")
        with pytest.raises(Failure):
            query_prepared(message, client, expire_s=60)
        assert client.get("keys-00-msg-01") == "rollback"
        with pytest.raises(Duplicated):
            check_adjust(message, client, "bob", 1)


def test_a_client_that_answers_too_late_is_refused(address: str) -> None:
    barrier = BranchBarrier("saga", "pipe", "01", "action")
    with redis.Redis.from_url(f"redis://{address}") as client:
        with pytest.raises(BarrierError, match="pipeline"):
            check_adjust(barrier, client.pipeline(), "x", 1)
        with pytest.raises(BarrierError, match="expire_s"):
            check_adjust(barrier, client, "x", 1, expire_s=0)
    with pytest.raises(BarrierError, match="acheck_adjust"):
        check_adjust(barrier, redis.asyncio.Redis(), "x", 1)
