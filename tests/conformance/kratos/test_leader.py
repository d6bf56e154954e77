"""One leader among instances, by a real etcd that is killed, frozen and written to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from kit.app import Every, Job, Jobs, current_run
from kit.app.leader import EtcdLeader
from kit.etcd import EtcdClient, EtcdOptions
from kit.testing.etcd import EtcdServer, etcd_server

TTL = 6
"""Seconds; a leader gives up a sixth of it before its end, and this machine may be busy."""

KEY = "/kit/leaders/trans"


@pytest.fixture
async def own_etcd() -> AsyncIterator[EtcdServer]:
    """A real etcd for one test that may do it harm."""
    async with etcd_server() as server:
        yield server


@asynccontextmanager
async def candidate(server: EtcdServer) -> AsyncIterator[EtcdLeader]:
    """An instance that tries to lead until the block ends."""
    options = EtcdOptions((server.endpoint,), timeout=3.0, keepalive=0.5)
    async with EtcdClient(options) as client:
        leader = EtcdLeader(client, "trans", ttl=TTL)
        campaign = asyncio.create_task(leader.campaign())
        try:
            yield leader
        finally:
            campaign.cancel()
            await asyncio.gather(campaign, return_exceptions=True)


async def until(wanted: Callable[[], object], within: float = 30.0) -> float:
    """Wait until ``wanted``; seconds it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(within):
        while not wanted():
            await asyncio.sleep(0.01)
    return loop.time() - started


async def test_one_of_three_leads_and_another_when_it_resigns(own_etcd: EtcdServer) -> None:
    async with candidate(own_etcd) as first:
        await until(lambda: first.term)
        async with candidate(own_etcd) as second, candidate(own_etcd) as third:
            await asyncio.sleep(TTL)
            assert first.term is not None
            assert second.term is None
            assert third.term is None
            number = first.term.number
    async with candidate(own_etcd) as second:
        await until(lambda: second.term)
        assert second.term is not None
        assert second.term.number > number


async def test_who_stops_takes_the_key_along(own_etcd: EtcdServer) -> None:
    """The next leader need not wait for the end of a lease."""
    async with candidate(own_etcd) as leader:
        await until(lambda: leader.term)
    assert leader.term is None
    async with EtcdClient(EtcdOptions((own_etcd.endpoint,))) as client:
        assert await client.get(KEY) is None


async def test_a_leader_that_etcd_does_not_answer_gives_up_before_its_lease_ends(
    own_etcd: EtcdServer,
) -> None:
    async with candidate(own_etcd) as leader:
        await until(lambda: leader.term)
        term = leader.term
        assert term is not None
        own_etcd.freeze()
        try:
            assert await until(lambda: term.ended.is_set()) < TTL
            assert leader.term is None
        finally:
            own_etcd.thaw()
        await until(lambda: leader.term)
        assert leader.term is not None
        assert leader.term.number > term.number


async def test_a_leader_whose_key_was_deleted_leads_no_more(own_etcd: EtcdServer) -> None:
    async with candidate(own_etcd) as leader:
        await until(lambda: leader.term)
        term = leader.term
        assert term is not None
        await leader._client.delete(KEY)
        assert await until(lambda: term.ended.is_set()) < TTL


async def test_an_etcd_that_comes_back_has_a_leader_again(
    own_etcd: EtcdServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line an outage, however often it is tried."""
    async with candidate(own_etcd) as leader:
        await until(lambda: leader.term)
        capsys.readouterr()
        await own_etcd.stop()
        await until(lambda: leader.term is None)
        await asyncio.sleep(2 * TTL)
        await own_etcd.start()
        await until(lambda: leader.term, within=60)
    assert capsys.readouterr().err.count("trying on") == 1


async def test_a_job_of_four_instances_is_done_by_one_at_a_time(own_etcd: EtcdServer) -> None:
    """While whoever leads is stopped, one after the other; each run has the number of its term."""
    working = 0
    most = 0
    terms: list[int] = []

    async def work() -> None:
        nonlocal working, most
        run = current_run()
        assert run is not None
        assert run.term is not None
        terms.append(run.term.number)
        working += 1
        most = max(most, working)
        try:
            await asyncio.sleep(0.03)
        finally:
            working -= 1

    async with EtcdClient(EtcdOptions((own_etcd.endpoint,), timeout=5.0)) as client:
        leaders = [EtcdLeader(client, "trans", ttl=TTL) for _ in range(4)]
        instances = [Jobs(Job("work", work, Every(0.05)), leader=leader) for leader in leaders]
        serving = [asyncio.create_task(instance.serve()) for instance in instances]
        for _ in range(4):
            await until(
                lambda: {leader.term.number for leader in leaders if leader.term} & {*terms}
            )
            leading = next(index for index, leader in enumerate(leaders) if leader.term)
            await instances[leading].stop(1)
            await serving[leading]
        assert await client.get(KEY) is None
    assert most == 1
    assert len(set(terms)) == 4
    assert terms == sorted(terms)
