"""Names as services."""

import asyncio
import socket
from collections.abc import Callable, Sequence

import pytest

from kit.registry import RegistryUnavailable, ServiceInstance
from kit.testing import ManualClock
from kit.transport.dns import LOOKUP_EVERY_S, DnsDiscovery
from kit.transport.http import HttpClient


class Names:
    """A DNS of one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.addresses


def instance(address: str) -> ServiceInstance:
    return ServiceInstance(address, "trans:9000", endpoints=(f"grpc://{address}",))


async def test_every_address_is_an_instance() -> None:
    """Once each, in an order that does not change; IPv6 in brackets."""
    names = Names("10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.2")
    discovery = DnsDiscovery("grpc", lookup=names)
    assert await discovery.get_service("trans:9000") == [
        instance("10.0.0.1:9000"),
        instance("10.0.0.2:9000"),
        instance("[fd00::1]:9000"),
    ]
    assert names.asked == [("trans", 9000)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_new_addresses_are_seen_and_a_failing_lookup_takes_none_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One log line when lookups begin to fail, one when they work again."""
    clock, names = ManualClock(), Names("10.0.0.1")
    discovery = DnsDiscovery("grpc", lookup=names, clock=clock)
    async with discovery.watch("trans:9000") as lists:
        assert await anext(lists) == [instance("10.0.0.1:9000")]
        waiting = asyncio.ensure_future(anext(lists))  # type: ignore[arg-type]
        for _ in range(3):
            names.addresses = ()
            seen = len(names.asked)
            clock.advance(LOOKUP_EVERY_S)
            await until(lambda seen=seen: len(names.asked) > seen)  # type: ignore[misc]
        assert not waiting.done()
        assert str(discovery) == "DNS (trans: Name or service not known)"
        names.addresses = ("10.0.0.1", "10.0.0.2")
        seen = len(names.asked)
        clock.advance(LOOKUP_EVERY_S)
        await until(lambda: len(names.asked) > seen)
        assert await waiting == [instance("10.0.0.1:9000"), instance("10.0.0.2:9000")]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, lines
    assert "dns: lookup of trans:9000 interrupted: trans: Name or service not known" in lines[0]
    assert "dns: lookup of trans:9000 restored" in lines[1]


async def test_who_asks_once_is_told() -> None:
    """The name is in the error."""
    with pytest.raises(RegistryUnavailable, match="trans: Name or service not known"):
        await DnsDiscovery("grpc", lookup=Names()).get_service("trans:9000")


@pytest.mark.parametrize("endpoint", ["unix:/run/x.sock", "ipv4:10.0.0.1:80"])
def test_an_http_client_refuses_what_only_grpc_understands(endpoint: str) -> None:
    with pytest.raises(ValueError, match="only gRPC clients understand it; write host:port"):
        HttpClient(endpoint)
