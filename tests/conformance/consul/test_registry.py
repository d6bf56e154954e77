"""The registry in a real Consul keeps the contract, and writes and reads what kratos does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.consul import ConsulClient, ConsulOptions
from kit.registry import Discovery, Registrar, RegistryUnavailable, ServiceInstance
from kit.registry.consul import Checks, ConsulRegistry
from kit.testing.consul import ConsulServer
from kit.testing.registry import REGISTRY_CHECKS, RegistryCheck, check_registry

from .conftest import eventually

Lines = Callable[[], list[str]]

TRANS = ServiceInstance(
    "host-1",
    "trans",
    "v1.0",
    {"weight": "10"},
    ("grpc://10.0.0.5:9000", "http://10.0.0.5:8000"),
)
UNLOOKED = Checks(health_check=False)
"""Nobody listens at the addresses of these tests, and Consul would notice."""


@pytest.mark.parametrize("check", REGISTRY_CHECKS, ids=lambda check: check.__name__)
async def test_consul_registry_keeps_the_contract(
    check: RegistryCheck, consul: ConsulServer
) -> None:
    """Each promise of kit.registry.Registrar and Discovery, between ends with nothing in common."""

    @asynccontextmanager
    async def both_ends() -> AsyncIterator[tuple[Registrar, Discovery]]:
        async with (
            ConsulRegistry(consul.address, checks=UNLOOKED) as one,
            ConsulRegistry(consul.address) as other,
        ):
            yield one, other

    await check_registry(both_ends, [check])


async def service(client: ConsulClient, key: str = "host-1") -> Any:
    return (await client.get("agent", "service", key)).value


async def checks_of(client: ConsulClient, key: str) -> dict[str, dict[str, Any]]:
    found = (await client.get("agent", "checks")).value
    return {name: check for name, check in found.items() if check["ServiceID"] == key}


async def test_service_and_checks_are_those_of_kratos(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """contrib/registry/consul/client.go, Register: id, tags, meta, addresses, checks."""
    async with ConsulRegistry(consul.address, tags=("blue",)) as registry:
        await registry.register(TRANS)
        found = await service(client)
        assert (found["ID"], found["Service"]) == ("host-1", "trans")
        assert found["Tags"] == ["version=v1.0", "blue"]
        assert found["Meta"] == {"weight": "10"}
        assert (found["Address"], found["Port"]) == ("10.0.0.5", 9000)
        addresses = {
            scheme: address
            for scheme, address in found["TaggedAddresses"].items()
            if not scheme.startswith(("lan_", "wan_"))
        }
        assert addresses == {
            "grpc": {"Address": "grpc://10.0.0.5:9000", "Port": 9000},
            "http": {"Address": "http://10.0.0.5:8000", "Port": 8000},
        }
        found = await checks_of(client, "host-1")
        assert found["service:host-1"]["Type"] == "ttl"
        tcp = [check["Definition"] | check for check in found.values() if check["Type"] == "tcp"]
        assert len(tcp) == 2
        assert {(check["Interval"], check["Timeout"]) for check in tcp} == {("10s", "5s")}
        await registry.deregister(TRANS)
        assert await service(client) is None
        assert await checks_of(client, "host-1") == {}


async def test_what_kratos_and_others_register_is_found(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """As kratos' reader understands it; a plain service of Consul is an http endpoint."""
    passing = {"TTL": "60s", "Status": "passing"}
    kratos = {
        "ID": "dtmservice",
        "Name": "dtmservice",
        "Tags": ["version="],
        "TaggedAddresses": {"grpc": {"Address": "grpc://localhost:36790", "Port": 36790}},
        "Address": "localhost",
        "Port": 36790,
        "Checks": [passing],
    }
    plain = {"ID": "web-1", "Name": "web", "Port": 80, "Check": passing}
    sick = {"ID": "web-2", "Name": "web", "Port": 81, "Check": {"TTL": "60s"}}
    for body in (kratos, plain, sick):
        await client.put("agent", "service", "register", body=body)
    async with ConsulRegistry(consul.address) as registry:
        wanted = {
            "dtmservice": ServiceInstance(
                "dtmservice", "dtmservice", "", {}, ("grpc://localhost:36790",)
            ),
            "web": ServiceInstance("web-1", "web", "", {}, ("http://127.0.0.1:80",)),
        }
        for name, instance in wanted.items():
            await eventually(
                lambda name=name: registry.get_service(name),  # type: ignore[misc]
                lambda found, instance=instance: found == [instance],  # type: ignore[misc]
            )
    for key in ("dtmservice", "web-1", "web-2"):
        await client.put("agent", "service", "deregister", key)


