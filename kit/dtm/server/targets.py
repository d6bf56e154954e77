"""Which branches may be called: nobody reaches through the coordinator what he could not reach.

A branch URL comes from a client. Before a call its scheme, its host and its addresses are checked;
a name is checked again by what it resolves to, when a connection is about to be made, since a name
may point anywhere. Unless a setting allows them, link-local addresses and those where clouds answer
questions about their machines are refused.

An address counts however it is spelt: ``0xA9FEA9FE``, ``0251.0376.0251.0376`` and
``[::ffff:169.254.169.254]`` are ``169.254.169.254``.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple, TypeAlias

from kit.dtm.wire import TOPIC_PREFIX

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host name and a port, gives addresses as text; raises OSError when there are none."""

DEFAULT_SCHEMES = (
    "grpc",
    "http",
    "https",
    "discovery",
    "etcd",
    "consul",
    "direct",
    "static",
    "passthrough",
    "dns",
)
"""``grpc`` stands for ``host:port`` without a scheme."""

DENIED_NETWORKS = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32")
"""Link-local, and the metadata services of clouds that are not."""

METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog"})
_METADATA_ADDRESS = "169.254.169.254"

_REGISTRY_SCHEMES = frozenset({"discovery", "etcd", "consul"})
_ENGINE_SCHEMES = ("dns", "unix", "unix-abstract", "ipv4", "ipv6", "vsock")
_HOST = re.compile(r"[a-z0-9_.\-]+|\[[0-9a-f:.]+(%[a-z0-9_.\-]+)?\]")
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")

_CHECKS_KEPT = 4_096

LOOKUP_THREADS = 64
"""Names that can be looked up at once: one that nobody answers for holds up no other."""


class TargetRefused(ValueError):
    """A branch must not be called; the message names the URL and the setting."""


class _Parts(NamedTuple):
    """What of a URL is looked at.

    Attributes:
        names: of services, which the registry resolves.
        hosts: in lower case, addresses of IPv6 without brackets.
    """

    scheme: str
    names: tuple[str, ...]
    hosts: tuple[str, ...]


