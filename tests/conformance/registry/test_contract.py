"""The registry in a real etcd keeps the contract, and writes and reads what kratos does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from kit.etcd import EtcdClient
from kit.registry import Discovery, Registrar, ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.testing.etcd import EtcdServer
from kit.testing.registry import REGISTRY_CHECKS, RegistryCheck, check_registry

from .conftest import TRANS, TRANS_KEY, TRANS_VALUE

Lines = Callable[[], list[str]]


@pytest.mark.parametrize("check", REGISTRY_CHECKS, ids=lambda check: check.__name__)
async def test_etcd_registry_keeps_the_contract(check: RegistryCheck, etcd: EtcdServer) -> None:
    """Each promise of kit.registry.Registrar and Discovery, between ends with nothing in common."""

    @asynccontextmanager
    async def both_ends() -> AsyncIterator[tuple[Registrar, Discovery]]:
        async with EtcdRegistry(etcd.endpoint) as one, EtcdRegistry(etcd.endpoint) as other:
            yield one, other

    await check_registry(both_ends, [check])


async def test_key_value_and_lease_are_those_of_kratos(
    etcd: EtcdServer, client: EtcdClient
) -> None:
    """Key <namespace>/<name>/<id>, Go's JSON, a lease of 15 s; gone at once when deregistered."""
    async with EtcdRegistry(etcd.endpoint) as registry:
        await registry.register(TRANS)
        item = await client.get(TRANS_KEY)
        assert item is not None
        assert item.value == TRANS_VALUE
        assert (await client.keep_alive(item.lease)).ttl == 15
        await registry.deregister(TRANS)
        assert await client.get(TRANS_KEY) is None


async def test_the_lease_ends_with_the_registration(etcd: EtcdServer, client: EtcdClient) -> None:
    """kratos leaves it to expire; here it is revoked, so that etcd keeps nothing of us."""
    async with EtcdRegistry(etcd.endpoint) as registry:
        await registry.register(TRANS)
        item = await client.get(TRANS_KEY)
        assert item is not None
        await registry.deregister(TRANS)
        leases = await etcd.ctl("lease", "list")
        assert f"{item.lease:x}" not in leases


async def test_another_namespace_is_another_registry(etcd: EtcdServer, client: EtcdClient) -> None:
    """With or without a slash at its end."""
    async with (
        EtcdRegistry(etcd.endpoint, namespace="/staging/") as staging,
        EtcdRegistry(etcd.endpoint) as production,
    ):
        await staging.register(TRANS)
        assert await client.get("/staging/trans/host-1") is not None
        assert await production.get_service("trans") == []


async def test_what_kratos_and_the_dtm_driver_write_is_found(
    etcd: EtcdServer, client: EtcdClient
) -> None:
    """dtm-driver-kratos 0.0.10 leaves the id out of the key; others write null for no endpoints."""
    await client.put(
        "/microservices/dtmservice/",
        b'{"id":"","name":"dtmservice","version":"","metadata":null,'
        b'"endpoints":["grpc://localhost:36790"]}',
    )
    await client.put(
        "/microservices/dtmservice/u1", b'{"Id":"u1","name":"dtmservice","endpoints":null}'
    )
    async with EtcdRegistry(etcd.endpoint) as registry:
        assert await registry.get_service("dtmservice") == [
            ServiceInstance("", "dtmservice", "", None, ("grpc://localhost:36790",)),
            ServiceInstance("u1", "dtmservice", "", None),
        ]


async def test_a_bad_value_hides_no_others_and_is_logged_once(
    etcd: EtcdServer, client: EtcdClient, lines: Lines
) -> None:
    """In kratos one bad value fails the whole read (contrib/registry/etcd, GetService)."""
    good = ServiceInstance("2", "spoiled")
    async with EtcdRegistry(etcd.endpoint) as registry:
        await registry.register(good)
        await client.put("/microservices/spoiled/1", b"{")
        async with registry.watch("spoiled") as lists:
            assert await anext(lists) == [good]
            assert await registry.get_service("spoiled") == [good]
            assert await registry.get_service("spoiled") == [good]
            named = [line for line in lines() if "/microservices/spoiled/1 is left out" in line]
            assert len(named) == 1
            await client.put("/microservices/spoiled/1", b'{"id":"1","name":"spoiled"}')
            mended = ServiceInstance("1", "spoiled", metadata=None)
            assert await anext(lists) == [mended, good]


async def test_the_name_inside_the_value_decides(etcd: EtcdServer, client: EtcdClient) -> None:
    """As in kratos: a value that names another service is none of ours."""
    await client.put("/microservices/alias/1", b'{"id":"1","name":"Alias"}')
    await client.put("/microservices/alias/2", b'{"id":"2","name":"alias","metadata":{}}')
    async with EtcdRegistry(etcd.endpoint) as registry:
        assert await registry.get_service("alias") == [ServiceInstance("2", "alias")]


async def test_leaving_takes_everything_back(etcd: EtcdServer, client: EtcdClient) -> None:
    """Who forgets to deregister is not announced for another 15 s; watches end."""
    registry = EtcdRegistry(etcd.endpoint)
    await registry.register(TRANS)
    async with registry.watch("trans") as lists:
        await anext(lists)
        await registry.aclose()
        await registry.aclose()
        assert [instances async for instances in lists] == []
    assert await client.get(TRANS_KEY) is None


async def test_what_an_earlier_life_announced_can_be_taken_back(
    etcd: EtcdServer, client: EtcdClient
) -> None:
    """Deregistering what this object never registered deletes the key if the value is the same."""
    await client.put(TRANS_KEY, TRANS_VALUE)
    other_key = "/microservices/trans/host-2"
    await client.put(other_key, TRANS_VALUE)
    async with EtcdRegistry(etcd.endpoint) as registry:
        await registry.deregister(TRANS)
        await registry.deregister(ServiceInstance("host-2", "trans"))
    assert await client.get(TRANS_KEY) is None
    assert await client.get(other_key) is not None
    await client.delete(other_key)
