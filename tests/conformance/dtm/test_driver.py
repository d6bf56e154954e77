"""The kratos driver: how the coordinator is found, and how it finds branches.

Source: dtm-labs/dtmdriver-kratos driver.go, go-kratos/kratos contrib/registry/etcd.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from kit.consul import ConsulClient
from kit.etcd import EtcdClient
from kit.ports import free_port
from kit.testing.consul import ConsulServer, consul_server
from kit.testing.etcd import EtcdServer, etcd_server
from tests.conformance.dtm.business import Business, grpc_branches
from tests.conformance.dtm.clients import Tx, unique
from tests.conformance.dtm.coordinators import Coordinator, Coordinators, accepted, ours
from tests.engines import ENGINES, speaking

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def etcd() -> AsyncIterator[EtcdServer]:
    ours()
    async with etcd_server() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def keys(etcd: EtcdServer) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(etcd.endpoint) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=ENGINES)
async def announced(
    request: pytest.FixtureRequest, etcd: EtcdServer, deployed: Coordinators
) -> AsyncIterator[Coordinator]:
    """A coordinator that is registered."""
    with speaking(request.param):
        coordinator = await start(deployed, etcd)
    yield coordinator
    assert coordinator.process is not None
    await coordinator.process.stop()


async def start(
    deployed: Coordinators, etcd: EtcdServer, scheme: str = "discovery", name: str = "dtmservice"
) -> Coordinator:
    grpc_port, http_port = free_port(), free_port()
    return await deployed.start(
        GrpcPort=grpc_port,
        HttpPort=http_port,
        MicroService={
            "Driver": "dtm-driver-kratos",
            "Target": f"{scheme}://{etcd.endpoint}/{name}",
            "EndPoint": f"http://127.0.0.1:{http_port},grpc://127.0.0.1:{grpc_port}",
        },
    )


async def listed(keys: EtcdClient, name: str, number: int) -> dict[str, bytes]:
    """Keys and values of a service, once there are ``number`` of them."""
    async with asyncio.timeout(60):
        while True:
            items = (await keys.get_prefix(f"/microservices/{name}/")).items
            if len(items) == number:
                return {item.key.decode(): item.value for item in items}
            await asyncio.sleep(0.02)


async def test_row_63_coordinator_stands_in_etcd_as_kratos_writes_it(
    announced: Coordinator, keys: EtcdClient
) -> None:
    """Key, value byte for byte, and a lease."""
    ((key, value),) = (await listed(keys, "dtmservice", 1)).items()
    prefix, _, instance = key.rpartition("/")
    assert prefix == "/microservices/dtmservice"
    assert str(uuid.UUID(instance)) == instance
    ports = announced.settings
    assert value.decode() == (
        f'{{"id":"{instance}","name":"dtmservice","version":"","metadata":null,'
        f'"endpoints":["http://127.0.0.1:{ports["HttpPort"]}",'
        f'"grpc://127.0.0.1:{ports["GrpcPort"]}"]}}'
    )
    found = await keys.get(key)
    assert found is not None
    assert found.lease > 0


@pytest.mark.usefixtures("engine")
async def test_row_63_killed_coordinator_leaves_its_record_to_a_lease_of_15_seconds(
    deployed: Coordinators, etcd: EtcdServer, keys: EtcdClient
) -> None:
    """A stopped one takes its record back at once. Both schemes register."""
    killed = await start(deployed, etcd, scheme="etcd", name="dtmkilled")
    stopped = await start(deployed, etcd, scheme="discovery", name="dtmstopped")
    await listed(keys, "dtmstopped", 1)
    assert stopped.process is not None
    await stopped.process.stop()
    assert await listed(keys, "dtmstopped", 0) == {}

    ((key, _),) = (await listed(keys, "dtmkilled", 1)).items()
    assert killed.process is not None
    await killed.process.kill()
    found = await keys.get(key)
    assert found is not None
    assert (await keys.keep_alive(found.lease)).ttl == 15
    await keys.revoke(found.lease)  # what etcd does when the time is over
    assert await keys.get(key) is None


async def announce(keys: EtcdClient, name: str, address: str) -> str:
    """Register a service as a kratos one would; give the key."""
    instance = str(uuid.uuid4())
    value = {
        "id": instance,
        "name": name,
        "version": "v1",
        "metadata": {},
        "endpoints": [f"http://{address}", f"grpc://{address}?isSecure=false"],
    }
    key = f"/microservices/{name}/{instance}"
    await keys.put(key, json.dumps(value))
    return key


@pytest.mark.parametrize("authority", ["", "127.0.0.1:1"], ids=["without", "with another"])
async def test_row_64_branches_by_service_name_are_spread_over_its_instances(
    announced: Coordinator, keys: EtcdClient, authority: str
) -> None:
    """The authority of the URL is ignored."""
    name = unique("busi")
    one, two = Business(), Business()
    async with grpc_branches(one) as first, grpc_branches(two) as second:
        for address in (first, second):
            await announce(keys, name, address)
        gid = unique("named")
        url = f"discovery://{authority}/{name}/api.trans.v1.Trans/TransIn"
        steps = [{"action": url}] * CALLS
        accepted(await announced.grpc.submit(Tx(gid, "msg", steps, options={"wait_result": True})))
        counts = [len(business.calls(gid)) for business in (one, two)]
        assert sum(counts) == CALLS
        assert min(counts) >= CALLS * 0.3, counts
        assert one.calls(gid)[0].path == "/api.trans.v1.Trans/TransIn"


async def test_row_64_instance_that_left_is_called_no_more(
    announced: Coordinator, keys: EtcdClient
) -> None:
    """The registry is watched."""
    name = unique("busi")
    one, two = Business(), Business()
    async with grpc_branches(one) as first, grpc_branches(two) as second:
        leaving = await announce(keys, name, first)
        await announce(keys, name, second)

        async def spread() -> list[int]:
            gid = unique("named")
            steps = [{"action": f"discovery:///{name}/api.trans.v1.Trans/TransIn"}] * 6
            tx = Tx(gid, "msg", steps, options={"wait_result": True})
            accepted(await announced.grpc.submit(tx))
            return [len(business.calls(gid)) for business in (one, two)]

        assert min(await spread()) > 0
        await keys.delete(leaving)
        async with asyncio.timeout(60):
            while await spread() != [0, 6]:
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def consul() -> AsyncIterator[ConsulServer]:
    ours()
    async with consul_server() as server:
        yield server


@pytest.mark.usefixtures("engine")
async def test_row_65_coordinator_stands_in_consul_and_finds_branches_there(
    deployed: Coordinators, consul: ConsulServer
) -> None:
    """With the catalog's form of kratos, an id of its own, and gone when it stops."""
    grpc_port, http_port = free_port(), free_port()
    coordinator = await deployed.start(
        GrpcPort=grpc_port,
        HttpPort=http_port,
        MicroService={
            "Driver": "dtm-driver-kratos",
            "Target": f"consul://{consul.address}/dtmservice",
            "EndPoint": f"grpc://127.0.0.1:{grpc_port}",
        },
    )

    async with ConsulClient(consul.address) as catalog:

        async def listed(number: int) -> list[dict[str, Any]]:
            async with asyncio.timeout(60):
                while True:
                    found = await catalog.get("health", "service", "dtmservice")
                    if len(found.value) == number:
                        return [entry["Service"] for entry in found.value]
                    await asyncio.sleep(0.02)

        (service,) = await listed(1)
        assert str(uuid.UUID(service["ID"])) == service["ID"]
        assert service["Tags"][0] == "version="
        assert service["TaggedAddresses"]["grpc"] == {
            "Address": f"grpc://127.0.0.1:{grpc_port}",
            "Port": grpc_port,
        }

        name = unique("busi")
        business = Business()
        async with grpc_branches(business) as address:
            port = int(address.rpartition(":")[2])
            as_kratos = {
                "ID": name,
                "Name": name,
                "Address": "127.0.0.1",
                "Port": port,
                "TaggedAddresses": {"grpc": {"Address": f"grpc://{address}", "Port": port}},
            }
            await catalog.put("agent", "service", "register", body=as_kratos)
            gid = unique("named")
            steps = [
                {"action": f"{scheme}/{name}/api.trans.v1.Trans/TransIn"}
                for scheme in ("discovery://", f"consul://{consul.address}")
            ]
            tx = Tx(gid, "msg", steps, options={"wait_result": True})
            accepted(await coordinator.grpc.submit(tx))
            assert len(business.calls(gid)) == 2
        assert coordinator.process is not None
        await coordinator.process.stop()
        assert await listed(0) == []


