"""What a client may be told to call.

==================================  ==============================================================
``discovery:///name``               the instances of ``name`` in the client's registry
``discovery://host:port/name``      the same; without a registry at hand, the one at ``host:port``
``etcd://h1:p1,h2:p2/name``         another spelling of it
``consul://host:port/name``         the same in Consul
``direct:///h1:p1,h2:p2``           a fixed list; ``static:///`` is another spelling
``dns:///host:port``                every address of a name, looked up again and again
``host:port``                       one address
``unix:…``, ``ipv4:…`` and more     as the gRPC engine understands them
==================================  ==============================================================

Source: go-kratos/kratos transport/grpc/resolver/discovery/builder.go, direct/builder.go.
"""

from dataclasses import dataclass

_REGISTRY_SCHEMES = frozenset({"discovery", "etcd", "consul"})
_LIST_SCHEMES = frozenset({"direct", "static", "passthrough"})
_ENGINE_SCHEMES = ("unix:", "unix-abstract:", "ipv4:", "ipv6:", "vsock:")
_FORMS = "discovery:///name, direct:///host:port,host:port, dns:///host:port or host:port"


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target: either a service to look up, or addresses.

    Attributes:
        text: as it was written, for messages.
        service: the name to look up; empty for a fixed list.
        registry: ``host:port`` of the registry's servers, when the target names them; that of a
            Consul begins with ``consul://``.
        addresses: the fixed list.
        name: ``host:port`` whose host is looked up in DNS.
        by_engine: ``addresses`` is one that only a gRPC engine understands.
    """

    text: str
    service: str = ""
    registry: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    name: str = ""
    by_engine: bool = False


def parse_target(text: str) -> Target:
    """Read a target.

    Raises:
        ValueError: it has none of the known forms; the message says what is wrong.

    >>> parse_target("etcd://10.0.0.1:2379,10.0.0.2:2379/trans").registry
    ('10.0.0.1:2379', '10.0.0.2:2379')
    """
    if text.startswith(_ENGINE_SCHEMES):
        return Target(text, addresses=(text,), by_engine=True)
    if text.startswith("dns:"):
        return Target(text, name=_looked_up(text))
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Target(text, addresses=(_address(text, text),))
    authority, _, path = rest.partition("/")
    if "?" in path or "#" in path:
        raise ValueError(
            f"target {text!r}: '?' and '#' have no meaning here; end it after {path!r}"
        )
    if scheme in _REGISTRY_SCHEMES:
        if not path:
            raise ValueError(
                f"target {text!r} names no service; write for example {scheme}://{authority}/trans"
            )
        registry = tuple(_address(part, text) for part in authority.split(",")) if authority else ()
        if scheme == "consul":
            registry = tuple(f"consul://{address}" for address in registry)
        return Target(text, service=path, registry=registry)
    if scheme in _LIST_SCHEMES:
        if authority and not path:
            raise ValueError(
                f"target {text!r} has no list after a third slash; write {scheme}:///{authority}"
            )
        addresses = dict.fromkeys(_address(part, text) for part in path.split(","))
        return Target(text, addresses=tuple(addresses))
    raise ValueError(f"target {text!r}: scheme {scheme!r} is not known; write {_FORMS}")


def _looked_up(text: str) -> str:
    """``host:port`` of a ``dns:`` target."""
    rest = text.removeprefix("dns:")
    if rest.startswith("//"):
        server, slash, rest = rest.removeprefix("//").partition("/")
        if server or not slash:
            raise ValueError(
                f"target {text!r}: which server is asked for names is a setting of the machine; "
                f"write dns:///{rest or server}"
            )
    return _address(rest, text)


def _address(part: str, target: str) -> str:
    """``part`` when it is ``host:port``."""
    part = part.strip()
    host, _, port = part.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or "/" in part or (":" in host) != bracketed:
        raise ValueError(f"target {target!r}: {part!r} is not host:port; write {_FORMS}")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"target {target!r}: {port!r} in {part!r} is not a port from 1 to 65535")
    return part
