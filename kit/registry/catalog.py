"""A service instance as kratos keeps it in Consul's catalog.

==================  ==============================================================================
``ID``, ``Name``    id and name
``Tags``            ``version=<version>``, then further ones
``Meta``            metadata
``TaggedAddresses`` scheme of an endpoint → the whole endpoint, and its port
``Address, Port``   of the first endpoint
==================  ==============================================================================

That form loses things: metadata whose keys are not ASCII or whose values are long (Consul refuses
them), a second endpoint of one scheme, the order of endpoints, whether there was metadata at all.
What it would lose is in one more tag, ``kit=`` and the record of :mod:`kit.registry.record`, which
kratos does not look at; instances that lose nothing do not have it.

Source: go-kratos/kratos contrib/registry/consul/client.go.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from kit.registry import ServiceInstance, record

_RECORD = "kit="
_VERSION = "version="
_OF_CONSUL = frozenset({"lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"})

# agent/structs/structs.go, ValidateServiceMetadata.
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_META_VALUE_BYTES = 512
_META_PAIRS = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """An instance in Consul's words.

    Attributes:
        name: of the service.
        id: that the agent knows it by, unless somebody else has it already.
        fields: of a registration, without ``ID`` and checks.
        addresses: ``host:port`` of each endpoint.
        record: the tag that loses nothing.
    """

    name: str
    id: str
    fields: Mapping[str, Any]
    addresses: tuple[str, ...]
    record: str

    def known_by(self, id: str) -> "Entry":  # noqa: A002  its name
        """The same under another id of the agent's, which is not that of the instance."""
        tags = self.fields["Tags"]
        if id == self.id or self.record in tags:
            return replace(self, id=id)
        return replace(self, id=id, fields={**self.fields, "Tags": [*tags, self.record]})

    def stands_in(self, service: Mapping[str, Any]) -> bool:
        """Whether ``service``, as Consul has it, is this entry."""
        return service.get("ID") == self.id and all(
            _covers(service.get("Service" if key == "Name" else key) or _empty(value), value)
            for key, value in self.fields.items()
        )


def entry_of(instance: ServiceInstance, tags: Sequence[str] = ()) -> Entry:
    """What to register for ``instance``.

    Raises:
        BadRequest: the name is empty, or something that has to be text is not.
    """
    text = record.encode(instance)
    whole = record.decode(text)
    parsed = [(endpoint, *_host_port(endpoint)) for endpoint in whole.endpoints]
    usable = [(endpoint, host, port) for endpoint, host, port in parsed if host]
    first = usable[0] if usable else ("", "", 0)
    fields: dict[str, Any] = {
        "Name": whole.name,
        "Tags": [f"{_VERSION}{whole.version}", *tags],
        "Meta": _acceptable(whole.metadata or {}),
        "TaggedAddresses": {
            urlsplit(endpoint).scheme: {"Address": endpoint, "Port": port}
            for endpoint, _, port in usable
        },
        "Address": first[1],
        "Port": first[2],
    }
    key = whole.id or whole.name  # as Consul does for an empty one
    tag = f"{_RECORD}{text.decode()}"
    if instance_of({"ID": key, "Service": whole.name, **fields}) != whole:
        fields["Tags"].append(tag)
    addresses = tuple(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for _, host, port in usable if port
    )
    return Entry(whole.name, key, fields, addresses, tag)


def instance_of(service: Mapping[str, Any], node_address: str = "") -> ServiceInstance:
    """The instance that ``service``, an object of the catalog, announces.

    Args:
        service: whoever registered it.
        node_address: of the machine, for a service that names no address of its own.
    """
    name = str(service.get("Service") or "")
    tags = [str(tag) for tag in service.get("Tags") or ()]
    for tag in tags:
        if tag.startswith(_RECORD):
            try:
                found = record.decode(tag.removeprefix(_RECORD).encode())
            except ValueError:
                continue  # somebody's own tag
            if found.name == name:
                return found
    versions = [tag.removeprefix(_VERSION) for tag in tags if tag.startswith(_VERSION)]
    addresses: Mapping[str, Mapping[str, Any]] = service.get("TaggedAddresses") or {}
    endpoints = [
        str(address.get("Address", ""))
        for scheme, address in sorted(addresses.items())
        if scheme not in _OF_CONSUL
    ]
    host, port = service.get("Address") or node_address, service.get("Port")
    if not endpoints and host and port:
        endpoints = [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"]
    meta: Mapping[str, str] = service.get("Meta") or {}
    return ServiceInstance(
        str(service.get("ID") or ""),
        name,
        versions[-1] if versions else "",
        dict(meta),
        tuple(endpoints),
    )


def _acceptable(metadata: Mapping[str, str]) -> dict[str, str]:
    """What Consul takes of ``metadata``."""
    fitting = {
        key: value
        for key, value in metadata.items()
        if _META_KEY.fullmatch(key) and len(value.encode()) <= _META_VALUE_BYTES
    }
    return dict(list(fitting.items())[:_META_PAIRS])


def _host_port(endpoint: str) -> tuple[str, int]:
    """Host, empty when there is none that Consul takes, and port, 0 when there is none."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port or 0
    except ValueError:
        return "", 0
    return ("", 0) if host in {"0.0.0.0", "::"} or not url.scheme else (host, port)  # noqa: S104  refused


def _covers(held: Any, wanted: Any) -> bool:
    """Equal, but for addresses that Consul adds."""
    if isinstance(wanted, dict) and isinstance(held, dict):
        return all(held.get(key) == value for key, value in wanted.items())
    return bool(held == wanted)


def _empty(value: Any) -> Any:
    return type(value)()