async def test_row_65_two_agents_are_refused_at_the_start(deployed: Coordinators) -> None:
    """An agent is local; the message says so."""
    ours()
    settings = {
        "MicroService": {
            "Driver": "dtm-driver-kratos",
            "Target": "consul://h1:8500,h2:8500/dtmservice",
            "EndPoint": "grpc://127.0.0.1:36790",
        }
    }
    process = await deployed.launch(settings, deployed.folder())
    assert await process.ended() == 2
    assert "MicroService.Target: consul address 'h1:8500,h2:8500': name one" in process.output


@pytest.mark.parametrize("form", ["{address}/busi.Busi/out", "direct:///{address}/busi.Busi/out"])
async def test_row_66_without_a_target_branches_are_called_by_address(
    tm: Coordinator, form: str
) -> None:
    """Bare and ``direct:///``."""
    gid = tm.gid()
    url = form.format(address=tm.business.grpc_address)
    tx = Tx(gid, "msg", [{"action": url}], options={"wait_result": True})
    accepted(await tm.grpc.submit(tx))
    (call,) = tm.business.calls(gid)
    assert call.path == "/busi.Busi/out"


@pytest.mark.usefixtures("engine")
async def test_row_66_default_driver_knows_addresses_alone(deployed: Coordinators) -> None:
    """A scheme can never be called there, and is not stored."""
    ours()
    tm = await deployed.start(MicroService={"Driver": "default"})
    gid = unique("plain")
    wait = {"wait_result": True}
    accepted(await tm.grpc.submit(Tx(gid, "msg", [{"action": tm.grpc.url("out")}], options=wait)))
    reply = await tm.grpc.submit(
        Tx(unique("scheme"), "msg", [{"action": "discovery:///busi/a.B/C"}], options=wait)
    )
    assert reply.word in ("INVALID", "ERROR")
    assert "discovery:///busi/a.B/C" in reply.text
    assert tm.process is not None
    await tm.process.stop()
