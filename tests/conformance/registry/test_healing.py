"""Announcements and watches outlive whatever happens to etcd."""

import asyncio
from collections.abc import Callable

import pytest

from kit.etcd import EtcdClient
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.testing.etcd import EtcdServer

from .conftest import TRANS, TRANS_KEY, TRANS_VALUE, TTL, eventually, impatient, quick

Lines = Callable[[], list[str]]


async def standing(client: EtcdClient) -> int:
    """Wait until the key is there; the id of its lease."""
    item = await eventually(lambda: client.get(TRANS_KEY), bool)
    assert item is not None
    assert item.value == TRANS_VALUE
    return item.lease


async def heard(lines: Lines, *texts: str) -> None:
    """Wait until the log has one line for each of ``texts``, in this order, and no others."""

    async def look() -> list[str]:
        return lines()

    await eventually(look, lambda seen: len(seen) >= len(texts))
    assert all(text in line for text, line in zip(texts, lines(), strict=True)), lines()


async def test_a_lease_is_renewed(own_etcd: EtcdServer, client: EtcdClient, lines: Lines) -> None:
    """After several of its lives the key was never written again, and nothing was logged."""
    async with impatient(own_etcd) as registry:
        await registry.register(TRANS)
        before = await client.get(TRANS_KEY)
        assert before is not None
        expired = await client.grant(TTL)
        await client.put("/timer", "", lease=expired.id)
        await eventually(lambda: client.get("/timer"), lambda item: item is None)
        assert await client.get(TRANS_KEY) == before
    assert lines() == []


