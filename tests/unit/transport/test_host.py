"""Addresses to listen on and hosts to announce; kratos-wire §2.3, form of 2.5.4 and later."""

import ipaddress

import pytest

from kit.transport.host import (
    ListenAddress,
    _choose,
    _interface_addresses,
    announced_host,
    join_host_port,
)


@pytest.mark.parametrize(
    ("text", "host", "port", "wildcard"),
    [
        (":0", "", 0, True),
        ("0.0.0.0:9000", "0.0.0.0", 9000, True),
        ("[::]:9000", "::", 9000, True),
        ("[::1]:9000", "::1", 9000, False),
        ("localhost:9000", "localhost", 9000, False),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, *, wildcard: bool) -> None:
    address = ListenAddress.parse(text)
    assert (address.host, address.port, address.wildcard) == (host, port, wildcard)


def test_a_name_is_bound_by_its_first_ipv4_address() -> None:
    assert ListenAddress.parse("localhost:9000").resolve() == "127.0.0.1"
    assert ListenAddress.parse("[::1]:9000").resolve() == "::1"


def test_a_name_nobody_knows_is_an_os_error_that_names_it() -> None:
    with pytest.raises(OSError, match=r"cannot listen on nowhere\.invalid:9000: "):
        ListenAddress.parse("nowhere.invalid:9000").resolve()


def test_ipv6_is_bracketed() -> None:
    assert join_host_port("fd00::2", 9000) == "[fd00::2]:9000"
    assert join_host_port("10.0.0.5", 9000) == "10.0.0.5:9000"


@pytest.mark.parametrize("host", ["localhost", "trans.example", "127.0.0.1", "::1"])
def test_a_configured_host_is_announced_as_written(host: str) -> None:
    assert announced_host(host) == host


@pytest.mark.parametrize(
    ("interfaces", "chosen"),
    [
        ([["127.0.0.1", "::1"], ["192.168.1.4"], ["10.0.0.5"]], "192.168.1.4"),
        ([["127.0.0.1"], ["fd00::2", "10.0.0.5", "10.0.0.6"]], "10.0.0.5"),
        ([["169.254.3.4", "fe80::1"], ["100.64.0.1"]], "100.64.0.1"),
        ([["fd00::2", "2001:db8::7", "fe80::1"], ["10.0.0.5"]], "2001:db8::7"),
        ([["127.0.0.1", "::1"], ["fe80::1"], ["224.0.0.1"]], None),
        ([], None),
    ],
)
def test_the_first_interface_with_a_usable_address_wins(
    interfaces: list[list[str]], chosen: str | None
) -> None:
    """Inside it the first IPv4 address, or else the last IPv6 one."""
    parsed = [[ipaddress.ip_address(text) for text in texts] for texts in interfaces]
    assert _choose(parsed) == chosen


def test_the_interfaces_of_this_machine_are_found() -> None:
    found = [str(address) for addresses in _interface_addresses() for address in addresses]
    assert "127.0.0.1" in found
    assert announced_host("0.0.0.0") == announced_host("::") != "0.0.0.0"
