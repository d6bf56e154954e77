"""The Redis store keeps the store contract, on one server and on a cluster, and through outages."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from kit.dtm.core.model import Transaction
from kit.dtm.store import GidExists, StoreUnavailable
from kit.dtm.store.redis.store import RedisStore
from kit.dtm.wire import Status, TransType
from kit.testing.redis import RedisServer, redis_address, redis_cluster, redis_server
from kit.testing.store import STORE_CHECKS, check_store
from tests.conformance.store.refusals import refused_in_time

TX = Transaction("g", TransType.MSG, Status.SUBMITTED, create_time=1, next_cron_time=2)


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    """A real Redis for one test that does it harm."""
    async with redis_server() as running:
        yield running


async def test_one_server_keeps_the_contract() -> None:
    """Each promise of kit.dtm.store.Store; a prefix each is a store each."""
    async with redis_address() as address:
        await check_store(
            lambda clock: RedisStore(address, clock=clock, prefix=f"{{{uuid4().hex}}}"),
            STORE_CHECKS,
        )


async def test_a_cluster_keeps_the_contract() -> None:
    """The prefixes fall to different nodes, so the link is sent on."""
    async with redis_cluster() as cluster:
        await check_store(
            lambda clock: RedisStore(cluster.address, clock=clock, prefix=f"{{{uuid4().hex}}}"),
            STORE_CHECKS,
        )


async def test_what_was_answered_survives_a_kill(server: RedisServer) -> None:
    """With appendfsync always; the store finds the server again by itself."""
    async with RedisStore(server.address) as store:
        assert store.weaknesses == ()
        await asyncio.gather(*(store.create(replace(TX, gid=f"g{n}")) for n in range(100)))
        server.kill()
        await refused_in_time(store.load("g1"))  # on the connection that is lost
        assert "is it running?" in (await refused_in_time(store.load("g1"))).message
        await server.start()
        for n in range(100):
            assert await store.load(f"g{n}") is not None


async def test_a_frozen_server_is_given_up_and_the_outcome_said_to_be_unknown(
    server: RedisServer,
) -> None:
    """What was sent may run later: asking again tells."""
    async with RedisStore(server.address) as store:
        server.freeze()
        assert "unknown" in (await refused_in_time(store.create(TX))).message
        await refused_in_time(store.load("g"))
        server.thaw()
        with pytest.raises(GidExists):
            await store.create(TX)


async def test_forgotten_scripts_are_loaded_again(server: RedisServer) -> None:
    """SCRIPT FLUSH by somebody else."""
    async with RedisStore(server.address) as store:
        await store.create(TX)
        await server.cli("SCRIPT", "FLUSH")
        assert await store.load("g") is not None


async def test_full_memory_refuses_all_of_a_write(server: RedisServer) -> None:
    """And says what to do."""
    async with RedisStore(server.address) as store:
        await store.create(TX)
        await server.cli("CONFIG", "SET", "maxmemory", "1")
        message = (await refused_in_time(store.create(replace(TX, gid="h")))).message
        assert "raise maxmemory" in message
        await server.cli("CONFIG", "SET", "maxmemory", "0")
        assert await store.load("h") is None
        await store.create(replace(TX, gid="h"))


async def test_a_replica_refuses_writes(server: RedisServer) -> None:
    """READONLY, and fine again once it is a master."""
    async with RedisStore(server.address) as store:
        await server.cli("CONFIG", "SET", "replica-serve-stale-data", "yes")
        await server.cli("REPLICAOF", "127.0.0.1", "1")
        assert "replica" in (await refused_in_time(store.create(TX))).message
        await server.cli("REPLICAOF", "NO", "ONE")
        assert await store.create(TX) == 1


async def test_weak_settings_are_told() -> None:
    """Each with its way out."""
    async with (
        redis_server(appendonly=False, maxmemory="100mb", maxmemory_policy="allkeys-lru") as weak,
        RedisStore(weak.address) as store,
    ):
        appendonly, policy = store.weaknesses
        assert "appendonly yes" in appendonly
        assert "noeviction" in policy


async def test_a_cluster_needs_a_hash_tag() -> None:
    """Known from the addresses, or from the server."""
    with pytest.raises(ValueError, match="hash tag"):
        RedisStore("a:1,b:2", prefix="dtm")
    async with redis_server(cluster_enabled="yes") as single:
        with pytest.raises((ValueError, StoreUnavailable), match=r"hash tag|CLUSTERDOWN"):
            await RedisStore(single.address, prefix="dtm").__aenter__()


async def test_a_password_is_sent_and_a_wrong_one_named() -> None:
    """AUTH."""
    async with redis_server(requirepass="secret") as guarded:
        async with RedisStore(guarded.address, password="secret") as store:
            assert await store.create(TX) == 1
        with pytest.raises(StoreUnavailable, match=r"Store\.Password"):
            await RedisStore(guarded.address, password="wrong").__aenter__()


async def test_a_slot_that_moved_is_followed_and_a_dead_node_given_up() -> None:
    """The link goes where it is sent; a cluster that lost the slot refuses within 3 seconds."""
    async with redis_cluster() as cluster, RedisStore(cluster.address, prefix="{a}") as store:
        assert await store.load("g") is None
        old = await cluster.node_of("{a}")
        new = next(node for node in cluster.nodes if node is not old)
        slot, name = await new.cli("CLUSTER", "KEYSLOT", "{a}"), await new.cli("CLUSTER", "MYID")
        for node in (new, old):
            await node.cli("CLUSTER", "SETSLOT", slot, "NODE", name)
        assert await store.create(TX) == 1
        new.kill()
        await refused_in_time(store.load("g"))
        await refused_in_time(store.load("g"))
        await new.start()
        async with asyncio.timeout(20):
            while not await _loaded(store):
                await asyncio.sleep(0.1)


async def _loaded(store: RedisStore) -> bool:
    try:
        return await store.load("g") is not None
    except StoreUnavailable:
        return False