async def test_a_revoked_lease_is_replaced(
    own_etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """Key and value come back under a new lease, and watchers see it."""
    async with impatient(own_etcd) as registry, registry.watch("trans") as lists:
        assert await anext(lists) == []
        await registry.register(TRANS)
        assert await anext(lists) == [TRANS]
        lease = await standing(client)
        await client.revoke(lease)
        assert await anext(lists) == []
        assert await anext(lists) == [TRANS]
        assert await standing(client) != lease
        await heard(
            lines,
            "WARN msg=registry: registration of trans/host-1 interrupted: "
            f"etcd at {own_etcd.endpoint}: the lease expired or was revoked; trying again",
            "INFO msg=registry: registration of trans/host-1 restored after ",
        )


async def test_a_deleted_key_is_put_again(
    own_etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """Under the lease that still lives."""
    async with impatient(own_etcd) as registry:
        await registry.register(TRANS)
        lease = await standing(client)
        await client.delete(TRANS_KEY)
        assert await standing(client) == lease
        await heard(lines, f"{TRANS_KEY} was deleted; trying again", "restored after ")


async def test_an_overwritten_key_is_put_again(
    own_etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """Told as restored once it stood for a while: the other process may not give up either."""
    async with EtcdRegistry(quick(own_etcd), ttl=12) as registry:  # a while is four seconds
        await registry.register(TRANS)
        for _ in range(3):
            await client.put(TRANS_KEY, b"{}")
            await eventually(
                lambda: client.get(TRANS_KEY), lambda item: item is not None and item.lease != 0
            )
        await heard(
            lines, f"{TRANS_KEY} was overwritten; does another process use this id?", "restored"
        )


async def test_somebody_elses_key_is_not_taken_back(
    own_etcd: EtcdServer, client: EtcdClient
) -> None:
    """Deregistering deletes the key only while it is bound to our lease."""
    async with EtcdRegistry(own_etcd.endpoint) as registry:
        await registry.register(TRANS)
        await client.put(TRANS_KEY, b'{"id":"host-1","name":"trans","version":"theirs"}')
        await registry.deregister(TRANS)
        item = await client.get(TRANS_KEY)
        assert item is not None
        assert b"theirs" in item.value


async def test_a_killed_and_restarted_etcd_is_found_again(
    own_etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """The first change after the restart is seen, the key is there, one log line each way."""
    async with impatient(own_etcd) as registry, registry.watch("trans") as lists:
        await registry.register(TRANS)
        while await anext(lists) != [TRANS]:
            pass
        own_etcd.kill()
        await heard(lines, "interrupted: ")
        await own_etcd.start()
        await client.put("/microservices/trans/host-2", b'{"id":"host-2","name":"trans"}')
        async with asyncio.timeout(30):
            while [instance.id for instance in await anext(lists)] != ["host-1", "host-2"]:
                pass
        await standing(client)
        await heard(lines, "interrupted: ", "restored after ")


async def test_an_etcd_that_lost_its_data_is_filled_again(
    own_etcd: EtcdServer, client: EtcdClient
) -> None:
    """Its revisions begin anew, below those that were watched already."""
    async with impatient(own_etcd) as registry, registry.watch("trans") as lists:
        for number in range(20):
            await client.put("/noise", str(number))
        await registry.register(TRANS)
        while await anext(lists) != [TRANS]:
            pass
        own_etcd.kill()
        own_etcd.wipe()
        await own_etcd.start()
        await standing(client)
        gone = ServiceInstance("host-2", "trans")
        await registry.register(gone)
        async with asyncio.timeout(30):
            while await anext(lists) != [TRANS, gone]:
                pass


async def test_a_hung_etcd_is_noticed_and_found_again(
    own_etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """Under SIGSTOP connections stay open: only unanswered pings and deadlines tell."""
    async with impatient(own_etcd, timeout=2.0) as registry, registry.watch("trans") as lists:
        await registry.register(TRANS)
        while await anext(lists) != [TRANS]:
            pass
        own_etcd.freeze()
        await heard(lines, "interrupted: ")
        with pytest.raises(
            RegistryUnavailable,
            match=f"etcd at {own_etcd.endpoint}: (no answer|connection attempt timed out)",
        ):
            await registry.get_service("trans")
        own_etcd.thaw()
        await heard(lines, "interrupted: ", "restored after ")
        await standing(client)
        await client.put("/microservices/trans/host-2", b'{"id":"host-2","name":"trans"}')
        async with asyncio.timeout(30):
            while [instance.id for instance in await anext(lists)] != ["host-1", "host-2"]:
                pass


async def test_a_watch_survives_a_compaction_it_slept_through(
    own_etcd: EtcdServer, client: EtcdClient
) -> None:
    """While it was cut off, its data changed and the history was compacted: it lists anew."""
    async with EtcdRegistry(quick(own_etcd)) as registry, registry.watch("trans") as lists:
        await client.put("/microservices/trans/old", b'{"id":"old","name":"trans"}')
        while [instance.id for instance in await anext(lists)] != ["old"]:
            pass
        own_etcd.kill()
        await own_etcd.start()
        await client.delete("/microservices/trans/old")
        revision = await client.put("/microservices/trans/new", b'{"id":"new","name":"trans"}')
        await client.compact(revision)
        async with asyncio.timeout(30):
            while [instance.id for instance in await anext(lists)] != ["new"]:
                pass
        await client.delete("/microservices/trans/new")
        assert await anext(lists) == []


async def test_registering_goes_on_when_etcd_is_away_at_the_start(
    own_etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """The caller is told and serves meanwhile; the key comes with etcd, one log line each way."""
    own_etcd.kill()
    async with (
        impatient(own_etcd, timeout=2.0, patience=4.0) as registry,
        registry.watch("trans") as lists,
    ):
        with pytest.raises(RegistryUnavailable) as caught:
            await registry.register(TRANS)
        assert f"etcd at {own_etcd.endpoint}: " in caught.value.message
        assert "Connection refused" in caught.value.message
        assert f"{TRANS_KEY} is still being tried" in caught.value.message
        await own_etcd.start()
        async with asyncio.timeout(30):
            while await anext(lists) != [TRANS]:
                pass
        await standing(client)
        await heard(lines, "interrupted: ", "restored after ")


async def test_a_callers_deadline_leaves_the_announcement_being_tried(
    own_etcd: EtcdServer, client: EtcdClient
) -> None:
    """The caller gets its TimeoutError, etcd its key."""
    own_etcd.freeze()
    async with impatient(own_etcd) as registry:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await registry.register(TRANS)
        own_etcd.thaw()
        await standing(client)


async def test_what_is_announced_can_change_while_etcd_is_away(
    own_etcd: EtcdServer, client: EtcdClient
) -> None:
    """What comes back is the last that was said; what was taken back meanwhile stays away."""
    later = ServiceInstance("host-1", "trans", "v2")
    withdrawn = ServiceInstance("host-2", "trans")
    async with impatient(own_etcd, timeout=2.0, patience=4.0) as registry:
        await registry.register(TRANS)
        own_etcd.kill()
        for instance in (withdrawn, later):
            with pytest.raises(RegistryUnavailable):
                await registry.register(instance)
        await registry.deregister(withdrawn)
        with pytest.raises(RegistryUnavailable, match=f"{TRANS_KEY} ends with its lease"):
            await registry.deregister(TRANS)
        with pytest.raises(RegistryUnavailable):
            await registry.register(later)
        await own_etcd.start()
        await eventually(
            lambda: client.get(TRANS_KEY), lambda item: item is not None and b"v2" in item.value
        )
        assert await registry.get_service("trans") == [later]


async def test_closing_without_etcd_is_bounded_and_said(own_etcd: EtcdServer, lines: Lines) -> None:
    """Nobody waits for an etcd that is away; the log says what becomes of the key."""
    registry = impatient(own_etcd, timeout=2.0)
    await registry.register(TRANS)
    own_etcd.kill()
    async with asyncio.timeout(30):
        await registry.aclose()
    assert any(f"{TRANS_KEY} ends with its lease: etcd at" in line for line in lines())
    with pytest.raises(RegistryUnavailable, match="closed"):
        await registry.register(TRANS)