@pytest.mark.parametrize(
    "instance",
    [
        ServiceInstance("x", "odd", "v=1", {f"k{number}": "é" * 300 for number in range(99)}),
        ServiceInstance("x", "odd", "", {"": "a", "b c": "d\n"}, ("grpc://h:1", "grpc://h:2")),
        ServiceInstance("a/b?c#d", "odd", "", None, ("grpc://0.0.0.0:1", "nonsense", "x:1")),
        ServiceInstance("", "odd", "", {}, ("http://h:1", "grpc://[fd00::1]:2")),
    ],
    ids=["much metadata", "odd keys", "odd id and endpoints", "no id"],
)
async def test_what_consul_itself_would_refuse_or_lose_is_found(
    consul: ConsulServer, instance: ServiceInstance
) -> None:
    """More than it takes, and what its form has no place for."""
    async with ConsulRegistry(consul.address, checks=UNLOOKED) as registry:
        await registry.register(instance)
        assert await registry.get_service("odd") == [instance]
        await registry.deregister(instance)
        assert await registry.get_service("odd") == []


async def test_two_services_with_one_id_do_not_replace_each_other(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """The host name as id, as kratos' template has it, and two services on that host."""
    first, second = ServiceInstance("box", "first"), ServiceInstance("box", "second")
    async with ConsulRegistry(consul.address) as one, ConsulRegistry(consul.address) as other:
        await one.register(first)
        await other.register(second)
        assert await one.get_service("first") == [first]
        assert await one.get_service("second") == [second]
        assert (await service(client, "box"))["Service"] == "first"
        assert (await service(client, "second-box"))["Service"] == "second"
        await other.deregister(second)
        assert await one.get_service("first") == [first]
        assert await service(client, "second-box") is None


async def test_leaving_takes_everything_back(consul: ConsulServer, client: ConsulClient) -> None:
    """Who forgets to deregister is not announced on; watches end."""
    registry = ConsulRegistry(consul.address, checks=UNLOOKED)
    await registry.register(TRANS)
    async with registry.watch("trans") as lists:
        await anext(lists)
        await registry.aclose()
        await registry.aclose()
        assert [instances async for instances in lists] == []
    assert await service(client) is None


async def test_what_an_earlier_life_announced_can_be_taken_back(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """Only if it is the same."""
    async with (
        ConsulRegistry(consul.address, checks=UNLOOKED) as earlier,
        ConsulRegistry(consul.address) as registry,
    ):
        await earlier.register(TRANS)
        await registry.deregister(ServiceInstance("host-1", "trans", "another"))
        assert await service(client) is not None
        await registry.deregister(TRANS)
        assert await service(client) is None


async def test_an_instance_that_nobody_can_connect_to_is_found_no_more(
    consul: ConsulServer,
) -> None:
    """The check of the health: Consul connects to the endpoint."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    instance = ServiceInstance("p1", "probed", endpoints=(f"grpc://127.0.0.1:{port}",))
    checks = Checks(interval=1.0, timeout=1.0)
    async with ConsulRegistry(consul.address, checks=checks) as registry:
        await registry.register(instance)
        async with registry.watch("probed") as lists:
            assert await anext(lists) == [instance]
            server.close()
            await server.wait_closed()
            async with asyncio.timeout(20):
                assert await anext(lists) == []


async def test_an_instance_that_died_is_found_no_more(own_consul: ConsulServer) -> None:
    """The heartbeat: without it for a TTL the check fails."""
    registry = ConsulRegistry(own_consul.address, checks=Checks(ttl=1.0, health_check=False))
    async with ConsulRegistry(own_consul.address) as other, other.watch("trans") as lists:
        await registry.register(TRANS)
        async with asyncio.timeout(20):
            while await anext(lists) != [TRANS]:
                pass
            for registration in registry._registrations.values():
                registration._task.cancel()  # type: ignore[union-attr]  the process is gone
            while await anext(lists) != []:
                pass
    await registry.aclose()


@asynccontextmanager
async def quick(server: ConsulServer) -> AsyncIterator[ConsulRegistry]:
    """A registry that notices within a second what takes ten in the field."""
    options = ConsulOptions(server.address, timeout=1.0)
    checks = Checks(ttl=2.0, health_check=False)
    async with ConsulRegistry(options, checks=checks, patience=1.0) as registry:
        yield registry


async def heard(lines: Lines, *texts: str) -> None:
    """Wait until the log has one line for each of ``texts``, in this order, and no others."""

    async def look() -> list[str]:
        return lines()

    await eventually(look, lambda seen: len(seen) >= len(texts))
    assert all(text in line for text, line in zip(texts, lines(), strict=True)), lines()


async def until(lists: AsyncIterator[list[ServiceInstance]], *wanted: ServiceInstance) -> None:
    async with asyncio.timeout(30):
        while await anext(lists) != list(wanted):
            pass


async def test_a_deregistered_service_is_registered_again(
    own_consul: ConsulServer, client: ConsulClient, lines: Lines
) -> None:
    """Somebody's hand, or reaped while the machine slept; one log line each way."""
    async with quick(own_consul) as registry, registry.watch("trans") as lists:
        await registry.register(TRANS)
        await until(lists, TRANS)
        await client.put("agent", "service", "deregister", "host-1")
        await until(lists)
        await until(lists, TRANS)
        await heard(lines, "host-1 was deregistered; trying again", "restored after ")


async def test_a_check_that_was_removed_is_there_again(
    own_consul: ConsulServer, client: ConsulClient, lines: Lines
) -> None:
    """The service stands, but would be found for ever, whether it lives or not."""
    async with quick(own_consul) as registry:
        await registry.register(TRANS)
        await client.put("agent", "check", "deregister", "service:host-1")
        await eventually(
            lambda: checks_of(client, "host-1"), lambda found: "service:host-1" in found
        )
        await heard(lines, "the check of host-1 was removed; trying again", "restored after ")


async def test_a_registration_that_is_given_up_leaves_nothing(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """A program that is stopped while it registers: whatever reached the agent is taken back."""
    for turns in range(0, 60, 3):
        async with ConsulRegistry(consul.address, checks=UNLOOKED) as registry:
            registering = asyncio.ensure_future(registry.register(TRANS))
            for _ in range(turns):
                await asyncio.sleep(0)
            registering.cancel()
            await asyncio.wait([registering])
        assert await service(client) is None, turns


async def test_a_service_that_somebody_replaced_is_put_back_and_not_taken_from_them(
    own_consul: ConsulServer, client: ConsulClient, lines: Lines
) -> None:
    """Two processes with one id; the log asks for it. At the end theirs stays."""
    theirs = {"ID": "host-1", "Name": "trans", "Tags": ["version=theirs"]}
    async with quick(own_consul) as registry:
        await registry.register(TRANS)
        await client.put("agent", "service", "register", body=theirs)
        await eventually(lambda: service(client), lambda found: found["Tags"] == ["version=v1.0"])
        await heard(lines, "host-1 was overwritten; does another process use this id?", "restored")
        await client.put("agent", "service", "register", body=theirs)
        await registry.deregister(TRANS)
        assert (await service(client))["Tags"] == ["version=theirs"]


async def test_a_killed_consul_that_lost_its_data_is_filled_again(
    own_consul: ConsulServer, lines: Lines
) -> None:
    """Registration and watch outlive it, one log line each way; its indexes begin anew."""
    async with quick(own_consul) as registry, registry.watch("trans") as lists:
        await registry.register(TRANS)
        await until(lists, TRANS)
        own_consul.kill()
        own_consul.wipe()
        await heard(lines, "interrupted: ")
        await own_consul.start()
        later = ServiceInstance("host-2", "trans")

        async def both() -> list[ServiceInstance]:
            return await registry.get_service("trans")

        await eventually(both, lambda found: found == [TRANS])
        await heard(lines, "interrupted: ", "restored after ")
        await registry.register(later)
        await until(lists, TRANS, later)


async def test_a_hung_consul_is_noticed_and_found_again(
    own_consul: ConsulServer, lines: Lines
) -> None:
    """Under SIGSTOP connections stay open: only deadlines tell."""
    async with quick(own_consul) as registry, registry.watch("trans") as lists:
        await registry.register(TRANS)
        await until(lists, TRANS)
        own_consul.freeze()
        await heard(lines, "no answer in 1 s; trying again")
        with pytest.raises(RegistryUnavailable, match=f"consul at {own_consul.address}: no answer"):
            await registry.get_service("trans")
        own_consul.thaw()
        await heard(lines, "no answer in 1 s; trying again", "restored after ")
        later = ServiceInstance("host-2", "trans")
        await registry.register(later)
        await until(lists, TRANS, later)


async def test_registering_goes_on_when_consul_is_away_at_the_start(
    own_consul: ConsulServer, lines: Lines
) -> None:
    """The caller is told and serves meanwhile; the service comes with Consul."""
    own_consul.kill()
    async with quick(own_consul) as registry, registry.watch("trans") as lists:
        with pytest.raises(RegistryUnavailable, match=r"trans/host-1 is still being tried"):
            await registry.register(TRANS)
        await own_consul.start()
        await until(lists, TRANS)
        await heard(lines, "interrupted: ", "restored after ")


async def test_closing_without_consul_is_bounded_and_said(
    own_consul: ConsulServer, lines: Lines
) -> None:
    """The log says what becomes of the instance."""
    async with quick(own_consul) as registry:
        await registry.register(TRANS)
        own_consul.kill()
        async with asyncio.timeout(10):
            await registry.aclose()
        assert any("trans/host-1 ends with its checks: consul at" in line for line in lines())
        with pytest.raises(RegistryUnavailable, match="closed"):
            await registry.register(TRANS)
