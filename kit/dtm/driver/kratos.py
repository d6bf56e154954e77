"""The ``dtm-driver-kratos`` driver: ``discovery:///name/package.Service/Method`` and its kin.

Source: dtm-labs/dtmdriver-kratos driver.go, ParseServerMethod and RegisterService.
"""

from dataclasses import dataclass

from kit.dtm.driver import BranchUrl
from kit.dtm.driver.direct import checked, parse_direct

REGISTRY_SCHEMES = frozenset({"discovery", "etcd", "consul"})


class KratosDriver:
    """Branches by service name, found in the registry of the coordinator.

    >>> KratosDriver().parse("discovery://127.0.0.1:2379/trans/api.trans.v1.Trans/TransIn")
    BranchUrl(target='discovery://127.0.0.1:2379/trans', method='/api.trans.v1.Trans/TransIn')
    >>> KratosDriver().parse("direct:///127.0.0.1:9000/pkg.S/M").target
    'direct:///127.0.0.1:9000'
    """

    name = "dtm-driver-kratos"

    def parse(self, url: str) -> BranchUrl:
        """Without ``//`` as the default driver; else scheme, host and first path element."""
        scheme, slashes, rest = url.partition("://")
        if not slashes:
            return parse_direct(url)
        host, _, path = rest.partition("/")
        name, _, method = path.partition("/")
        parts = checked(url, name, method)
        return BranchUrl(f"{scheme}://{host}/{name}", parts.method)


@dataclass(frozen=True, slots=True)
class RegistryTarget:
    """``MicroService.Target``: which registry, and under which name the coordinator stands there.

    Attributes:
        endpoints: ``host:port`` of the registry's servers.
        name: of the service.
        query: TLS options, ``tls=true&caPath=…``; empty when there are none.
        scheme: ``consul``, or one of those that mean etcd.
    """

    endpoints: tuple[str, ...]
    name: str
    query: str = ""
    scheme: str = "etcd"


def parse_registry_target(target: str) -> RegistryTarget | None:
    """The registry that ``target`` names; ``None`` for an empty one: connections are direct.

    Raises:
        ValueError: the scheme is another, or hosts or name are missing.

    >>> parse_registry_target("etcd://h1:2379,h2:2379/dtmservice").name
    'dtmservice'
    """
    text = target.replace("\r", "").replace("\n", "").strip()
    if not text:
        return None
    scheme, _, rest = text.partition("://")
    if scheme not in REGISTRY_SCHEMES:
        raise ValueError(f"unknown scheme: {scheme}; use etcd://host:port/name or consul://…")
    address, _, query = rest.partition("?")
    hosts, _, name = address.partition("/")
    endpoints = tuple(host for host in hosts.split(",") if host)
    if not endpoints or not name:
        raise ValueError(f"'{text}' lacks hosts or a name; write {scheme}://host:port/name")
    return RegistryTarget(endpoints, name, query, scheme)
