"""A cluster of three that loses its leader, a member that hangs, and its majority."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from kit.etcd import EtcdClient, EtcdError, EtcdOptions
from kit.registry import ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.testing.etcd import EtcdServer, etcd_cluster

from .conftest import TRANS, TRANS_KEY, eventually

Lines = Callable[[], list[str]]

TTL = 6
"""Seconds: an election takes up to two of them here, and on a busy machine more."""
WITHIN = 40.0


@pytest.fixture
async def cluster() -> AsyncIterator[list[EtcdServer]]:
    async with etcd_cluster() as members:
        yield members


def options(members: Sequence[EtcdServer]) -> EtcdOptions:
    """Members are tried in this order."""
    endpoints = tuple(member.endpoint for member in members)
    return EtcdOptions(endpoints, timeout=3.0, keepalive=1.0)


async def leader_first(members: Sequence[EtcdServer]) -> list[EtcdServer]:
    """The members, the leader in front."""
    async with asyncio.timeout(WITHIN):
        while True:
            for member in members:
                if await member.leads():
                    return [member, *(other for other in members if other is not member)]
            await asyncio.sleep(0.05)


@asynccontextmanager
async def seen_by_another(
    members: Sequence[EtcdServer],
) -> AsyncIterator[Callable[[Callable[[list[str]], bool]], "asyncio.Future[list[list[str]]]"]]:
    """A watch elsewhere; gives a function that waits for ids and gives all lists since the last."""
    async with EtcdRegistry(options(members)) as registry, registry.watch("trans") as lists:

        async def until(wanted: Callable[[list[str]], bool]) -> list[list[str]]:
            seen: list[list[str]] = []
            async with asyncio.timeout(WITHIN):
                async for instances in lists:
                    seen.append([instance.id for instance in instances])
                    if wanted(seen[-1]):
                        return seen
            raise AssertionError("the watch ended")

        yield until  # type: ignore[misc]


def later(number: int) -> ServiceInstance:
    return ServiceInstance(f"later-{number}", "trans", "", {}, ())


async def test_a_killed_leader_costs_no_announcement(cluster: list[EtcdServer]) -> None:
    """Both ends talked to it. The watch tells of what comes after, and never of a loss."""
    members = await leader_first(cluster)
    async with (
        EtcdRegistry(options(members), ttl=TTL, patience=WITHIN) as registry,
        seen_by_another(members) as until,
    ):
        await registry.register(TRANS)
        await until(lambda ids: ids == ["host-1"])
        members[0].kill()
        await registry.register(later(1))
        seen = await until(lambda ids: "later-1" in ids)
        assert all("host-1" in ids for ids in seen), seen
        await members[0].start()
        await registry.register(later(2))
        seen = await until(lambda ids: "later-2" in ids)
        assert all({"host-1", "later-1"} <= set(ids) for ids in seen), seen


async def test_a_member_that_hangs_is_left_for_another(cluster: list[EtcdServer]) -> None:
    """A follower that both ends talk to is stopped: its connections stay open, nobody answers."""
    leader, *followers = await leader_first(cluster)
    frozen, other = followers
    members = [frozen, leader, other]
    async with (
        EtcdRegistry(options(members), ttl=TTL, patience=WITHIN) as registry,
        seen_by_another(members) as until,
    ):
        await registry.register(TRANS)
        await until(lambda ids: ids == ["host-1"])
        frozen.freeze()
        await registry.register(later(1))
        seen = await until(lambda ids: "later-1" in ids)
        async with EtcdClient(options([leader, other])) as client:
            # Longer than a lease lives: somebody renews it at the others.
            timer = await client.grant(TTL)
            await client.put("/timer", "", lease=timer.id)
            await eventually(lambda: client.get("/timer"), lambda item: item is None, within=WITHIN)
            assert await client.get(TRANS_KEY) is not None
        frozen.thaw()
        await registry.register(later(2))
        seen += await until(lambda ids: "later-2" in ids)
        assert all("host-1" in ids for ids in seen), seen


async def test_a_lost_majority_is_told_once_and_made_good(
    cluster: list[EtcdServer], lines: Lines
) -> None:
    """Two of three die: nothing can be written. With one of them back all is as before."""
    members = await leader_first(cluster)
    async with EtcdRegistry(options(members), ttl=TTL, patience=WITHIN) as registry:
        await registry.register(TRANS)
        members[0].kill()
        members[1].kill()

        async def log() -> list[str]:
            return lines()

        await eventually(log, lambda said: len(said) == 1, within=WITHIN)
        assert "interrupted: " in lines()[0]
        await members[1].start()
        await eventually(log, lambda said: len(said) == 2, within=WITHIN)
        assert "restored after " in lines()[1]

        async def found() -> list[ServiceInstance]:
            try:
                return await registry.get_service("trans")
            except EtcdError:
                return []

        await eventually(found, lambda instances: instances == [TRANS], within=WITHIN)
