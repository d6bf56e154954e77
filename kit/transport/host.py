"""Where a server listens, how that reads in a log, and which host others are told.

Source: go-kratos/kratos internal/host/host.go, the form of 2.5.4 and later.
"""

import array
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (compared, not bound)

# Linux: <linux/sockios.h>, <net/if.h>.
_SIOCGIFCONF, _SIOCGIFFLAGS, _IFF_UP = 0x8912, 0x8913, 1
_IFREQ_BYTES = struct.calcsize("16sP") + 16  # struct ifreq: a name and the largest union member
_MOST_ADDRESSES = 1024

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """An address as configured.

    Attributes:
        host: as written, without brackets; empty for none.
        port: 0 lets the system choose.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Read ``host:port``, ``:port`` or ``[v6]:port``.

        Raises:
            ValueError: the text is none of these.

        >>> ListenAddress.parse("[::1]:9000")
        ListenAddress(host='::1', port=9000)
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host) != bracketed:
            raise ValueError(
                f"address {text!r} is not host:port; write for example 0.0.0.0:9000, :9000 or "
                "[::1]:9000"
            )
        return cls(host.strip("[]") if bracketed else host, int(port))

    @property
    def wildcard(self) -> bool:
        """Whether every interface is meant."""
        return self.host in _WILDCARDS

    def resolve(self) -> str:
        """The one IP address to bind.

        A wildcard is ``::``, one socket for IPv4 and IPv6 as in Go, unless the kernel has no IPv6.
        Of a name's addresses the first IPv4 one is taken, as Go does.

        Raises:
            OSError: the name is not known.
        """
        if self.wildcard:
            return "::" if _kernel_has_ipv6() else "0.0.0.0"  # noqa: S104  (asked for)
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as exc:
            raise OSError(
                exc.errno,
                f"cannot listen on {join_host_port(self.host, self.port)}: {exc.strerror}",
            ) from exc
        found.sort(key=lambda info: info[0] != socket.AF_INET)
        return str(found[0][4][0])


def join_host_port(host: str, port: int) -> str:
    """``host:port``, with brackets around IPv6.

    >>> join_host_port("::", 9000)
    '[::]:9000'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def announced_host(configured: str) -> str | None:
    """The host that peers can reach: ``configured`` as written, or one of this machine's addresses.

    For a wildcard the interfaces that are up are walked by index; the first one with a usable
    address wins, there the first IPv4 address, or else the last IPv6 one. Loopback, link-local and
    multicast addresses are not usable.

    Returns:
        ``None`` when the machine has no usable address.
    """
    if configured not in _WILDCARDS:
        return configured
    return _choose(_interface_addresses())


def _choose(interfaces: Iterable[Iterable[IPAddress]]) -> str | None:
    for addresses in interfaces:
        usable = [address for address in addresses if _usable(address)]
        v4 = [address for address in usable if address.version == 4]
        if usable:
            return str(v4[0] if v4 else usable[-1])
    return None


def _usable(address: IPAddress) -> bool:
    """Global unicast in Go's sense, in which private networks are included."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == ipaddress.IPv4Address("255.255.255.255")
    )


def _interface_addresses() -> list[list[IPAddress]]:
    """The addresses of the interfaces that are up, by interface index.

    Linux tells by ioctl and /proc, without a package or a process. Elsewhere the kernel is asked
    which address it would send from; nothing is sent.
    """
    if sys.platform != "linux":
        return [_outgoing_address()]
    by_index: dict[int, list[IPAddress]] = {}
    up = {name: index for index, name in socket.if_nameindex() if _is_up(name)}
    for name, v4 in _linux_ipv4():
        if name in up:
            by_index.setdefault(up[name], []).append(v4)
    for name, v6 in _linux_ipv6():
        if name in up:
            by_index.setdefault(up[name], []).append(v6)
    return [by_index[index] for index in sorted(by_index)]


def _is_up(name: str) -> bool:
    request = struct.pack("16sH14x8x", name.encode(), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        except OSError:  # it went away between the list and the question
            return False
    return bool(struct.unpack_from("16sH", answer)[1] & _IFF_UP)


def _linux_ipv4() -> list[tuple[str, IPAddress]]:
    space = array.array("B", bytes(_MOST_ADDRESSES * _IFREQ_BYTES))
    where, _ = space.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, _SIOCGIFCONF, struct.pack("iP", len(space), where))
    filled = struct.unpack("iP", answer)[0]
    found: list[tuple[str, IPAddress]] = []
    for start in range(0, filled, _IFREQ_BYTES):
        entry = space[start : start + _IFREQ_BYTES].tobytes()
        name = entry[:16].split(b"\0", 1)[0].decode()
        found.append((name.split(":")[0], ipaddress.IPv4Address(entry[20:24])))
    return found


def _linux_ipv6() -> list[tuple[str, IPAddress]]:
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []
    fields = [line.split() for line in lines]
    return [(field[5], ipaddress.IPv6Address(bytes.fromhex(field[0]))) for field in fields]


def _outgoing_address() -> list[IPAddress]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [ipaddress.ip_address(sock.getsockname()[0])]


def _kernel_has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", 0))
    except OSError:
        return False
    return True
