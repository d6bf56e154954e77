"""What a client may be told to call.

==================================  ==============================================================
``discovery:///name``               the instances of ``name`` in the client's registry
``discovery://host:port/name``      the same; without a registry at hand, the one at ``host:port``
``etcd://h1:p1,h2:p2/name``         another spelling of it
``direct:///h1:p1,h2:p2``           a fixed list
``host:port``                       one address
``dns:///host:port``, ``unix:…``    as the engine understands them
==================================  ==============================================================

Source: go-kratos/kratos transport/grpc/resolver/discovery/builder.go, direct/builder.go.
"""

from dataclasses import dataclass

_REGISTRY_SCHEMES = frozenset({"discovery", "etcd"})
_ENGINE_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "vsock:")
_FORMS = "discovery:///name, direct:///host:port,host:port or host:port"


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target: either a service to look up, or addresses.

    Attributes:
        text: as it was written, for messages.
        service: the name to look up; empty for a fixed list.
        registry: ``host:port`` of the registry's servers, when the target names them.
        addresses: the fixed list.
    """

    text: str
    service: str = ""
    registry: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def parse_target(text: str) -> Target:
    """Read a target.

    Raises:
        ValueError: it has none of the known forms; the message says what is wrong.

    >>> parse_target("etcd://10.0.0.1:2379,10.0.0.2:2379/trans").registry
    ('10.0.0.1:2379', '10.0.0.2:2379')
    """
    if text.startswith(_ENGINE_SCHEMES):
        return Target(text, addresses=(text,))
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
        return Target(text, service=path, registry=registry)
    if scheme in {"direct", "passthrough"}:
        return Target(text, addresses=tuple(_address(part, text) for part in path.split(",")))
    raise ValueError(f"target {text!r}: scheme {scheme!r} is not known; write {_FORMS}")


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
