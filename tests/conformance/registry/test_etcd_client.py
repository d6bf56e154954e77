"""The etcd client against a real etcd."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kit.etcd import (
    EtcdClient,
    EtcdCompacted,
    EtcdLeaseNotFound,
    EtcdUnavailable,
    Event,
    absent,
    delete_step,
    follow,
    get_step,
    lease_is,
    put_step,
    value_is,
)
from kit.testing.etcd import EtcdServer

from .conftest import quick


async def take(batches: AsyncIterator[tuple[Event, ...]], count: int) -> list[Event]:
    """The next ``count`` events, in batches of whatever size."""
    events: list[Event] = []
    async with asyncio.timeout(30):
        while len(events) < count:
            events += await anext(batches)
    return events


async def test_keys_are_put_read_and_deleted(client: EtcdClient, etcd: EtcdServer) -> None:
    """Text and bytes, single keys and prefixes."""
    revision = await client.put("/kv/a", "1")
    await client.put(b"/kv/b\xff", b"\x00\xff")
    item = await client.get("/kv/a")
    assert item is not None
    assert (item.value, item.mod_revision, item.version) == (b"1", revision, 1)
    listing = await client.get_prefix("/kv/")
    assert [item.key for item in listing.items] == [b"/kv/a", b"/kv/b\xff"]
    assert listing.revision == revision + 1
    assert await client.delete("/kv/a")
    assert not await client.delete("/kv/a")
    assert await client.get("/kv/a") is None
    assert await client.delete_prefix("/kv/") == 1


async def test_transactions_do_one_of_two_things(client: EtcdClient, etcd: EtcdServer) -> None:
    """Conditions on value, lease and absence; reads tell what was there at that moment."""
    created = await client.txn([absent("/t")], [put_step("/t", "1")], [get_step("/t")])
    assert (created.succeeded, created.found) == (True, ())
    late = await client.txn([absent("/t")], [put_step("/t", "2")], [get_step("/t"), get_step("/u")])
    assert not late.succeeded
    item, missing = late.found
    assert item is not None
    assert item.value == b"1"
    assert missing is None
    both = [value_is("/t", "1"), lease_is("/t", 0)]
    assert (await client.txn(both, [delete_step("/t")])).succeeded
    assert not (await client.txn([value_is("/t", "")])).succeeded


async def test_a_lease_takes_its_keys_with_it(client: EtcdClient, etcd: EtcdServer) -> None:
    """Revoked or expired, it is not found afterwards, whatever is asked of it."""
    lease = await client.grant(100)
    await client.put("/l", "1", lease=lease.id)
    assert (await client.keep_alive(lease.id)).ttl == 100
    await client.revoke(lease.id)
    assert await client.get("/l") is None
    for call in (
        client.revoke(lease.id),
        client.keep_alive(lease.id),
        client.put("/l", "1", lease=lease.id),
    ):
        with pytest.raises(EtcdLeaseNotFound):
            await call


async def test_a_watch_tells_what_happened_since_a_revision(
    client: EtcdClient, etcd: EtcdServer
) -> None:
    """Puts and deletions in order, of the prefix and of nothing else."""
    before = await client.put("/w/a", "1")
    await client.put("/wx", "1")
    await client.delete("/w/a")
    async with client.watch("/w/", prefix=True, start_revision=before) as batches:
        await client.put("/w/b", "2")
        events = await take(batches, 3)
    assert [(event.item.key, event.item.value, event.deleted) for event in events] == [
        (b"/w/a", b"1", False),
        (b"/w/a", b"", True),
        (b"/w/b", b"2", False),
    ]


async def test_many_changes_are_seen_in_order(client: EtcdClient, etcd: EtcdServer) -> None:
    """Three hundred at once, none lost."""
    async with client.watch("/many/", prefix=True) as batches:
        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(client.put(f"/many/{number}", ""))
        events = await take(batches, 300)
    revisions = [event.item.mod_revision for event in events]
    assert revisions == sorted(set(revisions))


async def test_a_history_that_is_gone_is_an_error_and_no_silence(
    own_etcd: EtcdServer, client: EtcdClient
) -> None:
    """Compacted, or from a future that this server has not seen."""
    for _ in range(3):
        revision = await client.put("/c", "1")
    await client.compact(revision)
    for start in (1, revision + 100):
        with pytest.raises(EtcdCompacted):
            async with client.watch("/c", start_revision=start) as batches:
                await take(batches, 1)


async def test_one_key_is_followed(own_etcd: EtcdServer, client: EtcdClient) -> None:
    """Its neighbours are not, and a restart is no end."""
    states = follow(client, "/f")
    async with asyncio.timeout(60):
        assert await anext(states) == {}
        await client.put("/f", "1")
        assert [item.value for item in (await anext(states)).values()] == [b"1"]
        own_etcd.kill()
        await own_etcd.start()
        await client.put("/f/x", "3")
        await client.put("/f", "2")
        async for state in states:
            assert list(state) == [b"/f"]
            if state[b"/f"].value == b"2":
                break
    await states.aclose()


async def test_a_value_of_a_megabyte_travels(client: EtcdClient, etcd: EtcdServer) -> None:
    """And six of them in one answer, which is over gRPC's own limit of 4 MiB."""
    value = b"x" * (1 << 20)
    for number in range(6):
        await client.put(f"/big/{number}", value)
    listing = await client.get_prefix("/big/")
    assert [item.value == value for item in listing.items] == [True] * 6
    await client.delete_prefix("/big/")


async def test_closing_ends_calls_and_watches_with_an_error(own_etcd: EtcdServer) -> None:
    """Not with a CancelledError that nobody sent; later calls are refused, twice is fine."""
    client = EtcdClient(quick(own_etcd, timeout=30.0))
    await client.get("/a")

    standing = asyncio.Event()

    async def watching() -> None:
        async with client.watch("/a") as batches:
            standing.set()
            await anext(batches)

    watch = asyncio.create_task(watching())
    await standing.wait()
    own_etcd.freeze()
    call = asyncio.create_task(client.get("/a"))
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await client.aclose()
        await client.aclose()
        outcomes = await asyncio.gather(watch, call, return_exceptions=True)
    assert all(isinstance(outcome, EtcdUnavailable) for outcome in outcomes), outcomes
    with pytest.raises(EtcdUnavailable, match="closed"):
        await client.get("/a")


async def test_a_cancelled_call_leaves_with_its_cancellation(own_etcd: EtcdServer) -> None:
    """The caller's deadline is the caller's TimeoutError, and the client works on."""
    async with EtcdClient(quick(own_etcd, timeout=30.0, keepalive=10.0)) as client:
        await client.put("/a", "1")
        own_etcd.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.get("/a")
        own_etcd.thaw()
        assert await client.get("/a") is not None