class SystemLookup:
    """Names by the resolver of the machine, on threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of ``host``."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Start no further look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class Targets:
    """The rules; empty arguments mean the defaults.

    Args:
        schemes: that may be called, :data:`DEFAULT_SCHEMES`.
        allow_hosts: patterns, such as ``*.shop.internal``, of host names, addresses as they are
            written, and names of services; all by default.
        allow_networks: only addresses in these may be called, and these may even when the defaults
            deny them; by default all that are not denied.
        deny_networks: in addition to :data:`DENIED_NETWORKS`; they win over ``allow_networks``.

    Raises:
        ValueError: a network is none.
    """

    def __init__(
        self,
        *,
        schemes: Iterable[str] = (),
        allow_hosts: Iterable[str] = (),
        allow_networks: Iterable[str] = (),
        deny_networks: Iterable[str] = (),
    ) -> None:
        self._schemes = frozenset(scheme.lower() for scheme in schemes) or frozenset(
            DEFAULT_SCHEMES
        )
        self._allow_hosts = tuple(pattern.lower() for pattern in allow_hosts)
        self._allow = _networks("AllowNetworks", allow_networks)
        self._deny = _networks("DenyNetworks", deny_networks)
        self._deny_by_default = _networks("", DENIED_NETWORKS)
        # The rules never change and the same branches come again and again; what is refused is
        # looked at anew, since an exception is not kept.
        self._pass = lru_cache(_CHECKS_KEPT)(self._checked)

    def check(self, url: str) -> None:
        """Refuse what can be told to be forbidden without asking the network.

        Args:
            url: of a branch of any protocol, or the target of a gRPC client. Topics and empty URLs
                are not called and pass.

        Raises:
            TargetRefused: a ValueError; the message names the URL and the way out.
        """
        self._pass(url)

    def _checked(self, url: str) -> None:
        if url and not url.startswith(TOPIC_PREFIX):
            self._check(url, self._parts(url))

    def names_in(self, url: str) -> tuple[str, ...]:
        """Check ``url``, and give its hosts that say by their addresses only where they lead.

        Raises:
            TargetRefused: as ``check``.
        """
        parts = self._parts(url)
        self._check(url, parts)
        return tuple(host for host in parts.hosts if _literal(host) is None)

    def why_not(self, address: str) -> str:
        """What forbids a call to ``address``, an IP address as text; empty when nothing does."""
        literal = _literal(address)
        return "it is not an IP address" if literal is None else self._verdict(literal)

    def _parts(self, url: str) -> _Parts:
        parts = _split(url)
        if parts.scheme not in self._schemes:
            raise TargetRefused(
                f"'{url}' is refused: scheme {parts.scheme} is not among "
                f"{', '.join(sorted(self._schemes))}; see the setting Targets.Schemes"
            )
        return parts

    def _check(self, url: str, parts: _Parts) -> None:
        for host in (*parts.names, *parts.hosts):
            if self._allow_hosts and not any(fnmatchcase(host, p) for p in self._allow_hosts):
                raise TargetRefused(
                    f"'{url}' is refused: {host} matches none of the patterns of the setting "
                    "Targets.AllowHosts"
                )
        for host in parts.hosts:
            literal = _literal(host)
            if literal is not None and (why := self._verdict(literal)):
                raise TargetRefused(f"'{url}' is refused: {why}")

    def _verdict(self, address: Address) -> str:
        """Why ``address`` is refused; all addresses that it stands for have to pass."""
        for meant in _meanings(address):
            if _within(meant, self._deny):
                return f"{meant} is denied by the setting Targets.DenyNetworks"
            if _within(meant, self._allow):
                continue
            if _within(meant, self._deny_by_default):
                return (
                    f"{meant} is a link-local or metadata address; the setting "
                    "Targets.AllowNetworks can allow it"
                )
            if self._allow:
                return f"{meant} is in no network of the setting Targets.AllowNetworks"
        return ""


def _networks(key: str, texts: Iterable[str]) -> tuple[Network, ...]:
    found = []
    for text in texts:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError as exc:
            raise ValueError(
                f"Targets.{key}: {text!r} is no network; write for example 10.0.0.0/8"
            ) from exc
    return tuple(found)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _literal(host: str) -> Address | None:
    """The address that ``host`` spells, in any way that a resolver would take for one."""
    if host.rstrip(".") in METADATA_NAMES:
        return IPv4Address(_METADATA_ADDRESS)
    if ":" in host:
        try:
            return IPv6Address(host.partition("%")[0])
        except ValueError:
            return None
    try:
        # not ip_address: decimal, octal, hexadecimal and shortened forms are addresses as well
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def _meanings(address: Address) -> tuple[Address, ...]:
    """``address``, and the address where packets to it may arrive in truth."""
    if isinstance(address, IPv4Address):
        return (IPv4Address("127.0.0.1"), address) if address.is_unspecified else (address,)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is None and address in _COMPATIBLE and int(address) > 1:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is not None:
        # a mapped address is nothing but another spelling; the others are networks of their own
        return (inner,) if address.ipv4_mapped is not None else (inner, address)
    return (ip_address("::1"), address) if address.is_unspecified else (address,)


def _split(url: str) -> _Parts:
    """The parts of a branch URL, or of a gRPC target, that say where it leads.

    Raises:
        TargetRefused: a host cannot be read, so nobody can tell where it leads.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, separator, rest = url.partition(":")
        if scheme.lower() not in _ENGINE_SCHEMES:
            return _Parts("grpc", (), (_host(url, url.partition("/")[0]),))
        rest = "/" + rest
    scheme = scheme.lower()
    authority, _, path = rest.partition("/")
    if scheme in ("http", "https"):
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
        return _Parts(scheme, (), (_host(url, authority),))
    first = path.lstrip("/").partition("/")[0]
    if scheme in _REGISTRY_SCHEMES:
        return _Parts(scheme, (first.lower(),), ())  # whose registry is asked is a setting
    places = [place for place in (authority, *first.split(",")) if place]
    if scheme.startswith(("unix", "vsock")):
        return _Parts(scheme, (), ())
    return _Parts(scheme, (), tuple(_host(url, place) for place in places))


def _host(url: str, place: str) -> str:
    """The host of ``host:port``."""
    place = place.strip().lower()
    host = place
    if not place.endswith("]"):
        head, colon, port = place.rpartition(":")
        if colon and (not port or port.isdecimal()):
            host = head
    if not _HOST.fullmatch(host):
        raise TargetRefused(
            f"'{url}' is refused: {host!r} is no host; write a name in ASCII (xn--...), an address "
            "of IPv4, or one of IPv6 in brackets; see the setting Targets"
        )
    return host.strip("[]")
